"""One message, the whole path: real client, sandboxed plugins, spool, qmgr, Maildir."""

from __future__ import annotations

import email
import email.policy
import re
import smtplib
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, swaks
from tests.support.waiting import wait_for

from .conftest import STOCK, Make

pytestmark = pytest.mark.both_modes

TRACE = re.compile(
    rb"\AReturn-Path: [^\n]*\nDelivered-To: [^\n]*\nReceived: [^\n]*\n(?:[ \t][^\n]*\n)*"
    rb"(?:X-Forkd-Plugin: [^\n]*\n)?"
)


def arrived(daemon: Daemon, user: str, count: int = 1) -> list[Path]:
    return wait_for(lambda: len(found := daemon.mailbox(user)) >= count and found, timeout_s=20)


def test_a_mail_from_swaks_lies_in_the_maildir_with_its_trace(shared: Daemon):
    """RFC 5321 4.4: Received on top, Return-Path added at delivery; the plugin's header below them."""
    assert (
        swaks(shared, "--from alice@example.org --to user@test.local --helo client.example").returncode == 0
    )
    message = email.message_from_bytes(arrived(shared, "user")[0].read_bytes(), policy=email.policy.default)
    assert message["Return-Path"] == "<alice@example.org>"
    assert message["Delivered-To"] == "user@test.local"
    received = " ".join(message["Received"].split())
    assert re.fullmatch(
        r"from client\.example \(localhost \[127\.0\.0\.1\]\) by \S+ \(forkd\) with ESMTP id [0-9A-Z]+"
        r" for <user@test\.local>; \w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
        received,
    )
    assert message["X-Forkd-Plugin"].startswith("mark; session=")
    assert message["To"] == "user@test.local"


def test_the_logs_of_session_message_and_delivery_join_by_their_ids(daemon: Daemon):
    """One line each; the reply names the queue id."""
    transcript = swaks(daemon, "--from alice@example.org --to user@test.local").stdout
    queue_id = re.search(r"queued as (\S+)", transcript)[1]
    delivery = wait_for(lambda: [e for e in daemon.events("delivery") if e["id"] == queue_id], timeout_s=20)[
        0
    ]
    message = next(e for e in daemon.told("message") if e["id"] == queue_id)
    session = wait_for(lambda: [e for e in daemon.events("session") if e["session"] == message["session"]])[0]
    assert delivery["status"] == "delivered"
    assert delivery["session"] == message["session"]
    assert message["sender"] == "alice@example.org"
    assert any("mark" in story for story in message["plugins"])
    assert session["reason"] == "quit"


@pytest.mark.parametrize(
    ("sender", "recipient", "reply"),
    [
        ("blocked@example.org", "user@test.local", "550 5.7.1"),
        ("x@mail.spam.example", "user@test.local", "550 5.7.1"),
        ("alice@example.org", "user@elsewhere.example", "550 5.7.1"),
        ("alice@example.org", "nobody@listed.example", "550 5.1.1"),
        ("alice@example.org", "user%elsewhere.example@test.local", "550 5.7.1"),
    ],
    ids=["blocked sender", "blocked domain", "relay", "unknown recipient", "relay probe"],
)
def test_what_must_be_refused_is_refused(share_daemon: Make, sender: str, recipient: str, reply: str):
    """smtp.md, Submission and relay; block_senders."""
    config = '[domain."test.local"]\n[domain."listed.example"]\nmailboxes = ["bob"]\n'
    daemon = share_daemon(plugins=STOCK, config=config)
    transcript = swaks(daemon, f"--from {sender} --to {recipient}").stdout
    assert f"<** {reply}" in transcript
    assert not (daemon.var / "mail").exists() or not list((daemon.var / "mail").rglob("new/*"))


def test_postmaster_is_always_taken(make_daemon: Make):
    """RFC 5321 4.5.1, also without a domain and where it is not listed."""
    daemon = make_daemon(config='[domain."listed.example"]\nmailboxes = ["bob"]\n')
    assert swaks(daemon, "--from a@example.org --to postmaster@listed.example").returncode == 0
    with daemon.smtp() as client:
        client.ehlo()
        client.mail("a@example.org")
        assert client.docmd("RCPT TO:<Postmaster>")[0] == 250


