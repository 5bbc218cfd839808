"""forkd queue against the real daemon: many messages are chosen, counted, exported, acted on, audited."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.people import person
from tests.support.waiting import wait_for

from .conftest import end, prepare

pytestmark = pytest.mark.slow

MANY = 1200

CONFIG = """
[domain."test.local"]
transport = "local"
[domain."later.local"]
transport = "gone"
[domain."other.local"]
transport = "gone"
[transport.local]
kind = "maildir"
[transport.gone]
kind = "maildir"
path = "/dev/null/{user}"
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """With MANY messages, from two senders to two domains, that cannot be delivered now."""
    daemon = prepare(person("user"), config=CONFIG)
    try:
        with daemon.start():
            with daemon.smtp() as client:
                for number in range(MANY):
                    sender = ("alice@x.org", "bob@x.org")[number % 2]
                    recipient = f"u{number}@{('later', 'other', 'later')[number % 3]}.local"
                    client.sendmail(sender, [recipient], b"Subject: %d\r\n\r\nhello\r\n" % number)
            wait_for(lambda: stat(daemon)["states"] == {"deferred": MANY}, timeout_s=120)
            yield daemon
    finally:
        end(daemon)


def asked(daemon: Daemon, *arguments: str, status: int = 0) -> dict:
    done = daemon.forkd("queue", *arguments, "--json", "--data-dir", str(daemon.var))
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def stat(daemon: Daemon, *choice: str) -> dict:
    return asked(daemon, "stat", *choice)


def listed(daemon: Daemon, *choice: str) -> list[dict]:
    return asked(daemon, "list", "--limit", "100000", *choice)["entries"]


def test_all_ways_of_counting_agree(daemon: Daemon) -> None:
    """By domain, by sender, by reason, by state, and by listing."""
    counts = stat(daemon)
    assert counts["messages"] == MANY
    assert {row["name"]: row["total"] for row in counts["domains"]} == {
        "later.local": 800,
        "other.local": 400,
    }
    (reason,) = counts["reasons"]
    assert reason["total"] == MANY
    by_sender = stat(daemon, "--by-sender", "--domain", "other.local")
    assert [(row["name"], row["total"]) for row in by_sender["domains"]] == [("x.org", 400)]
    assert len(listed(daemon)) == MANY
    assert len(listed(daemon, "--sender", "bob@*", "--domain", "other.local")) == 200
    assert not listed(daemon, "--older-than", "1h")
    assert len(listed(daemon, "--newer-than", "1h", "--reason", reason["name"].split()[0])) == MANY


def test_acts_on_chosen_messages_leave_an_audit(daemon: Daemon) -> None:
    """Who, what, by which filter, how many; and the others are as they were."""
    mine = ["--sender", "alice@x.org", "--domain", "other.local"]
    assert asked(daemon, "hold", *mine) == {"ok": True, "count": 200}
    assert {entry["state"] for entry in listed(daemon, *mine)} == {"hold"}
    assert stat(daemon)["states"] == {"deferred": MANY - 200, "hold": 200}
    assert asked(daemon, "release", "--state", "hold") == {"ok": True, "count": 200}
    wait_for(lambda: stat(daemon)["states"] == {"deferred": MANY}, timeout_s=60)
    wanted = "hold: 200 of 200; senders=alice@x.org domains=other.local"

    def audit() -> list[dict]:
        return [line for line in daemon.events("admin") if line.get("detail") == wanted]

    (line,) = wait_for(audit)
    assert re.fullmatch(r".+\[\d+\]", line["who"])
    assert (line["request"], line["result"], line["level"]) == ("queue", "ok", "info")


def test_messages_come_out_while_mail_comes_in(daemon: Daemon) -> None:
    """Each as a file, with our trace; the daemon goes on delivering to others meanwhile."""
    folder = daemon.folder / "exported"
    with daemon.smtp() as client:
        client.sendmail("alice@x.org", ["here@test.local"], b"Subject: here\r\n\r\nhello\r\n")
        assert asked(daemon, "export", "--sender", "bob@x.org", "--to", str(folder))["exported"] == MANY // 2
    files = sorted(folder.glob("*.eml"))
    assert len(files) == MANY // 2
    assert {path.stem for path in files} == {entry["id"] for entry in listed(daemon, "--sender", "bob@x.org")}
    first = files[0].read_bytes()
    assert first.startswith(b"Received: ")
    assert first.endswith(b"Subject: 1\n\nhello\n")
    wait_for(lambda: daemon.mailbox("here"))


def test_show_tells_what_the_next_hop_said(daemon: Daemon) -> None:
    """Envelope, attempts, and each recipient's last outcome, for eyes and for programs."""
    entry = listed(daemon)[0]
    shown = daemon.forkd("queue", "show", entry["id"], "--data-dir", str(daemon.var)).stdout
    for word in ("u0@later.local", "deferred", "alice@x.org", "127.0.0.1", entry["reason"][:20]):
        assert word in shown
    detail = asked(daemon, "show", entry["id"])["detail"]
    assert detail["envelope"]["recipients"][0]["address"] == "u0@later.local"
    assert detail["outcomes"][0]["status"] == "deferred"
    assert detail["attempts"][0]["deferred"] == 1


def test_what_is_removed_is_gone_and_the_rest_is_there_without_a_daemon(daemon: Daemon) -> None:
    """Last of this module: the daemon stops, and its spool still tells."""
    refused = daemon.forkd("queue", "remove", "--sender", "bob@x.org", "--data-dir", str(daemon.var))
    assert refused.returncode == 2, "nobody could be asked"
    assert asked(daemon, "remove", "--yes", "--sender", "bob@x.org") == {"ok": True, "count": MANY // 2}
    assert stat(daemon)["messages"] == MANY // 2
    wait_for(lambda: sum(line["act"] == "removed" for line in daemon.events("queue")) == MANY // 2)
    daemon.stop()
    offline = daemon.forkd("queue", "stat", "--json", "--data-dir", str(daemon.var))
    assert json.loads(offline.stdout)["messages"] == MANY // 2
    assert json.loads(offline.stdout)["offline"]
    assert len(list((daemon.var / "spool/new").glob("*/*.state"))) == MANY // 2
