"""Programs as plugins in the real daemon: from a client's message through them to the mailbox."""

from __future__ import annotations

import contextlib
import email
import email.policy
import functools
import hashlib
import os
import smtplib
import subprocess
import textwrap
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.people import Person
from tests.support.waiting import wait_for
from tests.system.conftest import end, prepare
from tests.system.test_edits import EDIT, WITNESS, a_mail, seen

SCRIPTS = {
    "tag": """
        # Adds a field, changes one, and a line at the end.
        echo "X-Tag: $QMAILUSER of $NUMRCPTS"
        sed -e 's/^Subject: renamed/Subject: sign/' -e 's/secret/xxxxxx/'
        echo "-- checked"
    """,
    "refuse": "echo rubbish; exit 100",
    "later": "exit 111",
    "drop": "exit 99",
    "ungranted": "exit 99",
    "custom": "printf 'D5.7.1 not for %s' \"$QMAILRCPTS\" >&2; exit 88",
    "broken": "echo 'dear me' >&2; exit 7",
    "deferring": "kill -9 $$",
    "nul": "printf 'Subject: x\\n\\na\\0b\\n'",
    "bare": "printf 'Subject: x\\n\\nno line end'",
    "crlf": "printf 'Subject: x\\r\\n\\r\\nline\\r\\nother\\n'",
    "flood": "while :; do echo 0123456789012345678901234567890123456789; done",
    "empty": "exit 0",
    "emptied": "exit 0",
    "watched": "exit 100",
    "long": """
        # Longer than what LF for CRLF saves.
        printf 'X-Long: %0900d\\n' 0 | tr 0 l
        cat
        yes more | head -n 2000
    """,
}
"""Name, which is that of the domain it is asked for too -> a shell script."""
MORE = {
    "tag": '[grants]\nexec = ["/bin/sed"]\nprocesses = 1\n',
    "drop": "[grants]\ndiscard = true\n",
    "deferring": 'on_failure = "defer"\n',
    "emptied": "unchanged_if_empty = false\n",
    "cat": "unchanged_if_empty = false\n",
    "long": '[grants]\nexec = ["/bin/cat", "/usr/bin/tr", "/usr/bin/yes", "/usr/bin/head"]\nprocesses = 3\n',
    "watched": 'mode = "shadow"\n',
}
DOMAINS = [*SCRIPTS, "cat", "test"]


def entry(argv: list[str], *, name: str) -> str:
    more = MORE.get(name, "")
    top, _, tables = more.partition("[")
    return (
        f'kind = "program"\nargv = {argv}\n{top}\n'
        f'scope = {{ domains = ["{name}.local"] }}\n{"[" if tables else ""}{tables}'
    )


def filtering(who: Person, config: str = "") -> Daemon:
    """A daemon with all of them, each for its domain, between a plugin that edits and one that looks."""
    domains = "".join(f'[domain."{name}.local"]\n' for name in DOMAINS)
    plugins = {
        "10-edit.toml": EDIT.replace('"test.local", "other.local"', '"test.local"'),
        "90-witness.toml": WITNESS + '[scope]\ndomains = ["tag.local"]\n',
    }
    daemon = prepare(who, config=f"{domains}\n{config}", copy=("edit", "witness"), plugins=plugins)
    for number, (name, text) in enumerate(SCRIPTS.items(), start=20):
        path = daemon.folder / f"{name}.sh"
        path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
        path.chmod(0o755)
        (daemon.folder / f"plugins.d/{number}-{name}.toml").write_text(entry([str(path)], name=name))
    (daemon.folder / "plugins.d/60-cat.toml").write_text(entry(["/bin/cat"], name="cat"))
    return daemon


@pytest.fixture(scope="module")
def kept_filters() -> Iterator[Callable[[Person], Daemon]]:
    with contextlib.ExitStack() as ends:

        @functools.cache
        def keep(who: Person) -> Daemon:
            daemon = filtering(who, '[limits]\nmessage_size = "30MiB"\n[crash]\nkeep = 3\n')
            ends.callback(end, daemon)
            return daemon.start()

        yield keep


@pytest.fixture
def daemon(who: Person, kept_filters: Callable[[Person], Daemon]) -> Daemon:
    """One for all of these tests: each sends to a domain of its own."""
    return kept_filters(who)


def reply_to(
    daemon: Daemon, name: str, mail: bytes = b"Subject: hello\r\n\r\nbody\r\n", user: str = "user"
) -> tuple[int, str]:
    with daemon.smtp() as client:
        client.ehlo()
        assert client.mail("alice@example.org")[0] == 250
        assert client.rcpt(f"{user}@{name}.local")[0] == 250
        code, text = client.data(mail)
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            client.quit()
        return code, text.decode()


def octets(daemon: Daemon, name: str, user: str = "user") -> bytes:
    """What arrived, without the fields that forkd puts on top."""
    (path,) = wait_for(lambda: daemon.mailbox(user, f"{name}.local"), timeout_s=20)
    lines = path.read_bytes().split(b"\n")
    top = (b"Return-Path:", b"Delivered-To:", b"Received:", b"\t")
    while lines and lines[0].startswith(top):
        lines.pop(0)
    return b"\n".join(lines)


