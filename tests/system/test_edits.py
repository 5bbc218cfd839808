"""What plugins may do to a message, from a real client through real sandboxes to the mailbox."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import re
from email.message import EmailMessage
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import Make

EDIT = """
plugin = "../edit"
[grants]
quarantine = true
edit_body = true
delete_recipient = true
rewrite_recipient = true
change_sender = true
edit_headers = ["X-*", "Subject"]
add_recipient = ["test.local", "other.local"]
reads = ["headers"]
"""
WITNESS = """
plugin = "../witness"
[grants]
edit_body = true
edit_headers = ["X-Seen"]
reads = ["envelope", "headers", "body"]
"""
TRESPASS = """
plugin = "../trespass"
[grants]
reads = ["headers"]
"""
DOMAINS = '[domain."test.local"]\n[domain."other.local"]\n'


@pytest.fixture
def editing(make_daemon: Make) -> Daemon:
    """The editing plugin, and behind it one that writes down what it sees."""
    return make_daemon(
        config=DOMAINS, copy=("edit", "witness"), plugins={"10-edit.toml": EDIT, "20-witness.toml": WITNESS}
    )


def a_mail(*acts: list[Any], subject: str = "hello", body: str = "the client's body\r\n") -> bytes:
    do = "".join(f"X-Do: {json.dumps(act)}\r\n" for act in acts)
    return f"From: a@example.org\r\n{do}Subject: {subject}\r\nX-Tag: one\r\nX-Tag: two\r\n\r\n{body}".encode()


def send(daemon: Daemon, mail: bytes, *to: str, sender: str = "alice@example.org") -> str:
    """One transaction; the queue id."""
    with daemon.smtp() as client:
        client.ehlo()
        assert client.mail(sender)[0] == 250
        for recipient in to or ("user@test.local",):
            assert client.rcpt(recipient)[0] == 250
        code, text = client.data(mail)
        assert code == 250, text
        return (re.search(rb"queued as (\S+)", text) or [b"", b""])[1].decode()


def arrived(daemon: Daemon, user: str = "user", domain: str = "test.local") -> EmailMessage:
    (path,) = wait_for(lambda: daemon.mailbox(user, domain), timeout_s=20)
    return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)


def body_of(message: EmailMessage) -> bytes:
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def seen(message: EmailMessage) -> dict[str, Any]:
    """What the plugin behind the editing one was shown."""
    return json.loads("".join(message["X-Seen"].splitlines()))


def test_header_fields_are_added_changed_and_deleted(editing: Daemon) -> None:
    """In order, by name and number, and the next plugin sees it; the trace stays on top."""
    send(editing, a_mail(
        ["add_header", "X-Tag", "zero"], ["change_header", "Subject", "changed"],
        ["change_header", "X-Tag", "1", 2], ["delete_header", "X-Tag", 3], ["delete_header", "X-Do"],
    ))  # fmt: skip
    mail = arrived(editing)
    assert mail.get_all("X-Tag") == ["zero", "1"]
    assert mail.get_all("Subject") == ["changed"]
    assert mail["X-Do"] is None
    assert list(mail.keys())[:5] == ["Return-Path", "Delivered-To", "Received", "X-Tag", "X-Seen"]
    assert seen(mail)["subject"] == ["changed"]
    assert body_of(mail) == b"the client's body\n"


def test_a_body_of_ten_mebibytes_takes_the_place_of_the_clients(editing: Daemon) -> None:
    """In pieces through the call channel, to the spool, to the next plugin and to the mailbox."""
    line = "0123456789abcdef" * 4 + "\n"
    times = 10 * 1024 * 1024 // len(line)
    send(editing, a_mail(["replace_body_by", line, times]))
    mail = arrived(editing)
    assert body_of(mail) == line.encode() * times
    assert seen(mail)["body"] == hashlib.sha256(line.replace("\n", "\r\n").encode() * times).hexdigest()


def test_two_plugins_replace_the_body_one_after_the_other(editing: Daemon) -> None:
    """The second builds on what the first left (plugins.md); the header is still the client's."""
    send(editing, a_mail(["replace_body", "the first plugin's\n"], subject="sign"))
    mail = arrived(editing)
    assert body_of(mail) == b"the first plugin's\nsigned\n"
    assert mail["From"] == "a@example.org"


