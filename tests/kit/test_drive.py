"""A session in the kit goes as in a worker: what is refused, dropped, rewritten, edited has its effect."""

from __future__ import annotations

import asyncio

from forkd.kit import trial
from forkd.kit.configured import configured
from forkd.kit.samples import Mail, Sample
from tests.kit.conftest import WritePlugin

CODE = """
from forkd.sdk import (Plugin, accept, add_header, add_recipient, change_sender, defer, deny, discard,
                       export, quarantine, replace_body, rewrite)

def plugin_init(settings):
    def mail(session, sender):
        if sender.local == "gone":
            return deny("5.7.1", "gone")
        return export("SCORE", "7")

    def rcpt(session, recipient):
        return {"drop": discard(), "moved": rewrite("there@test.local"), "no": deny("5.1.1", "none"),
                "later": defer("4.2.0", "later")}.get(recipient.local)

    def data(session, envelope):
        session.notes["to"] = ",".join(str(to) for to in envelope.recipients)

    def message(session, envelope, message):
        if envelope.sender.local == "hold":
            return quarantine("held")
        return [add_header("X-To", session.notes["to"]), replace_body("new\\n"), change_sender(""),
                add_recipient("more@test.local"), add_header("X-Score", session.exports["SCORE"])]

    def disconnect(session):
        print("bye")

    return Plugin(mail=mail, rcpt=rcpt, data=data, message=message, disconnect=disconnect)
"""
WANTS = """
[wants.powers]
discard = "x"
quarantine = "x"
edit_body = "x"
change_sender = "x"
rewrite_recipient = "x"
edit_headers = { names = ["X-*"], reason = "x" }
add_recipient = { domains = ["test.local"], reason = "x" }
export = { names = ["SCORE"], reason = "x" }
[wants.reads]
envelope = "x"
"""


def test_a_session_goes_as_it_would(write_plugin: WritePlugin):
    """Replies and changes of each step; what was dropped or refused is in no envelope."""
    folder = write_plugin(CODE, hooks=("mail", "rcpt", "data", "message", "disconnect"), more=WANTS)
    octets = b"Subject: x\r\n\r\nbody\r\n"
    names = ("drop", "moved", "no", "later", "stays")
    recipients = tuple(f"{name}@test.local" for name in names)
    mails = (
        Mail(sender="gone@client.example", recipients=recipients, octets=octets),
        Mail(recipients=("no@test.local",), octets=octets),
        Mail(recipients=recipients, octets=octets),
        Mail(sender="hold@client.example", octets=octets),
    )
    with configured(folder) as given:
        found = asyncio.run(trial.test(given, [Sample(name="one", mail=mails)]))
    told = [(step.hook, step.reply[:9], step.changes) for step in found.sessions[0].steps]
    score = ("fact SCORE = 7",)
    assert told == [
        ("mail", "550 5.7.1", ()),
        ("mail", "250", score),
        ("rcpt", "550 5.1.1", ()),
        ("mail", "250", score),
        ("rcpt", "250", ("dropped behind a 250",)),
        ("rcpt", "250", ("recipient becomes <there@test.local>",)),
        ("rcpt", "550 5.1.1", ()),
        ("rcpt", "451 4.2.0", ()),
        ("rcpt", "250", ()),
        ("data", "354", ()),
        (
            "message",
            "250 queue",
            (
                "+ X-To: there@test.local,stays@test.local",
                "+ X-Score: 7",
                "another body, 5 octets",
                "one more recipient <more@test.local>",
                "sender becomes <>",
            ),
        ),
        ("mail", "250", score),
        ("rcpt", "250", ()),
        ("data", "354", ()),
        ("message", "250 queue", ("kept and not delivered: held",)),
        ("disconnect", "", ()),
    ]
    assert "bye" in "".join(found.printed)