@pytest.mark.slow
def test_25_mib_through_cat_are_the_same_octets(daemon: Daemon) -> None:
    """The page's own measure. Lines of all lengths, dots, 8-bit octets, lone spaces; nothing is an edit."""
    rows = [
        b"." * (n % 7) + bytes(32 + (n * k) % 224 for k in range(n % 70)).replace(b"\x7f", b" ")
        for n in range(3000)
    ]
    part = b"\r\n".join(rows) + b"\r\n"
    mail = b"Subject: large\r\nX-Odd:  two  spaces \r\n\r\n" + part * ((25 << 20) // len(part) + 1)
    assert reply_to(daemon, "cat", mail)[0] == 250
    assert len(mail) >= 25 << 20
    got = octets(daemon, "cat").replace(b"\n", b"\r\n")
    assert hashlib.sha256(got).digest() == hashlib.sha256(mail).digest()
    (line,) = [line for line in daemon.told("message") if line["recipients"] == ["user@cat.local"]]
    assert any(story.startswith("cat/message=none ") for story in line["plugins"])


def test_a_mail_of_just_the_allowed_size_may_grow_by_a_header_field(daemon: Daemon) -> None:
    """limits.message_size is for clients: what it lets in, no filter that works may keep out."""
    line = b"x" * 998 + b"\r\n"
    mail = b"Subject: large\r\n\r\n"
    mail += line * (((30 << 20) - len(mail)) // len(line))
    mail += b"y" * ((30 << 20) - len(mail) - 2) + b"\r\n"
    assert len(mail) == 30 << 20
    assert reply_to(daemon, "long", mail)[0] == 250, str(daemon.events("plugin_failure")[-1:])
    got = octets(daemon, "long").replace(b"\n", b"\r\n")
    assert got == b"X-Long: " + b"l" * 900 + b"\r\n" + mail + b"more\r\n" * 2000


def test_it_reads_what_plugins_before_left_and_those_behind_read_what_it_made(daemon: Daemon) -> None:
    """Header and body, and once more a body behind it; each edit is made once."""
    mail = a_mail(
        ["add_header", "X-Before", "yes"], ["change_header", "Subject", "renamed"], body="a secret\r\n"
    )
    code = reply_to(daemon, "tag", mail)[0]
    assert code == 250, str(daemon.events("plugin_failure")[-1:])
    got = octets(daemon, "tag")
    header, _, body = got.partition(b"\n\n")
    assert header.count(b"X-Before: yes") == 1
    assert b"X-Tag: alice of 1\n" in header and b"Subject: sign\n" in header
    assert body == b"a xxxxxx\n-- checked\nsigned\n"
    shown = seen(email.message_from_bytes(got, policy=email.policy.default))
    assert shown["subject"] == ["sign"]
    assert shown["body"] == hashlib.sha256(b"a xxxxxx\r\n-- checked\r\n").hexdigest()


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("refuse", 554, "5.3.0 The message was refused by a filter of this server"),
        ("later", 451, "4.3.0 A filter of this server puts the message off, try again later"),
        ("custom", 554, "5.7.1 not for user@custom.local"),
        ("broken", 421, "4.3.0 A check of this server is not available now"),
        ("ungranted", 421, "4.3.0 A check of this server is not available now"),
        ("deferring", 451, "4.3.0 A check of this server is not available now"),
        ("nul", 421, "4.3.0 A check of this server is not available now"),
        ("flood", 421, "4.3.0 A check of this server is not available now"),
    ],
)
def test_what_the_client_is_told(daemon: Daemon, name: str, code: int, text: str) -> None:
    """Exit codes, failures, and what is fit for no mail; nothing of it is delivered."""
    got, said = reply_to(daemon, name)
    assert got == code and said.startswith(text), said
    assert not daemon.mailbox("user", f"{name}.local")


def test_what_is_dropped_is_told_nobody(daemon: Daemon) -> None:
    """250 with an id, as for mail that is kept; the log says discarded."""
    assert reply_to(daemon, "drop")[0] == 250
    line = wait_for(
        lambda: [one for one in daemon.events("message") if "user@drop.local" in one.get("dropped", ())]
    )
    assert line[0]["discarded"]


@pytest.mark.parametrize(
    ("name", "arrives"),
    [
        ("bare", b"Subject: x\n\nno line end\n"),
        ("crlf", b"Subject: x\n\nline\nother\n"),
        ("empty", b"Subject: hello\n\nbody\n"),
        ("emptied", b""),
        ("watched", b"Subject: hello\n\nbody\n"),
    ],
)
def test_what_becomes_of_its_output(daemon: Daemon, name: str, arrives: bytes) -> None:
    """Line ends are made ours; no output is a message or none, as configured; in shadow it is watched."""
    assert reply_to(daemon, name)[0] == 250
    assert octets(daemon, name) == arrives


def test_a_failure_is_told_to_the_admin_with_what_it_printed(daemon: Daemon) -> None:
    """One line: plugin, cause, its status; the client sees none of it."""
    assert "dear me" not in reply_to(daemon, "broken", user="other")[1]
    line = wait_for(lambda: [one for one in daemon.events("plugin_failure") if one["plugin"] == "broken"])[0]
    assert line["cause"] == "crash" and "exit 7" in line["detail"]


@pytest.mark.slow
def test_a_failed_run_can_be_run_again(daemon: Daemon) -> None:
    """crash.keep: `forkd plugin replay` gives the program the same message."""
    assert reply_to(daemon, "broken", user="again")[0] == 421
    records = wait_for(
        lambda: [one["record"] for one in daemon.events("plugin_failure") if one["plugin"] == "broken"]
    )
    command = [*daemon.prefix, daemon.python, "-m", "forkd", "plugin", "replay", records[-1]]
    done = subprocess.run(
        [*command, "--config", str(daemon.folder / "forkd.toml")],
        cwd=daemon.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(daemon.root), "HOME": str(daemon.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "exit 7" in done.stdout and "dear me" in done.stdout, done.stdout
