"""Powers over mail as a hostile author tries them; plugins and passwords; the stock plugins as they ship."""

from __future__ import annotations

import base64
import bz2
import email
import email.policy
import gzip
import json
import lzma
import os
import pwd
import smtplib
import zipfile
from pathlib import Path

import pytest

from forkd.auth import passwords, users
from forkd.auth.users import User
from tests.plugins.test_attachments import mail as with_attachments
from tests.plugins.test_attachments import tarred, zipped
from tests.plugins.test_attachments_tricks import zip_by
from tests.support.daemon import Daemon
from tests.support.people import NOBODY
from tests.support.waiting import wait_for

from .conftest import Make
from .test_edits import DOMAINS, EDIT, WITNESS, a_mail, arrived, body_of, seen, send

SAMPLES = Path(__file__).parent.parent.parent / "etc" / "plugins.d"


def a_client(daemon: Daemon) -> smtplib.SMTP:
    client = daemon.smtp()
    client.ehlo()
    return client


def reply_to(daemon: Daemon, message: bytes, to: str = "user@test.local") -> tuple[int, bytes]:
    client = a_client(daemon)
    assert client.mail("alice@example.org")[0] == 250
    assert client.rcpt(to)[0] == 250
    return client.data(message)


# --- beyond the grants ----------------------------------------------------------------------------------

FORGED = (
    '{"n":1,"verdict":{"do":"accept","code":0,"enhanced":"","text":""}}',
    '{"n":1,"verdict":{"do":"discard","code":0,"enhanced":"","text":""}}',
    '{"n":1,"verdict":{"do":"ok","code":0,"enhanced":"","text":""}}',
    '{"n":1,"verdict":{"do":"quarantine","code":0,"enhanced":"","text":"x"}}',
    '{"n":1,"verdict":{"do":"deny","code":250,"enhanced":"2.0.0","text":"x"}}',
    '{"n":1,"edits":[{"op":"rewrite_recipient","address":"a@test.local"}]}',
    '{"n":1,"edits":[{"op":"add_recipient","address":"a@test.local"}]}',
    '{"n":1,"edits":[{"op":"export","name":"X","value":"y"}]}',
    '{"n":1,"more":1}',
    '{"n":2}',
    "[]",
)


def test_what_is_written_past_the_sdk_is_checked_all_the_same(make_daemon: Make) -> None:
    """Every answer without a grant is the plugin's failure, 421; and nothing it was not given can be read."""
    daemon = make_daemon(copy=("forge",), plugins={"10-forge.toml": 'plugin = "../forge"\n'})
    for count, answer in enumerate(FORGED, start=1):
        client = a_client(daemon)
        client.mail("alice@example.org")
        code, text = client.rcpt(f"x-{answer.encode().hex()}@test.local")
        assert code == 421, (answer, code, text)
        found = wait_for(lambda n=count: len(f := daemon.events("plugin_failure")) == n and f)
        assert found[-1]["cause"] == "protocol", answer
    assert reply_to(daemon, b"Subject: secret\r\n\r\nsecret\r\n")[0] == 250


def test_accept_and_rewrite_never_pass_the_rules_of_rcpt(make_daemon: Make) -> None:
    """accept ends the asking, not our own checks; a recipient is rewritten to one that exists, or 421."""
    daemon = make_daemon(
        config='[domain."test.local"]\nmailboxes = ["user", "alias"]\n[domain."other.local"]\n',
        copy=("wave", "edit"),
        plugins={
            "10-edit.toml": EDIT,
            "20-wave.toml": 'plugin = "../wave"\n[grants]\naccept = true\n',
        },
    )
    client = a_client(daemon)
    assert client.mail("alice@example.org")[0] == 250
    for to, code in (("user@elsewhere.example", 550), ("nobody@test.local", 550), ("user@test.local", 250)):
        assert client.rcpt(to)[0] == code, to
    assert client.data(b"Subject: x\r\n\r\nx\r\n")[0] == 250
    client = a_client(daemon)
    client.mail("alice@example.org")
    assert client.rcpt("alias@test.local")[0] == 421
    assert "real@test.local" in daemon.told("plugin_failure")[-1]["detail"]
    assert a_client(daemon).mail("wrong@example.org")[0] == 421
    failure = daemon.told("plugin_failure", 2)[-1]
    assert (failure["plugin"], failure["cause"]) == ("wave", "exception")
    assert "a hook returns None, a verdict, or edits" in failure["detail"], (
        "its author can read what is wrong"
    )


# --- edits that meet -------------------------------------------------------------------------------------


