"""forkd queue: what an admin asks for, is asked, and is told."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkd.exits import Exit
from tests.cli.conftest import ROOT, Forkd
from tests.support.fake_control import FakeControl, ok, queued
from tests.support.waiting import wait_for


def an_entry(queue_id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": queue_id, "sender": "s@example.org", "recipients": ["a@test.local"], "more_recipients": 0,
        "size": 10, "received_at": 0.0, "attempts": 1, "next_try_at": 0.0, "reason": "", "state": "deferred",
        **more,
    }  # fmt: skip


class Queue:
    """A queue of those entries: finds all whatever the filter, and does what it is told."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.entries = entries
        self.acts: list[tuple[str, list[str]]] = []
        self.filters: list[dict[str, Any] | None] = []

    def __call__(self, request: dict[str, Any]) -> bytes:
        self.filters.append(request.get("filter"))
        if request["act"] == "list":
            return ok(queued(entries=list(self.entries), count=9, seen=9))
        self.acts.append((request["act"], request["ids"]))
        return ok(queued(count=len(request["ids"])))


@pytest.mark.parametrize(("act", "done"), [("hold", "on hold"), ("release", "released")])
def test_ids_are_acted_on_and_counted(forkd: Forkd, tmp_path: Path, act: str, done: str) -> None:
    """One request with all of them; never all messages by a forgotten argument."""
    queue = Queue()
    with FakeControl(tmp_path / "var", queue):
        assert forkd("queue", act).returncode == Exit.USAGE
        assert forkd("queue", act, "A", "B", "A").stdout == f"2 messages {done}\n"
    assert queue.acts == [(act, ["A", "B"])]


def test_what_could_not_be_done_is_named_beside_what_was(forkd: Forkd, tmp_path: Path) -> None:
    """qmgr's reasons, per id; exit status not 0."""
    reply = queued(count=1, not_done=["A: not held", "B: not in the queue"])
    with FakeControl(tmp_path / "var", lambda _: ok(reply)):
        done = forkd("queue", "release", "A", "B", "C")
    assert done.returncode == Exit.FAILED
    assert "A: not held; B: not in the queue; 1 message released" in done.stderr


def test_what_there_was_no_time_for_is_asked_again(forkd: Forkd, tmp_path: Path) -> None:
    """A slow disk makes more requests of it, not an error."""
    asked: list[list[str]] = []

    def slow(request: dict[str, Any]) -> bytes:
        asked.append(request["ids"])
        return ok(queued(count=1, left=request["ids"][1:]))

    with FakeControl(tmp_path / "var", slow):
        assert forkd("queue", "hold", "A", "B", "C").stdout == "3 messages on hold\n"
    assert asked == [["A", "B", "C"], ["B", "C"], ["C"]]


def test_a_held_message_has_no_next_try(forkd: Forkd, tmp_path: Path) -> None:
    """The list shows state and reason; a deferred one shows when it is tried."""
    held = an_entry("ID1", state="hold", reason="looks bad")
    deferred = an_entry("ID2", reason="no route", next_try_at=9e9)
    with FakeControl(tmp_path / "var", Queue(held, deferred)):
        _, first, second = forkd("queue", "list").stdout.splitlines()[:3]
    assert first.split()[1] == "hold"
    assert "looks bad" in first
    assert " in " not in first
    assert " in " in second


