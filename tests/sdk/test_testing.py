"""The test kit itself: does it see what forkd would refuse?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkd.sdk.plugin import PluginError
from forkd.sdk.testing import LoadedPlugin, assert_deferred, assert_denied, assert_passed, load_plugin

MODULE = """
from forkd.sdk import *

def plugin_init(settings):
    def hook(session, *seen):
        session.notes["calls"] = session.notes.get("calls", 0) + 1
        return eval(settings["say"])
    return Plugin(mail=hook, rcpt=hook, message=hook)
"""
MANIFEST = """
name = "sample"
version = "1.0.0"
api = 1
kind = "python"
hooks = ["mail", "rcpt", "message"]
[settings.say]
type = "string"
default = "None"
[wants.powers]
edit_headers = { names = ["X-A*"], reason = "for the test" }
[wants.reads]
envelope = "for the test"
headers = "for the test"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sample.py").write_text(MODULE)
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    return tmp_path


def saying(folder: Path, say: str) -> LoadedPlugin:
    return load_plugin(folder, settings={"say": say})


def test_answers_are_what_the_hook_said(folder: Path):
    """Verdict and edits, as values."""
    assert_denied(
        saying(folder, "deny('5.7.1', 'no')").session().mail("a@b.example"), code=550, enhanced="5.7.1"
    )
    assert_deferred(saying(folder, "defer('4.7.1', 'no')").session().rcpt("a@b.example"), code=451)
    answer = saying(folder, "[add_header('X-A-B', 'c')]").session().message("Subject: x\n\nbody\n")
    assert_passed(answer)
    assert [(e.name, e.value) for e in answer.edits] == [("X-A-B", "c")]


def test_hook_that_the_plugin_has_not_is_no_opinion(folder: Path):
    """As in forkd: it is not called."""
    assert_passed(load_plugin(folder).session().helo("x"))


@pytest.mark.parametrize("say", ["accept()", "discard()", "add_header('X-B', 'c')"])
def test_power_that_the_manifest_does_not_want_fails(folder: Path, say: str):
    """It would be a breach in forkd."""
    with pytest.raises(AssertionError, match=r"plugin\.toml lacks"):
        saying(folder, say).session().message(b"Subject: x\n\n")


def test_edit_at_the_wrong_hook_fails(folder: Path):
    """Edits belong to the message hook."""
    with pytest.raises(AssertionError, match="belong to the message hook"):
        saying(folder, "add_header('X-A', 'c')").session().mail("a@b")


def test_wrong_return_value_fails(folder: Path):
    """Not None, no verdict, no edits."""
    with pytest.raises(AssertionError, match="a hook returns None"):
        saying(folder, "'no'").session().mail("a@b")


def test_exceptions_of_the_hook_reach_the_test(folder: Path):
    """With their own type."""
    with pytest.raises(ZeroDivisionError):
        saying(folder, "1/0").session().mail("a@b")


def test_session_is_remembered_and_the_envelope_filled(folder: Path):
    """Hooks of a session run in one process; deliver() is a whole transaction."""
    told = "{session.notes['calls']} {session.envelope.sender} {len(session.envelope.recipients)}"
    plugin = saying(folder, f'add_header("X-A", f"{told}") if len(seen) == 2 else None')
    session = plugin.session(client_ip="198.51.100.1")
    edits = session.deliver("Subject: x\n\n", sender="a@b", recipients=["c@d", "e@f"]).edits
    assert edits[0].value == "4 a@b 2"
    edits = session.deliver("Subject: x\n\n", sender="", recipients=["c@d"]).edits
    assert edits[0].value == "7  1"


def test_refused_recipient_is_not_in_the_envelope(folder: Path):
    """deliver() stops at the first refusal."""
    plugin = saying(folder, "deny('5.7.1', 'no') if getattr(seen[0], 'domain', '') == 'x' else None")
    answer = plugin.session().deliver("", sender="a@b", recipients=["c@x"])
    assert answer.hook == "rcpt"
    assert_denied(answer)


@pytest.mark.parametrize(("settings", "says"), [({"sya": 1}, "no setting sya"), ({}, "say has no default")])
def test_settings_are_those_of_the_manifest(folder: Path, settings: dict[str, Any], says: str):
    """A misspelt setting is not silently ignored."""
    (folder / "plugin.toml").write_text(MANIFEST.replace('default = "None"', ""))
    with pytest.raises(PluginError, match=says):
        load_plugin(
            folder, settings=settings or None if says.startswith("say") else {"say": "None", **settings}
        )


def test_unknown_fact(folder: Path):
    """A typing error in a test is no silent pass."""
    with pytest.raises(TypeError, match="client_pi"):
        load_plugin(folder).session(client_pi="192.0.2.1")