@pytest.fixture
def editing(make_daemon: Make) -> Daemon:
    return make_daemon(
        config=DOMAINS, copy=("edit", "witness"), plugins={"10-edit.toml": EDIT, "20-witness.toml": WITNESS}
    )


def test_odd_messages_and_odd_edits(editing: Daemon) -> None:
    """Garbage as a body, messages without a header, with 10,000 fields, in UTF-8 and of 25 MiB."""
    bodies = {"": b"", "no end": b"no end\n", "a\rb\nc\r\n": b"a b\nc\n", ".\r\n": b".\n"}
    for number, (body, delivered) in enumerate(bodies.items()):
        send(editing, a_mail(["replace_body", body]), f"body{number}@test.local")
        assert body_of(arrived(editing, f"body{number}")) == delivered, body
    code, text = reply_to(editing, a_mail(["replace_body", "a\0b"]), "nul@test.local")
    assert code == 421, text
    send(editing, b"\r\nno header at all\r\n", "bare@test.local")
    mail = arrived(editing, "bare")
    assert seen(mail)["subject"] == []
    assert body_of(mail) == b"no header at all\n"
    fields = b"X-More: y\r\n" * 9_990
    send(editing, b'X-Do: ["add_header", "X-Tag", "new"]\r\n' + fields + b"\r\nx\r\n", "many@test.local")
    (path,) = wait_for(lambda: editing.mailbox("many"), timeout_s=20)
    octets = path.read_bytes()
    assert (octets.count(b"\nX-More: y"), octets.count(b"\nX-Tag: new")) == (9_990, 1)
    line = "0123456789abcdef" * 60 + "\r\n"
    send(editing, a_mail(["add_header", "X-Tag", "big"], body=line * (26 * 1024)), "big@test.local")
    mail = arrived(editing, "big")
    assert mail.get_all("X-Tag") == ["big", "one", "two"]
    assert len(body_of(mail)) == 961 * 26 * 1024


def test_edits_of_a_message_in_chunks_with_smtputf8(editing: Daemon) -> None:
    """RFC 3030 and 6531 together: values beyond ASCII, as the client asked for them."""
    client = a_client(editing)
    client.command_encoding = "utf-8"
    client.mail("alice@example.org", ["SMTPUTF8", "BODY=8BITMIME"])
    client.rcpt("user@test.local")
    octets = a_mail(subject="x").replace(
        b"X-Tag: one", 'X-Do: ["change_header", "Subject", "Grüße"]\r\nX-Do: ["replace_body", "süß"]'.encode()
    )
    for chunk, last in ((octets[:31], ""), (octets[31:], " LAST")):
        client.send(f"BDAT {len(chunk)}{last}\r\n".encode() + chunk)
        assert client.getreply()[0] == 250
    (path,) = wait_for(lambda: editing.mailbox("user"), timeout_s=20)
    octets = path.read_bytes()
    assert "Subject: Grüße\n".encode() in octets
    assert octets.endswith("\n\nsüß\n".encode())


def test_quarantine_by_hand(editing: Daemon) -> None:
    """Edits count for the held mail; hold, release and remove go by the command line."""
    do = [["add_header", "X-Tag", "held"], ["add_recipient", "copy@other.local"], ["quarantine", "virus?"]]
    first = send(editing, a_mail(*do))
    second = send(editing, a_mail(["quarantine", "again"]))

    def states() -> dict[str, str]:
        listed = json.loads(editing.forkd("queue", "list", "--json").stdout)["entries"]
        return {entry["id"]: entry["state"] for entry in listed}

    wait_for(lambda: states() == {first: "hold", second: "hold"}, timeout_s=20)
    shown = editing.forkd("queue", "show", first).stdout
    assert "virus?" in shown
    assert "copy@other.local" in shown
    assert editing.forkd("queue", "release", first).returncode == 0
    assert editing.forkd("queue", "remove", second).returncode == 0
    wait_for(lambda: not states(), timeout_s=20)
    assert arrived(editing).get_all("X-Tag") == ["held", "one", "two"]
    assert arrived(editing, "copy", "other.local")["Delivered-To"] == "copy@other.local"
    assert len(editing.mailbox("user")) == 1


# --- passwords ------------------------------------------------------------------------------------------

AUTH = """
[listener.submission]
address = "127.0.0.1:0"
role = "submission"
auth_without_tls = true
[auth]
backend = "users"
mechanisms = ["PLAIN", "LOGIN", "OAUTHBEARER"]
failure_delay = "50ms"
"""


