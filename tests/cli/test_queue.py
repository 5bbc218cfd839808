"""forkd queue hold, release: what an admin is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkd.exits import Exit
from tests.cli.conftest import Forkd
from tests.support.fake_control import FakeControl, ok


@pytest.mark.parametrize(("act", "done"), [("hold", "on hold"), ("release", "released")])
def test_ids_are_acted_on_and_counted(forkd: Forkd, tmp_path: Path, act: str, done: str) -> None:
    """One request with all of them; never all messages by a forgotten argument."""
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> bytes:
        asked.append(request)
        return ok({"entries": [], "count": len(request["ids"]), "more": False, "error": ""})

    with FakeControl(tmp_path / "var", answer):
        assert forkd("queue", act).returncode == Exit.USAGE
        assert forkd("queue", act, "A", "B").stdout == f"2 messages {done}\n"
    assert [(request["act"], request["ids"]) for request in asked] == [(act, ["A", "B"])]


def test_what_could_not_be_done_is_named_beside_what_was(forkd: Forkd, tmp_path: Path) -> None:
    """qmgr's reasons, per id; exit status not 0."""
    reply = {"entries": [], "count": 1, "more": False, "error": "A: not held; B: not in the queue"}
    with FakeControl(tmp_path / "var", lambda _: ok(reply)):
        done = forkd("queue", "release", "A", "B", "C")
    assert done.returncode != 0
    assert "A: not held; B: not in the queue; 1 message released" in done.stderr


def test_a_held_message_has_no_next_try(forkd: Forkd, tmp_path: Path) -> None:
    """The list shows state and reason; a deferred one shows when it is tried."""
    common = {
        "sender": "s@example.org",
        "recipients": ["a@test.local"],
        "size": 10,
        "received_at": 0.0,
        "attempts": 1,
    }
    entries = [
        {"id": "ID1", "state": "hold", "reason": "looks bad", "next_try_at": 0.0, **common},
        {"id": "ID2", "state": "deferred", "reason": "no route", "next_try_at": 9e9, **common},
    ]
    with FakeControl(tmp_path / "var", lambda _: ok({"entries": entries, "count": 2, "more": False})):
        _, held, deferred = forkd("queue", "list").stdout.splitlines()[:3]
    assert held.split()[1] == "hold"
    assert "looks bad" in held
    assert " in " not in held
    assert " in " in deferred