OPTIONS = {
    "sender": (["--sender", "<>", "--sender", "*@b.org"], {"senders": ["<>", "*@b.org"]}),
    "recipient": (["--recipient", "@c.org"], {"recipients": ["@c.org"]}),
    "domain": (["--domain", "d.org"], {"domains": ["d.org"]}),
    "state": (["--state", "hold", "--state", "active"], {"states": ["hold", "active"]}),
    "reason": (["--reason", "timed out"], {"reason": "timed out"}),
    "size": (["--min-size", "1KiB", "--max-size", "1MiB"], {"size_from": 1024, "size_to": 1 << 20}),
    "no size": (["--max-size", "0B"], {"size_to": 1}),
    "ancient": (["--older-than", "99999d"], {"received_to": 1.0}),
    "ids": (["A", "B"], {"ids": ["A", "B"]}),
    "none": ([], None),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_become_the_filter(forkd: Forkd, tmp_path: Path, name: str) -> None:
    """As qmgr has it; what was not given is not in it."""
    options, wanted = OPTIONS[name]
    queue = Queue()
    with FakeControl(tmp_path / "var", queue):
        assert forkd("queue", "list", *options).returncode == 0
    assert queue.filters == [wanted]


def test_ages_are_times_that_do_not_move_from_page_to_page(forkd: Forkd, tmp_path: Path) -> None:
    """Or a long listing would choose by another age at its end than at its beginning."""
    filters: list[dict[str, Any]] = []

    def pages(request: dict[str, Any]) -> bytes:
        filters.append(request["filter"])
        return ok(queued(count=2, seen=1, more=request["after"] < "A", after="AB"[len(filters) - 1]))

    with FakeControl(tmp_path / "var", pages):
        assert forkd("queue", "list", "--older-than", "1h", "--newer-than", "2h").returncode == 0
    assert len(filters) == 2
    assert filters[0] == filters[1]
    assert filters[0]["received_to"] - filters[0]["received_from"] == pytest.approx(3600)


@pytest.mark.parametrize(
    "options",
    [
        ["--older-than", "5"], ["--min-size", "5MB"], ["--reason-regex", "("], ["--state", "bounced"],
        ["--reason", "x" * 1001], ["--reason", ""], ["--reason-regex", ""], ["--sender", ""],
        ["--domain", ""],
    ],
    ids=["age", "size", "regex", "state", "length", "no reason", "no regex", "no sender", "no domain"],
)  # fmt: skip
def test_what_no_option_can_mean_is_said_before_anybody_is_asked(
    forkd: Forkd, tmp_path: Path, options: list[str]
) -> None:
    """The usage status, and the option's name."""
    queue = Queue()
    with FakeControl(tmp_path / "var", queue):
        done = forkd("queue", "list", *options)
    assert done.returncode == Exit.USAGE
    assert options[0] in done.stderr
    assert not queue.filters


def test_a_regular_expression_is_matched_here(forkd: Forkd, tmp_path: Path) -> None:
    """Never in the queue's own process, which an unlucky one would hold up; the audit still names it."""
    queue = Queue(an_entry("A", reason="451 try later"), an_entry("B", reason="552 mailbox full"))
    with FakeControl(tmp_path / "var", queue):
        shown = forkd("queue", "list", "--json", "--reason-regex", "^5.*FULL$").stdout
        assert [entry["id"] for entry in json.loads(shown)["entries"]] == ["B"]
        assert forkd("queue", "hold", "--reason-regex", "^5.*FULL$").stdout == "1 message on hold\n"
    assert queue.acts == [("hold", ["B"])]
    assert queue.filters == [None, None, {"ids": ["B"]}, {"besides": "reason-regex=^5.*FULL$"}]


def test_a_regular_expression_is_matched_again_before_the_act(forkd: Forkd, tmp_path: Path) -> None:
    """Who is asked may take his time: what has another reason by then is left alone, and that is said."""
    reasons, acts = iter(("552 full", "451 later")), []

    def answer(request: dict[str, Any]) -> bytes:
        if request["act"] == "list":
            entries = [an_entry("A", reason="552 full"), an_entry("B", reason=next(reasons))]
            return ok(queued(entries=entries, count=2, seen=2))
        acts.append(request["ids"])
        return ok(queued(count=len(request["ids"])))

    with FakeControl(tmp_path / "var", answer):
        done = forkd("queue", "remove", "--yes", "--reason-regex", "^552")
    assert (done.returncode, done.stdout, acts) == (0, "1 message removed\n", [["A"]])
    assert "1 message had gone or changed meanwhile" in done.stderr


def test_an_act_on_what_was_chosen_is_for_what_still_fits(forkd: Forkd, tmp_path: Path) -> None:
    """The filter goes with the ids; what has gone since is no failure, but it is said."""

    def answer(request: dict[str, Any]) -> bytes:
        if request["act"] == "list":
            return ok(queued(entries=[an_entry("A"), an_entry("B"), an_entry("C")], count=3, seen=3))
        assert request["filter"] == {"domains": ["test.local"]}
        gone = ["B: not in the queue", "C: not as it was chosen any more"]
        return ok(queued(count=1, not_done=gone))

    with FakeControl(tmp_path / "var", answer):
        done = forkd("queue", "flush", "--domain", "test.local")
    assert (done.returncode, done.stdout) == (0, "1 message to be tried now\n")
    assert "2 messages had gone or changed meanwhile" in done.stderr


def test_only_what_is_held_is_released(forkd: Forkd, tmp_path: Path) -> None:
    """By a choice; named messages say why not."""
    queue = Queue(an_entry("A", state="hold"))
    with FakeControl(tmp_path / "var", queue):
        assert forkd("queue", "release", "--all").stdout == "1 message released\n"
    assert queue.filters == [{"states": ["hold"]}] * 2


@pytest.mark.parametrize(
    "options",
    [["--all"], ["--domain", "d.org"], ["A", "--domain", "d.org"], ["--json", "--all"]],
    ids=" ".join,
)
def test_no_choice_is_removed_where_nobody_can_be_asked(
    forkd: Forkd, tmp_path: Path, options: list[str]
) -> None:
    """A script, or a pipe: without --yes only the count is told."""
    queue = Queue(an_entry("A"))
    with FakeControl(tmp_path / "var", queue):
        done = forkd("queue", "remove", *options)
        assert done.returncode == Exit.USAGE
        assert "1 message would be deleted for good" in done.stdout + done.stderr
        assert not queue.acts
        assert "1 message removed" in forkd("queue", "remove", "--yes", *options).stdout.replace(
            '{\n  "ok": true,\n  "count": 1\n}', "1 message removed"
        )
    assert queue.acts == [("remove", ["A"])]


def test_who_names_a_message_is_not_asked(forkd: Forkd, tmp_path: Path) -> None:
    """As postsuper -d and exim -Mrm: whoever copied the id has looked."""
    queue = Queue(an_entry("A"))
    with FakeControl(tmp_path / "var", queue):
        assert forkd("queue", "remove", "A").stdout == "1 message removed\n"
    assert queue.acts == [("remove", ["A"])]


def test_a_removal_with_a_report_says_so(forkd: Forkd, tmp_path: Path) -> None:
    """Another act for qmgr; where nobody can be asked, what would be done is told."""
    queue = Queue(an_entry("A"))
    with FakeControl(tmp_path / "var", queue):
        done = forkd("queue", "remove", "--bounce", "--all")
        assert "1 message would be deleted for good, with a report to the sender" in done.stderr
        assert forkd("queue", "remove", "--bounce", "--yes", "--all").stdout == "1 message removed\n"
    assert queue.acts == [("bounce", ["A"])]


def test_json_has_nothing_that_a_terminal_obeys(forkd: Forkd, tmp_path: Path) -> None:
    """C1 controls, DEL, and what turns the direction of writing, from strangers' addresses; the value is the
    same to who parses it."""
    hostile = "\x1b[2J\x9b2J\x7f\u202eevil\u2066\U000e0001 \u00fc\u4e2d"
    with FakeControl(tmp_path / "var", Queue(an_entry("A", reason=hostile))):
        shown = forkd("queue", "list", "--json").stdout
    assert json.loads(shown)["entries"][0]["reason"] == hostile
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "\u00fc\u4e2d" in shown


def test_show_has_the_same_keys_always(forkd: Forkd, tmp_path: Path) -> None:
    """Also of a message that cannot be read, or is too large to be told."""
    answer = queued(entries=[an_entry("A", detail="")], count=1)
    with FakeControl(tmp_path / "var", lambda _: ok(answer)):
        shown = json.loads(forkd("queue", "show", "A", "--json").stdout)
    assert (shown["detail"], shown["offline"]) == ({}, False)


def on_terminal(
    folder: Path, *arguments: str, answer: bytes = b"", look: Callable[[bytes], None] = lambda _: None
) -> tuple[int, str]:
    """Run a command with a terminal of its own, which types `answer`; status and what it showed.

    look  is called with all that was shown so far
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "forkd", *arguments],
        cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "NO_COLOR": "1",
             "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer)
    shown = b""

    def read() -> bool:
        nonlocal shown
        if not select.select([ours], [], [], 0.1)[0]:
            return False
        try:
            data = os.read(ours, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        shown += data
        look(shown)
        return not data

    wait_for(read, timeout_s=60)
    os.close(ours)
    return process.wait(60), shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(("typed", "removed"), [(b"y\n", True), (b"n\n", False)], ids=["yes", "no"])
def test_who_is_asked_decides(tmp_path: Path, typed: bytes, removed: bool) -> None:
    """With the number of messages that it is about."""
    queue = Queue(an_entry("A"), an_entry("B"))
    with FakeControl(tmp_path / "var", queue):
        _, shown = on_terminal(tmp_path, "queue", "remove", "--sender", "s@example.org", answer=typed)
    assert "delete 2 messages for good?" in shown
    assert bool(queue.acts) is removed


def test_progress_is_for_terminals(forkd: Forkd, tmp_path: Path) -> None:
    """Long work shows how far it is there, and nothing of the kind on a pipe."""
    seen, at = threading.Event(), itertools.count()
    last = 300

    def endless(_: dict[str, Any]) -> bytes:
        """Until the progress was seen; on a pipe for some pages."""
        page = next(at)
        more = page < last if last else not seen.is_set()
        return ok(queued(count=10**6, seen=1, more=more, after=f"{page:09}"))

    def look(shown: bytes) -> None:
        if b"looked at" in shown and b"/1000000" in shown:
            seen.set()

    with FakeControl(tmp_path / "var", endless):
        piped = forkd("queue", "list")
        assert (piped.stdout, piped.stderr) == ("the queue is empty\n", "")
        last = 0
        status, shown = on_terminal(tmp_path, "queue", "list", look=look)
    assert status == 0
    assert "the queue is empty" in shown


def test_stat_shows_domains_by_age_and_reasons(forkd: Forkd, tmp_path: Path) -> None:
    """As qshape: totals first, the most below; pages are put together."""
    first = queued(
        count=5, seen=3, more=True, after="A", octets=2048,
        counts=[["domain", "a.org", 0, 1], ["domain", "b.org", 9, 4], ["state", "deferred", 9, 3],
                ["reason", "451 try later", 9, 3]],
    )  # fmt: skip
    second = queued(
        count=5, seen=2, octets=1024,
        counts=[["domain", "a.org", 1, 1], ["state", "hold", 0, 2], ["reason", "", 0, 2]],
    )  # fmt: skip
    with FakeControl(tmp_path / "var", lambda request: ok(second if request["after"] else first)):
        lines = forkd("queue", "stat").stdout.splitlines()
        data = json.loads(forkd("queue", "stat", "--json").stdout)
    assert lines[0] == "5 messages, 3.0 KiB: 3 deferred, 2 hold"
    rows = [re.split(r"  +", line) for line in lines[2:]]
    assert rows[0] == ["domain", "T", "5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"]
    assert rows[1] == ["TOTAL", "6", "1", "1", "0", "0", "0", "0", "0", "0", "0", "4"]
    assert [row[0] for row in rows[2:4]] == ["b.org", "a.org"]
    assert [row[:2] for row in rows[6:]] == [["TOTAL", "5"], ["451 try later", "3"], ["(not tried yet)", "2"]]
    assert data["domains"][0] == {"name": "b.org", "total": 4, "ages": [0, 0, 0, 0, 0, 0, 0, 0, 0, 4]}
    assert (data["messages"], data["octets"], data["states"]) == (5, 3072, {"deferred": 3, "hold": 2})