def test_a_plugin_says_whose_a_password_is(make_daemon: Make) -> None:
    """ok, deny, defer; None: the users file. A bearer's token too. No secret stands in the log."""
    daemon = make_daemon(
        config=AUTH,
        copy=("gate",),
        plugins={"10-gate.toml": 'plugin = "../gate"\n[grants]\nauth = true\n'},
        start=False,
    )
    with users.edit(daemon.folder / "users") as change:
        change.put(User("anna", passwords.make_argon2("s3cret-horse")))
    # Started by root, workers are `nobody` (people.py), who has the file by its group.
    owner = daemon.folder.stat().st_uid
    os.chown(daemon.folder / "users", owner, pwd.getpwuid(owner or NOBODY).pw_gid)
    daemon.start()
    lines = {line["listener"]: line["address"] for line in daemon.events("listening")}
    daemon.port = int(lines["submission"].rpartition(":")[2])

    def plain(user: str, secret: str) -> int:
        token = base64.b64encode(f"\0{user}\0{secret}".encode()).decode()
        return a_client(daemon).docmd("AUTH", f"PLAIN {token}")[0]

    assert plain("ok", "s3cret-token") == 235
    assert plain("ok", "s3cret-wrong") == 535
    assert plain("no", "s3cret-no") == 535
    assert plain("later", "s3cret-later") == 454
    assert plain("anna", "s3cret-horse") == 235
    assert plain("anna", "s3cret-mule") == 535
    for token, code in (("s3cret-token", 235), ("s3cret-other", 535)):
        client = a_client(daemon)
        assert "OAUTHBEARER" in client.esmtp_features["auth"]
        first = base64.b64encode(f"n,a=ok,\1auth=Bearer {token}\1\1".encode()).decode()
        said = client.docmd("AUTH", f"OAUTHBEARER {first}")[0]
        if said == 334:  # RFC 7628 3.2.3: the error, to which the client says nothing
            said = client.docmd("AQ==")[0]
        assert said == code, token
    assert "s3cret" not in daemon.log_text()


# --- the plugins that come with forkd ------------------------------------------------------------------

ARCHIVES = {
    "zip": zipped(("evil.exe", b"x")),
    "zip by bzip2": zip_by(zipfile.ZIP_BZIP2),
    "zip by LZMA": zip_by(zipfile.ZIP_LZMA),
    "tar": tarred(("evil.exe", b"x")),
    "gzip": gzip.compress(tarred(("evil.exe", b"x"))),
    "bzip2": bz2.compress(tarred(("evil.exe", b"x"))),
    "xz": lzma.compress(tarred(("evil.exe", b"x"))),
}


def test_the_samples_switched_on_do_what_they_say(make_daemon: Make) -> None:
    """What an admin does first: enabled = true. Everything they import works in the sandbox."""
    entries = {}
    for name in ("20-recipients.toml", "50-headers.toml", "60-attachments.toml", "70-filter.toml"):
        entries[name] = (SAMPLES / name).read_text().replace("enabled = false", "enabled = true")
    daemon = make_daemon(plugins=entries)
    assert a_client(daemon).docmd("MAIL FROM:<alice@example.org>")[0] == 250
    client = a_client(daemon)
    client.mail("alice@example.org")
    assert client.rcpt("nobody@test.local")[0] == 550
    assert client.rcpt("sales-north@test.local")[0] == 250
    head = b"From: a@example.org\r\nDate: Mon, 23 Nov 2026 00:00:00 +0000\r\n"
    assert reply_to(daemon, b"From: a@example.org\r\n\r\nx\r\n", "alice@test.local")[1].startswith(b"5.6.0")
    assert reply_to(daemon, head + with_attachments(("a.pdf", b"%PDF-1.4")), "alice@test.local")[0] == 250
    for name, archive in ARCHIVES.items():
        code, text = reply_to(daemon, head + with_attachments(("a.bin", archive)), "alice@test.local")
        assert (code, text[:5]) == (550, b"5.7.1"), (name, text)
    pay = "Zahlen Sie mit 4111 1111 1111 1111, bitte für mich\r\n"
    for charset in ("utf-8", "iso-8859-15", "cp1252", "utf-7"):
        text = f"Subject: {charset}\r\nContent-Type: text/plain; charset={charset}\r\n\r\n".encode()
        assert reply_to(daemon, head + text + pay.encode(charset), "alice@test.local")[0] == 250
    mails = wait_for(lambda: len(found := daemon.mailbox("alice")) == 5 and found, timeout_s=30)
    parsed = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in mails]
    for mail in parsed:
        if mail["Subject"] != "x":
            assert mail["X-Filtered"] == "replacements=1", mail["Subject"]
            assert "[card number removed], bitte für mich" in mail.get_content(), mail["Subject"]
    assert not daemon.events("plugin_failure")
