"""Mail to aliases through the real daemon: who is a recipient, who gets it, who hears of it."""

from __future__ import annotations

import email
import email.policy
import json
import tempfile
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from forkd.config.aliases import MOST_ADDRESSES
from tests.support.daemon import Daemon, swaks
from tests.support.waiting import wait_for

from .conftest import EDIT, Make

CONFIG = """
[aliases]
files = ["aliases", "lists"]
[domain."test.local"]
mailboxes = ["alice", "bob", "carol", "dora", "sender"]
[domain."old.local"]
mailboxes = []
[route."carol@test.local"]
transport = "gone"
[route."far.example"]
transport = "gone"
[transport.gone]
kind = "discard"
"""
ALIASES = """
info@test.local:     alice@test.local, bob@test.local, x@far.example
support@test.local:  bob@test.local, carol@test.local
dora@test.local:     dora@test.local, alice@test.local
@old.local:          @test.local
"""
LISTS = """
list@test.local:        alice@test.local, bob@test.local
owner-list@test.local:  carol@test.local
both@test.local:        list@test.local, dora@test.local
"""
MAIL = "From: s@example.org\nTo: info@test.local\nSubject: news\n\nhello\n"


def prepared(make_daemon: Make, *, config: str = CONFIG, lists: str = LISTS, **more) -> Daemon:
    daemon = make_daemon(config=config, start=False, **more)
    (daemon.folder / "aliases").write_text(ALIASES)
    (daemon.folder / "lists").write_text(lists)
    return daemon


