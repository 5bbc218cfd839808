"""What `forkd reload` prints of master's report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.fake_control import FakeControl

from .conftest import Forkd


@pytest.mark.parametrize("plugin", [True, False])
def test_why_a_plugin_starts_anew_that_nobody_changed_is_said(forkd: Forkd, tmp_path: Path, plugin: bool):
    """block_senders reads its list at its start: on defaults each reload starts it anew."""
    result = {
        "generation": 2,
        "seconds": 0.5,
        "renewed": ["worker 0", *(["plugin 'block_senders'"] if plugin else [])],
        "kept": ["plugin 'mark'"],
    }
    with FakeControl(tmp_path / "var", lambda _: json.dumps({"ok": True, "result": result}).encode() + b"\n"):
        done = forkd("reload")
    assert done.returncode == 0
    assert ("it may have read them at its start" in done.stdout) is plugin
    assert done.stdout.endswith("kept: plugin 'mark'\n")
