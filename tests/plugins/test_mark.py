"""mark: one header field, naming the session."""

from __future__ import annotations

from pathlib import Path

from forkd.sdk.testing import assert_passed, load_plugin

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "mark"


def test_message_gets_one_field():
    """X-Forkd-Plugin: mark; session=<id>."""
    answer = load_plugin(FOLDER).session(id="S42").message("Subject: x\n\nhello\n")
    assert_passed(answer)
    assert [(e.name, e.value) for e in answer.edits] == [("X-Forkd-Plugin", "mark; session=S42")]
