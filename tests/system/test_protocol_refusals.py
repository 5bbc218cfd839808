"""Every refusal is in the log, with whom it was and why; no secret is, whatever was said when."""

from __future__ import annotations

import os

import pytest

from tests.support.daemon import Daemon
from tests.support.pki import Authority
from tests.support.talker import Talker
from tests.support.waiting import wait_for

from .conftest import Make

CONFIG = """
[limits]
message_size = "64KiB"
recipients = 100
[domain."test.local"]
mailboxes = ["anna", "jürgen"]
"""

UMLAUT = 'plugin = "../umlaut"\n[grants]\nreads = ["envelope"]\n'


def refusals(daemon: Daemon, count: int) -> list[dict]:
    """The first lines of that kind, once they are there."""
    return wait_for(lambda: found if len(found := daemon.events("refused")) >= count else [])


@pytest.fixture
def secured(make_daemon: Make, who) -> Daemon:
    """With STARTTLS."""
    daemon = make_daemon(config=CONFIG, start=False)
    pair = Authority(daemon.folder).pair("mx.test.local")
    daemon.config += pair.table("mx.test.local")
    daemon.write_config()
    for path in daemon.folder.iterdir():
        os.chown(path, who.uid, -1)
    return daemon.start()


SAID = (
    ("MAIL FROM:<a@example.org>", "503 5.5.1", "MAIL", "FROM:<a@example.org>"),
    ("EHLO client.example", "250", "", ""),
    ("MAIL FROM:<a@example.org> SIZE=100000", "552 5.3.4", "MAIL", "FROM:<a@example.org> SIZE=100000"),
    ("MAIL FROM:<jürgen@example.org>", "550 5.6.7", "MAIL", "FROM:<jürgen@example.org>"),
    ("MAIL FROM:<a@example.org", "501 5.1.7", "MAIL", "FROM:<a@example.org"),
    ("MAIL FROM:<a@example.org> HOLD=1", "555 5.5.4", "MAIL", "FROM:<a@example.org> HOLD=1"),
    ("AUTH PLAIN c2VjcmV0", "502 5.5.1", "AUTH", ""),
    ("c2VjcmV0", "500 5.5.1", "-", ""),
    ("XCLIENT LOGIN=secret", "550 5.7.0", "XCLIENT", ""),
    ("STARTTLS secret", "501 5.5.4", "STARTTLS", ""),
    ("MAIL FROM:<a@example.org>", "250", "", ""),
    ("RCPT TO:<a b@test.local>", "501 5.1.3", "RCPT", "TO:<a b@test.local>"),
    ("RCPT TO:<anna@test.local> NOTIFY=SOON", "501 5.5.4", "RCPT", "TO:<anna@test.local> NOTIFY=SOON"),
    ("VRFY", "501 5.5.4", "VRFY", ""),
)


def test_what_the_engine_refuses_is_told(secured: Daemon) -> None:
    """Syntax, order, size, offers: each with its command, its reply and what was said, but for secrets."""
    client = Talker(secured)
    told = []
    for line, reply, command, said in SAID:
        assert client.say(line).startswith(reply), line
        if command:
            told.append((command, reply, said))
    # What a pipelining client hears behind a refusal has the same cause.
    assert client.say("DATA").startswith("554 5.5.1 No valid recipients")
    client.say("QUIT")
    lines = refusals(secured, len(told))
    assert [(each["command"], each["reply"][:9], each.get("said", "")) for each in lines] == [
        (command, reply, said) for command, reply, said in told
    ]
    assert {each["name"] for each in lines} == {"localhost"}
    assert [each["sender"] for each in lines[-3:]] == ["a@example.org"] * 3
    assert "secret" not in secured.log_text()
    assert "c2VjcmV0" not in secured.log_text()


def test_too_many_recipients_are_told_by_name(secured: Daemon) -> None:
    """452 4.5.3 is no error of the client's; which recipients had to wait is in the log."""
    client = Talker(secured)
    client.say("EHLO client.example")
    client.say("MAIL FROM:<a@example.org>")
    for number in range(100):
        assert client.say(f"RCPT TO:<anna+{number}@test.local>").startswith("250")
    assert client.say("RCPT TO:<anna+100@test.local>").startswith("452 4.5.3")
    (line,) = refusals(secured, 1)
    assert (line["said"], line["sender"]) == ("TO:<anna+100@test.local>", "a@example.org")


@pytest.mark.slow
def test_lines_name_tls_and_who_talked_too_early(secured: Daemon) -> None:
    """The handshake's version and cipher in all lines about the client; a session's end has its cause."""
    client = Talker(secured)
    client.say("EHLO client.example")
    client.start_tls()
    client.say("EHLO client.example")
    client.say("MAIL FROM:<a@example.org>")
    assert client.say("RCPT TO:<nobody@test.local>").startswith("550 5.1.1")
    assert client.say("RCPT TO:<anna@test.local>").startswith("250")
    client.say("DATA")
    assert client.say("Subject: x\r\n\r\nx\r\n.").startswith("250")
    client.send(b"EHLO client.example\r\nNOOP\r\n")
    assert client.read().startswith("554 5.5.1")
    assert client.closed()
    (session,) = wait_for(lambda: secured.events("session"))
    assert session["reason"] == "early talker"
    lines = [*secured.events("refused"), *secured.told("message"), session]
    assert len(lines) == 4
    assert {line["tls"].split()[0] for line in lines} == {"TLSv1.3"}
    assert lines[0]["recipient"] == "nobody@test.local"


def test_plugins_refusals_before_mail_are_told(make_daemon: Make) -> None:
    """At EHLO and at connect, where the client says QUIT and the session's last reply is 221."""
    daemon = make_daemon(
        copy=("umlaut", "meet"),
        config='[networks]\nxclient = ["127.0.0.1/32"]\n',
        plugins={"10-umlaut.toml": UMLAUT, "20-meet.toml": 'plugin = "../meet"\n'},
    )
    client = Talker(daemon)
    assert client.say("EHLO bad.example").startswith("550 5.7.1 No, bad")
    assert client.say("HELO bad.example").startswith("550 5.7.1 No, bad")
    assert client.say("XCLIENT NAME=bad.example").startswith("554 5.7.1")
    assert client.say("QUIT").startswith("221")
    lines = refusals(daemon, 3)
    assert [(each["command"], each["reply"].split(" on ")[0]) for each in lines] == [
        ("EHLO", "550 5.7.1 No, bad"),
        ("HELO", "550 5.7.1 No, bad"),
        ("-", "554 5.7.1 No, "),
    ]
    assert all(each["plugins"] for each in lines)
    assert lines[2]["name"] == "bad.example"