@pytest.fixture
def daemon(make_daemon: Make) -> Daemon:
    return prepared(make_daemon).start()


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """The same files where every user may read them."""
    with tempfile.TemporaryDirectory(prefix="forkd-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "aliases").write_text(ALIASES)
        (folder / "lists").write_text(LISTS)
        yield folder


@pytest.fixture
def shared(share_daemon: Make, files: Path) -> Daemon:
    """For tests that bring no mail."""
    names = f'files = ["{files}/aliases", "{files}/lists"]'
    return share_daemon(plugins={}, config=CONFIG.replace('files = ["aliases", "lists"]', names))


def mails(daemon: Daemon, user: str) -> list[EmailMessage]:
    return [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in daemon.mailbox(user)
    ]


def arrived(daemon: Daemon, user: str, count: int = 1) -> list[EmailMessage]:
    return wait_for(lambda: len(found := mails(daemon, user)) >= count and found, timeout_s=20)


def finished(daemon: Daemon) -> None:
    """Nothing is left in the queue: what did not arrive by now does not."""
    wait_for(lambda: not any((daemon.var / "spool/new").glob("*/*")), timeout_s=20)


def test_an_alias_is_delivered_to_its_members(daemon: Daemon) -> None:
    """250 where no mailbox of that name is; each member once, by its own way, with what was written to."""
    done = swaks(daemon, "--from s@example.org --to info@test.local,support@test.local,alice@test.local")
    assert done.returncode == 0
    (alice,), (bob,) = arrived(daemon, "alice"), arrived(daemon, "bob")
    finished(daemon)
    assert len(mails(daemon, "alice")) == len(mails(daemon, "bob")) == 1
    assert alice["Return-Path"] == bob["Return-Path"] == "<s@example.org>"
    assert bob["Delivered-To"] == "bob@test.local"
    assert bob["X-Original-To"] == "info@test.local"
    assert not mails(daemon, "carol"), "a route takes that mail elsewhere"
    ways = {event["recipient"]: event["transport"] for event in daemon.told("delivery", 4)}
    assert ways == {
        "alice@test.local": "local",
        "bob@test.local": "local",
        "carol@test.local": "gone",
        "x@far.example": "gone",
    }
    assert daemon.told("message")[0]["recipients"] == [
        "info@test.local", "support@test.local", "alice@test.local"
    ]  # fmt: skip


REFUSED = [
    ("nobody@test.local", "550 5.1.1"),
    ("nobody@old.local", "550 5.1.1"),
    ("x@far.example", "550 5.7.1"),
]


@pytest.mark.parametrize(("address", "reply"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_no_alias_is_refused(shared: Daemon, address: str, reply: str) -> None:
    """An alias may relay; its member's address by itself may not. No mail is accepted and comes back."""
    assert reply in swaks(shared, f"--from s@example.org --to {address}").stdout


def test_a_list_is_sent_by_its_owner_and_others_by_the_sender(daemon: Daemon) -> None:
    """RFC 5321 3.9.2, in one message with another alias' members."""
    assert swaks(daemon, "--from s@example.org --to both@test.local").returncode == 0
    assert arrived(daemon, "bob")[0]["Return-Path"] == "<owner-list@test.local>"
    assert arrived(daemon, "dora")[0]["Return-Path"] == "<s@example.org>"
    finished(daemon)
    assert mails(daemon, "alice")[0]["Return-Path"] == "<owner-list@test.local>"
    assert len(mails(daemon, "alice")) == 1, "over the list, and over dora's own alias"


def test_a_report_to_a_list_keeps_the_null_sender(daemon: Daemon) -> None:
    """RFC 5321 4.5.5."""
    assert swaks(daemon, "--from <> --to list@test.local").returncode == 0
    assert arrived(daemon, "bob")[0]["Return-Path"] == "<>"


def test_vrfy_and_expn_tell_nothing(shared: Daemon) -> None:
    """Neither who reads a list nor that there is one (RFC 5321 7.3)."""
    client = shared.smtp()
    client.ehlo()
    assert [client.docmd(f"{word} list") for word in ("VRFY", "EXPN")] == [
        client.docmd(f"{word} nonsense") for word in ("VRFY", "EXPN")
    ]


def test_plugins_delete_and_add_the_alias_not_its_members(make_daemon: Make) -> None:
    """They see what the client said, and an alias is a recipient of ours as any."""
    daemon = prepared(make_daemon, copy=("edit",), plugins={"10-edit.toml": EDIT}).start()
    acts = (["delete_recipient", "info@test.local"], ["add_recipient", "support@test.local"])
    do = "".join(f"X-Do: {json.dumps(act)}\n" for act in acts)
    with daemon.smtp() as client:
        client.sendmail("s@example.org", ["info@test.local", "dora@test.local"], do + MAIL)
    (dora,), (bob,) = arrived(daemon, "dora"), arrived(daemon, "bob")
    finished(daemon)
    assert (dora["X-Original-To"], bob["X-Original-To"]) == ("dora@test.local", "support@test.local")
    told = {event["recipient"] for event in daemon.told("delivery", 4)}
    assert told == {"dora@test.local", "alice@test.local", "bob@test.local", "carol@test.local"}


def test_the_largest_list_is_one_queue_file(make_daemon: Make) -> None:
    """10,000 members; limits.recipients counts what the client says. More of them at once: later."""
    members = ", ".join(f"u{number}@far.example" for number in range(MOST_ADDRESSES - 2))
    lists = (
        f"{LISTS}\nall@test.local: alice@test.local, bob@test.local, {members}\nmost@test.local: {members}\n"
    )
    daemon = prepared(make_daemon, config=CONFIG + "[limits]\nrecipients = 100\n", lists=lists).start()
    client = daemon.smtp()
    client.ehlo()
    client.mail("s@example.org")
    assert client.rcpt("most@test.local")[0] == 250
    code, said = client.rcpt("info@test.local")
    assert (code, said.split()[0]) == (452, b"4.5.3")
    assert client.rcpt("carol@test.local")[0] == 250
    client.rset()
    client.mail("s@example.org")
    assert client.rcpt("all@test.local")[0] == 250
    assert client.rcpt("carol@test.local")[0] == 452
    assert client.data(MAIL)[0] == 250
    (alice,) = arrived(daemon, "alice")
    assert alice["X-Original-To"] == "all@test.local"
    finished(daemon)
    assert len(mails(daemon, "alice")) == len(mails(daemon, "bob")) == 1
    told = {event["recipient"] for event in daemon.told("delivery", MOST_ADDRESSES)}
    assert len(told) == MOST_ADDRESSES
    assert len({event["id"] for event in daemon.events("delivery")}) == 1


def test_the_success_report_of_an_alias_is_expanded(daemon: Daemon) -> None:
    """RFC 3461 5.2.7.3: its sender hears that it was expanded, and nothing of who reads it; the report is
    from us, at once."""
    client = daemon.smtp()
    client.ehlo()
    client.mail("sender@test.local", ["ENVID=one"])
    assert client.rcpt("info@test.local", ["NOTIFY=SUCCESS", "ORCPT=rfc822;said@test.local"])[0] == 250
    assert client.data(MAIL)[0] == 250
    (report,) = arrived(daemon, "sender")
    finished(daemon)
    assert len(mails(daemon, "sender")) == 1
    text = str(report)
    assert "Action: expanded" in text
    assert "Original-Recipient: rfc822; said@test.local" in text
    assert "Original-Envelope-Id: one" in text
    assert "bob@test.local" not in text


def test_what_fails_for_a_member_of_a_list_is_told_its_owner(make_daemon: Make) -> None:
    """Who is an alias himself, as owners are; the sender hears nothing (RFC 5321 3.9.2)."""
    lists = "list@test.local: sender@test.local, x@bad.example\nowner-list@test.local: dora@test.local\n"
    daemon = prepared(make_daemon, config=CONFIG + BAD, lists=lists).start()
    with daemon.smtp() as client:
        client.sendmail("sender@test.local", ["list@test.local"], MAIL)
    (report,) = arrived(daemon, "dora")
    finished(daemon)
    assert report["Return-Path"] == "<>"
    assert "Final-Recipient: rfc822; x@bad.example" in str(report)
    (mail,) = mails(daemon, "sender")
    assert mail["Subject"] == "news", "the list's own mail alone"
    assert len(mails(daemon, "alice")) == 1, "dora's alias stands for both"


BAD = """
[route."bad.example"]
transport = "bad"
[transport.bad]
kind = "pipe"
argv = ["/bin/sh", "-c", "exit 67"]
"""


def test_what_an_alias_becomes_can_be_asked(shared: Daemon) -> None:
    """The same tables that the daemon uses."""
    config = str(shared.folder / "forkd.toml")
    done = shared.forkd("config", "where", "--json", "-c", config, "both@test.local")
    assert done.returncode == 0
    (answer,) = json.loads(done.stdout)
    assert {end["address"]: end["sender"] for end in answer["ends"]} == {
        "alice@test.local": "owner-list@test.local",
        "bob@test.local": "owner-list@test.local",
        "dora@test.local": "",
    }


def test_a_client_that_waits_has_one_answer_for_an_alias(make_daemon: Make) -> None:
    """accept = "proxy": all members are served before the 250; a list with another sender comes later."""
    daemon = prepared(
        make_daemon,
        config=PROXIED,
        listener='accept = "proxy"',
        lists="list@test.local: carol@test.local\nowner-list@test.local: bob@test.local\n",
    ).start()
    client = daemon.smtp()
    to = ["info@test.local", "list@test.local", "dora@test.local"]
    assert client.sendmail("s@example.org", to, MAIL)["list@test.local"][0] == 452
    told = {event["recipient"] for event in daemon.told("delivery", 4)}
    assert told == {"alice@test.local", "bob@test.local", "x@far.example", "dora@test.local"}
    client.sendmail("s@example.org", ["list@test.local"], MAIL)
    assert daemon.told("delivery", 5)[4]["recipient"] == "carol@test.local"


PROXIED = """
[aliases]
files = ["aliases", "lists"]
[domain."test.local"]
transport = "gone"
[domain."old.local"]
transport = "gone"
[route."*"]
transport = "gone"
[transport.gone]
kind = "discard"
"""


def test_a_bad_file_stops_the_start(make_daemon: Make) -> None:
    """With its line: else all its mail would be refused."""
    daemon = prepared(make_daemon, lists="\nlist@test.local: nobody@test.local\n")
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(60) == 78
    assert "lists:2: nobody@test.local does not exist" in daemon.log_text()


def test_what_is_refused_beside_an_alias_is_refused_alone(daemon: Daemon) -> None:
    """As for any recipients; an alias has no case, and the details of its domain."""
    with daemon.smtp() as client:
        refused = client.sendmail("s@example.org", ["Info+x@Test.local", "nobody@test.local"], MAIL)
    assert list(refused) == ["nobody@test.local"]
    assert arrived(daemon, "alice")[0]["X-Original-To"] == "Info+x@test.local"
