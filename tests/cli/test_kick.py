"""What `forkd kick` makes of the daemon's answer: a script must know when a session may still be there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forkd.exits import Exit
from tests.support.fake_control import FakeControl

from .conftest import Forkd

A, B = "HOFUBH6H4VPC93W1", "HOFUBH6H4VPC93W2"
SILENT = [{"worker": 1, "pid": 7, "why": "no answer within 3 s"}]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"not_there": [B]}, f"no such session: {B}"),
        ({"unknown": [B], "silent": SILENT}, f"not known whether it has ended, its worker is silent: {B}"),
    ],
)
def test_a_session_that_may_still_be_there_is_a_failure(
    forkd: Forkd, tmp_path: Path, answer: dict[str, list[object]], said: str
):
    """In the exit status and in the words."""
    result = {"kicked": [A], "not_there": [], "unknown": [], "silent": []} | answer
    with FakeControl(tmp_path / "var", lambda _: json.dumps({"ok": True, "result": result}).encode() + b"\n"):
        done = forkd("kick", A, B)
        assert done.returncode == Exit.FAILED
        assert done.stdout == "1 session ended\n"
        assert said in done.stderr
        as_json = forkd("kick", "--json", A, B)
    assert (as_json.returncode, json.loads(as_json.stdout)["ok"]) == (Exit.FAILED, False)


def test_what_is_no_id_is_said_before_anybody_is_asked(forkd: Forkd):
    """In our words; also where no forkd runs."""
    done = forkd("kick", A, "NOSUCH")
    assert done.returncode == Exit.USAGE
    assert "no id of a session: NOSUCH\n  help: `forkd sessions` lists them" in done.stderr
