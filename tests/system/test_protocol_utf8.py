"""SMTPUTF8 from the client to the mailbox: one mailbox for all spellings, replies in UTF-8 (RFC 6531)."""

from __future__ import annotations

import email
import email.policy

from tests.support.daemon import Daemon
from tests.support.talker import Talker
from tests.support.waiting import wait_for

from .conftest import Make

DOMAINS = '[domain."bücher.example"]\nmailboxes = ["jürgen"]\n[domain."xn--mnchen-3ya.example"]\n'

UMLAUT = 'plugin = "../umlaut"\n[grants]\nreads = ["envelope"]\n'


def send(client: Talker, recipient: str, *, parameters: str = " SMTPUTF8") -> str:
    """One message; the last reply that was not 250, or the one to the end of data."""
    for line in (f"MAIL FROM:<zoë@bücher.example>{parameters}", f"RCPT TO:<{recipient}>", "DATA"):
        said = client.say(line)
        if said[0] not in "23":
            client.say("RSET")
            return said
    return client.say("From: zoë@bücher.example\r\nSubject: grüße\r\n\r\nhallo ü\r\n.")


def mailboxes(daemon: Daemon) -> dict[str, int]:
    """Folder below mail/ -> how many messages lie there."""
    found: dict[str, int] = {}
    for path in (daemon.var / "mail").glob("*/*/new/*"):
        name = f"{path.parts[-4]}/{path.parts[-3]}"
        found[name] = found.get(name, 0) + 1
    return found


def test_every_spelling_of_an_address_is_one_mailbox(make_daemon: Make) -> None:
    """U-labels and A-labels, case, composed and decomposed: as the table is asked, so is the folder named."""
    daemon = make_daemon(config=DOMAINS)
    client = Talker(daemon)
    client.say("EHLO client.example")
    for recipient in (
        "jürgen@bücher.example",
        "JÜRGEN@BÜCHER.example",
        "jürgen@xn--bcher-kva.example",
        "ju\u0308rgen@xn--BCHER-kva.example",
        "jürgen+detail@bu\u0308cher.example",
        "post@münchen.example",
        "post@xn--mnchen-3ya.example",
    ):
        assert send(client, recipient).startswith("250 2.0.0"), recipient
    folders = {"xn--bcher-kva.example/j%C3%BCrgen": 5, "xn--mnchen-3ya.example/post": 2}
    wait_for(lambda: mailboxes(daemon) == folders, timeout_s=20)
    (path, *_) = daemon.mailbox("j%C3%BCrgen", "xn--bcher-kva.example")
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.SMTPUTF8)
    assert message["Return-Path"] == "<zoë@bücher.example>"
    assert message["Delivered-To"] == "jürgen@bücher.example"
    assert "with UTF8SMTP id" in message["Received"]
    assert "for <jürgen@bücher.example>;" in message["Received"]
    assert message["Subject"] == "grüße"


def test_plugins_refuse_in_utf8_where_the_client_reads_it(make_daemon: Make) -> None:
    """RFC 6531 3.7.4: "?" for everybody else, and never a broken line."""
    daemon = make_daemon(copy=("umlaut",), plugins={"10-umlaut.toml": UMLAUT})
    client = Talker(daemon)
    client.say("EHLO client.example")
    assert send(client, "niemand@test.local") == "550 5.1.1 Empfänger unbekannt\r\n"
    client.say("MAIL FROM:<a@example.org>")
    assert client.say("RCPT TO:<niemand@test.local>") == "550 5.1.1 Empf?nger unbekannt\r\n"
    client.say("RSET")
    assert send(client, "voll@test.local") == "451 4.2.2 Überfüllt\r\n"
    client.say("MAIL FROM:<a@example.org> SMTPUTF8")
    client.say("RCPT TO:<voll@test.local>")
    client.send(b"BDAT 3\r\nabc")
    assert client.read() == "451 4.2.2 Überfüllt\r\n"
    wanted = {"550 5.1.1 Empfänger unbekannt", "451 4.2.2 Überfüllt"}
    wait_for(
        lambda: wanted <= {each["reply"] for kind in ("refused", "message") for each in daemon.events(kind)}
    )