def test_recipients_are_added_and_deleted(editing: Daemon) -> None:
    """Added ones by the same table that RCPT asks; the client's others are not touched."""
    mail = a_mail(["add_recipient", "archive@other.local"], ["delete_recipient", "gone@test.local"])
    queue_id = send(editing, mail, "gone@test.local", "user@test.local")
    assert seen(arrived(editing))["recipients"] == ["user@test.local", "archive@other.local"]
    assert arrived(editing, "archive", "other.local")["Delivered-To"] == "archive@other.local"
    wait_for(lambda: len([e for e in editing.events("delivery") if e["id"] == queue_id]) == 2)
    assert not editing.mailbox("gone")
    line = editing.told("message")[-1]
    assert (line["recipients"], line["dropped"]) == (
        ["user@test.local", "archive@other.local"],
        ["gone@test.local"],
    )


def test_a_message_without_recipients_left_is_kept_for_nobody(editing: Daemon) -> None:
    """As discard: 250, and the log says so."""
    queue_id = send(editing, a_mail(["delete_recipient", "user@test.local"]))
    line = editing.told("message")[-1]
    assert (line["discarded"], line["recipients"], line["dropped"]) == (True, [], ["user@test.local"])
    assert line["id"] == queue_id != "", "the sender is told what he is told of mail that is kept"


@pytest.mark.parametrize("address", ["spy@elsewhere.example", "nobody@other.local"])
def test_a_recipient_that_rcpt_would_refuse_is_not_added(make_daemon: Make, address: str) -> None:
    """Never past relay rules nor the table of mailboxes: a breach, and on_failure answers (421, close)."""
    config = '[domain."test.local"]\n[domain."other.local"]\nmailboxes = ["bob"]\n'
    daemon = make_daemon(config=config, copy=("edit",), plugins={"10-edit.toml": EDIT})
    with daemon.smtp() as client:
        client.ehlo()
        client.mail("alice@example.org")
        client.rcpt("user@test.local")
        assert client.data(a_mail(["add_recipient", address]))[0] == 421
    assert daemon.told("plugin_failure")[-1]["cause"] == "protocol"
    assert not daemon.mailbox("user")


def test_a_recipient_is_rewritten_and_its_original_kept(editing: Daemon) -> None:
    """The mailbox shows both, as Postfix does; the trace names what the client said."""
    send(editing, a_mail(), "alias@test.local")
    mail = arrived(editing, "real")
    assert mail["Delivered-To"] == "real@test.local"
    assert mail["X-Original-To"] == "alias@test.local"
    assert "for <alias@test.local>" in " ".join(mail["Received"].split())
    assert editing.told("message")[-1]["rewritten"] == ["alias@test.local>real@test.local"]


def test_the_sender_is_changed(editing: Daemon) -> None:
    """Where reports would go: the Return-Path shows it; empty is the null sender."""
    for user, sender in (("one", "list-owner@test.local"), ("two", "")):
        send(editing, a_mail(["change_sender", sender]), f"{user}@test.local")
        mail = arrived(editing, user)
        assert mail["Return-Path"] == f"<{sender}>"
        assert seen(mail)["sender"] == sender
    told = [(line["sender"], line["original_sender"]) for line in editing.told("message", 2)]
    assert told == [("list-owner@test.local", "alice@example.org"), ("<>", "alice@example.org")]


