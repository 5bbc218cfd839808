"""forkd config where: what becomes of mail to an address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Forkd
from tests.support.config_files import write

CONFIG = """
[aliases]
files = ["aliases"]
[domain."a.org"]
mailboxes = ["alice", "bob"]
[domain."old.org"]
mailboxes = []
[queue]
relay_transport = "out"
[transport.out]
kind = "discard"
[route."*.c.org"]
transport = "out"
retry_first = "1m"
give_up = "1d"
concurrency = 2
"""
ALIASES = """info@a.org: list@a.org, bob@a.org
list@a.org: alice@a.org, x@y.c.org
owner-list@a.org: bob@a.org
@old.org: @a.org
"""


@pytest.fixture
def asked(forkd: Forkd, tmp_path: Path):
    write(tmp_path, forkd_toml=CONFIG, aliases=ALIASES)
    return lambda *arguments: forkd("config", "where", "-c", "forkd.toml", *arguments)


def test_an_alias_is_followed_to_its_ends(asked) -> None:
    """Each line that counts, each address that gets it, and its way; the whole as it stands on the screen."""
    done = asked("info@a.org")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "info@a.org: taken from everybody (250)\n"
        "  aliases:1: info@a.org -> list@a.org, bob@a.org\n"
        "  aliases:2: list@a.org -> alice@a.org, x@y.c.org\n"
        "  ADDRESS      TRANSPORT        MAILBOX  DETAIL  ROUTE  SENDER\n"
        "  alice@a.org  local (maildir)  alice    -       -      owner-list@a.org\n"
        "  bob@a.org    local (maildir)  bob      -       -      as it is\n"
        "  tried again after 5m up to 4h, warned of after 4h, given up after 5d; 8 at once\n"
        "  ADDRESS    TRANSPORT      MAILBOX  DETAIL  ROUTE    SENDER\n"
        "  x@y.c.org  out (discard)  x        -       *.c.org  owner-list@a.org\n"
        "  tried again after 1m up to 4h, warned of after 4h, given up after 1d; 2 at once\n"
    )


def test_check_reads_the_aliases(asked, forkd: Forkd, tmp_path: Path) -> None:
    """As `forkd run` would: with file and line."""
    assert "2 domains, 4 aliases, 0 plugins" in forkd("config", "check", "forkd.toml").stdout
    (tmp_path / "aliases").write_text("info@a.org: alice@a.org\nx@a.org: carol@a.org\n")
    done = forkd("config", "check", "forkd.toml")
    assert done.returncode == 78
    assert done.stderr == (
        "error: aliases:2: carol@a.org does not exist\n"
        "    2 | x@a.org: carol@a.org\n"
        "      | ^^^^^^^^^^^^^^^^^^^^\n"
        '      = help: no alias has this name, and domain."a.org".mailboxes does not list it\n'
        "\n"
        "1 problem\n"
    )


WHO = [
    ("bob@a.org", "everybody", "250", 0),
    ("Bob+x@old.org", "everybody", "250", 0),
    ("postmaster", "everybody", "250", 0),
    ("z@z.org", "relay", "550 5.7.1", 0),
    ("nobody@a.org", "nobody", "550 5.1.1", 1),
    ("nobody@old.org", "nobody", "550 5.1.1", 1),
    ("nobody", "nobody", "550 5.1.1", 1),
]


@pytest.mark.parametrize(("address", "who", "reply", "status"), WHO, ids=[row[0] for row in WHO])
def test_who_may_send_there_is_said(asked, address: str, who: str, reply: str, status: int) -> None:
    """As RCPT would; the status is for scripts."""
    done = asked("--json", address)
    (answer,) = json.loads(done.stdout)
    assert (answer["taken_from"], answer["reply"], done.returncode) == (who, reply, status)


def test_json_has_all_of_it(asked) -> None:
    """For programs; several addresses at once."""
    first, second = json.loads(asked("--json", "bob+news@a.org", "x@y.c.org").stdout)
    assert first == {
        "address": "bob+news@a.org", "taken_from": "everybody", "reply": "250", "aliases": [],
        "ends": [{
            "address": "bob+news@a.org", "exists": True, "sender": "", "transport": "local",
            "kind": "maildir", "mailbox": "bob", "detail": "news", "route": "", "retry_first": "5m",
            "retry_max": "4h", "give_up": "5d", "warn_after": "4h", "concurrency": 8,
        }],
    }  # fmt: skip
    assert (second["ends"][0]["route"], second["ends"][0]["give_up"]) == ("*.c.org", "1d")


def test_a_member_that_does_not_exist_is_named(asked) -> None:
    """What a whole domain stands for is only known for each address."""
    done = asked("nobody@old.org")
    assert done.returncode == 1
    assert done.stdout == (
        "nobody@old.org: not taken (550 5.1.1)\n"
        "  aliases:4: nobody@old.org -> @a.org\n"
        "  nobody@a.org does not exist\n"
    )