BODIES = {
    "plain": b"Subject: x\r\n\r\nhello\r\n",
    "empty": b"",
    "no header": b"\r\nonly a body\r\n",
    "header only": b"Subject: x\r\n",
    "no final line end": b"Subject: x\r\n\r\nlast line without an end",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.hidden\r\n. \r\ntext.\r\n",
    "dot first": b"\r\n.first line\r\n\r\n.\r\n",
    "8-bit": b"Subject: \xc3\xa4\r\n\r\n" + bytes(range(128, 256)) + b"\r\n",
    "control characters": b"Subject: c\r\n\r\n" + bytes(set(range(1, 32)) - {10, 13}) + b"\x7f\r\n",
    "long lines": b"Subject: long\r\n\r\n" + b"x" * 100_000 + b"\r\n" + b"y" * 2000 + b"\r\n",
    "long header": b"X-Long: " + b"z" * 50_000 + b"\r\nSubject: x\r\n\r\nbody\r\n",
    "many lines": b"Subject: m\r\n\r\n" + b"\r\n" * 50_000,
    "folded": b"Subject: a\r\n b\r\n\tc\r\nFrom: x@example.org\r\n\r\nbody\r\n",
    "From line": b"Subject: x\r\n\r\nFrom me to you\r\n>From x\r\n",
    "mime": (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: text/plain\r\n\r\n.\r\n--b\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + b"QUJD" * 5000 + b"\r\n--b--\r\n"
    ),
    "25 MiB": b"Subject: big\r\n\r\n" + (b"0123456789" * 7 + b"\r\n") * (25 * 1024 * 1024 // 72),
}


def test_messages_of_many_kinds_come_out_byte_identical(shared: Daemon):
    """But for the trace fields and CRLF -> LF; a missing last line end is added by the protocol itself."""
    for index, (kind, body) in enumerate(BODIES.items()):
        user = f"kind{index}"
        with shared.smtp() as client:
            client.ehlo()
            client.mail("a@example.org", ["BODY=8BITMIME"])
            client.rcpt(f"{user}@test.local")
            assert client.docmd("DATA")[0] == 354
            end = b"" if body.endswith(b"\r\n") or not body else b"\r\n"
            stuffed = re.sub(rb"(?m)^\.", b"..", body)
            client.sock.sendall(stuffed + end + b".\r\n")
            assert client.getreply()[0] == 250, kind
        found = arrived(shared, user)[0].read_bytes()
        trace = TRACE.match(found)
        assert trace, f"{kind}: {found[:300]!r}"
        assert found[trace.end() :] == (body + end).replace(b"\r\n", b"\n"), kind


def test_smuggling_makes_one_message_of_one(shared: Daemon):
    """What looks like an end of data to a lax server stays text (smtp.md, rule one)."""
    for index, fake in enumerate((b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n")):
        with shared.smtp() as client:
            client.ehlo()
            client.mail("a@example.org")
            client.rcpt(f"smuggle{index}@test.local")
            client.docmd("DATA")
            smuggled = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@test.local>\r\nDATA\r\nevil\r\n.\r\n"
            client.sock.sendall(b"Subject: x\r\n\r\ntext" + fake + smuggled)
            assert client.getreply()[0] == 250
            assert client.noop()[0] == 250
        assert b"evil@example.org" in arrived(shared, f"smuggle{index}")[0].read_bytes()
    assert not shared.mailbox("victim")


def test_curl_sends(shared: Daemon):
    """curl speaks SMTP with SIZE and pipelines nothing."""
    mail = shared.folder / "mail.txt"
    mail.write_bytes(b"Subject: from curl\r\n\r\nhello\r\n")
    command = [
        "curl",
        "-sS",
        f"smtp://127.0.0.1:{shared.port}/client.example",
        "--mail-from",
        "a@example.org",
    ]
    subprocess.run([*command, "--mail-rcpt", "curl@test.local", "-T", str(mail)], check=True, timeout=60)
    assert b"Subject: from curl" in arrived(shared, "curl")[0].read_bytes()


def test_smtplib_sends_to_several_and_learns_of_the_refused(shared: Daemon):
    with shared.smtp() as client:
        refused = client.sendmail(
            "a@example.org",
            ["one@test.local", "two@elsewhere.example", "three@test.local"],
            "Subject: x\n\nhello\n",
        )
    assert list(refused) == ["two@elsewhere.example"]
    for user in ("one", "three"):
        text = arrived(shared, user)[0].read_text()
        assert f"Delivered-To: {user}@test.local" in text
        assert "for <" not in text.partition("Subject:")[0], "RFC 5321 7.2: no recipient told of another"


def test_several_transactions_in_a_session_with_rset_between(shared: Daemon):
    with shared.smtp() as client:
        client.ehlo()
        client.mail("a@example.org")
        client.rcpt("dropped@test.local")
        client.rset()
        for user in ("first", "second"):
            client.sendmail("a@example.org", [f"{user}@test.local"], "Subject: x\n\nhello\n")
    arrived(shared, "first")
    arrived(shared, "second")
    assert not shared.mailbox("dropped")


def test_a_declared_size_beyond_the_limit_is_refused_at_mail(make_daemon: Make):
    """RFC 1870 6.1."""
    daemon = make_daemon(config='[limits]\nmessage_size = "1MiB"\n')
    with daemon.smtp() as client:
        client.ehlo()
        assert client.esmtp_features["size"] == str(1 << 20)
        code, text = client.mail("a@example.org", [f"SIZE={2 << 20}"])
    assert (code, text[:5]) == (552, b"5.3.4")


def test_a_message_beyond_the_limit_is_read_to_its_end_and_refused(make_daemon: Make):
    """The dialogue goes on, nothing of the message becomes a command, nothing is kept."""
    daemon = make_daemon(config='[limits]\nmessage_size = "1MiB"\n')
    with daemon.smtp() as client:
        client.ehlo()
        client.mail("a@example.org")
        client.rcpt("big@test.local")
        code, _ = client.data(b"Subject: x\r\n\r\n" + (b"QUIT\r\n" * 400_000))
        assert code == 552
        assert client.noop()[0] == 250
    assert not list((daemon.var / "spool").rglob("tmp/*/*"))
    assert not daemon.mailbox("big")


def test_a_loop_is_refused(make_daemon: Make):
    """RFC 5321 6.3: more Received fields than limits.max_hops."""
    daemon = make_daemon(config="[limits]\nmax_hops = 10\n")
    hops = b"Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    with daemon.smtp() as client:
        client.sendmail("a@example.org", ["user@test.local"], hops * 10 + b"\r\nbody\r\n")
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("a@example.org", ["user@test.local"], hops * 11 + b"\r\nbody\r\n")
    assert caught.value.smtp_code == 554
    assert caught.value.smtp_error.startswith(b"5.4.6")