def test_a_quarantined_message_waits_for_an_admin(editing: Daemon) -> None:
    """250 to the client, on hold with the reason, over a restart, until it is released; edits count."""
    queue_id = send(editing, a_mail(["replace_body", "edited\n"], ["quarantine", "looks like a virus"]))

    def listed() -> dict[str, Any]:
        (entry,) = json.loads(editing.forkd("queue", "list", "--json").stdout)["entries"]
        return entry

    wait_for(lambda: listed()["state"] == "hold", timeout_s=20)
    assert listed()["reason"] == "looks like a virus"
    assert editing.forkd("queue", "flush").stdout == "0 messages to be tried now\n"
    assert any(e["act"] == "held" and e["id"] == queue_id for e in editing.events("queue"))
    assert editing.stop() == 0
    editing.start()
    wait_for(lambda: listed()["state"] == "hold", timeout_s=20)
    shown = editing.forkd("queue", "list").stdout
    assert "hold" in shown
    assert "looks like a virus" in shown
    assert not editing.mailbox("user")
    done = editing.forkd("queue", "release", queue_id)
    assert (done.returncode, done.stdout) == (0, "1 message released\n")
    assert body_of(arrived(editing)) == b"edited\n"
    assert "not in the queue" in editing.forkd("queue", "release", queue_id).stderr
    assert any(e["act"] == "released" and e["id"] == queue_id for e in editing.events("queue"))


ACTS = (
    "add_header", "add_recipient", "change_header", "change_sender", "delete_header", "delete_recipient",
    "quarantine", "replace_body",
)  # fmt: skip


def test_without_the_power_every_edit_is_a_breach(make_daemon: Make) -> None:
    """A stranger's filter cannot change mail: 421 and close, nothing kept, and the next session is served."""
    daemon = make_daemon(config=DOMAINS, copy=("trespass",), plugins={"10-trespass.toml": TRESPASS})
    for number, act in enumerate(ACTS, start=1):
        with daemon.smtp() as client:
            client.ehlo()
            client.mail("alice@example.org")
            client.rcpt("user@test.local")
            assert client.data(a_mail(subject=act))[0] == 421, act
        failures = wait_for(lambda n=number: len(f := daemon.events("plugin_failure")) == n and f)
        assert failures[-1]["cause"] == "protocol", act
    send(daemon, a_mail(subject="innocent"))
    assert arrived(daemon)["Subject"] == "innocent"
    assert len(list((daemon.var / "mail").rglob("new/*"))) == 1


CHUNKS = [b"From: a@example.org\r\nSubj", b"ect: chunked\r\n\r\n.\r\nline\r", b"\nno end"]


def test_a_message_in_chunks_is_what_it_would_be_in_one_piece(editing: Daemon) -> None:
    """RFC 3030: cut anywhere, dots mean nothing, a missing last line end is added; RSET forgets it all."""
    with editing.smtp() as client:
        client.ehlo()
        assert client.has_extn("CHUNKING")
        client.mail("alice@example.org")
        client.rcpt("user@test.local")
        client.send(b"BDAT 5\r\nhello")
        assert client.getreply()[0] == 250
        assert client.rset()[0] == 250
        client.mail("alice@example.org")
        client.rcpt("user@test.local")
        for place, chunk in enumerate(CHUNKS, start=1):
            client.send(f"BDAT {len(chunk)}{' LAST' if place == len(CHUNKS) else ''}\r\n".encode() + chunk)
            assert client.getreply()[0] == 250
    mail = arrived(editing)
    assert mail["Subject"] == "chunked"
    assert body_of(mail) == b".\nline\nno end\n"


def test_smtputf8_mail_lies_in_its_mailbox(editing: Daemon) -> None:
    """RFC 6531: UTF-8 in addresses and header, said in the trace."""
    with editing.smtp() as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        client.mail("grün@example.org", ["SMTPUTF8", "BODY=8BITMIME"])
        client.rcpt("jürgen@test.local")
        code, text = client.data("Subject: Grüße\r\n\r\nhier\r\n".encode())
        assert code == 250, text
    (path,) = wait_for(lambda: list((editing.var / "mail/test.local").glob("*/new/*")), timeout_s=20)
    octets = path.read_bytes()
    assert "Return-Path: <grün@example.org>\nDelivered-To: jürgen@test.local\n".encode() in octets
    assert b"with UTF8SMTP id" in octets
