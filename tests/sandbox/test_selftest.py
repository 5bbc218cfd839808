"""forkd/sandbox/selftest.py: each wall is seen to hold, and its lack is seen too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkd.sandbox import selftest
from forkd.sandbox.confine import LAYERS
from tests.support.params import quick_first
from tests.support.sandboxes import MODES, ROOT, as_mode
from tests.support.uids import next_uid

SEEN = {
    ("rlimits",): {"rlimits", "cpu_timer"},
    ("non_dumpable",): {"non_dumpable"},
    ("files",): {"landlock"},  # the mount root still hides all others
    ("mount_root",): {"namespaces"},  # Landlock still refuses them
    ("files", "mount_root"): {"files", "landlock", "namespaces"},
    ("namespaces",): {"namespaces"},
    ("network",): {"network"},
    ("signals",): {"signals"},
    ("seccomp",): {"seccomp"},
}
"""Walls left out -> what it must then call failed. (seccomp needs no_new_privs: that one stays.)"""
CONTROLLERS = ("enforced", "absent")
"""Of the row cgroup: few machines delegate any."""


@pytest.mark.parametrize("mode", MODES)
def test_every_wall_holds_here(mode: str):
    """A start-up self-test that reports each layer; all but a uid of its own hold in both modes."""

    def body() -> None:
        uid = next_uid() if mode == ROOT else None
        got = selftest.run(uid=uid, gid=uid)
        assert tuple(got) == selftest.REPORTED
        expected = dict.fromkeys(selftest.REPORTED, "enforced")
        if uid is None:
            expected["uid"] = "absent"
        assert got.pop("cgroup") in CONTROLLERS
        del expected["cgroup"]
        assert got == expected

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("walls", quick_first(SEEN, 3), ids="+".join)
def test_a_missing_wall_is_seen(walls: tuple[str, ...], mode: str):
    """Attack 95: with each layer switched off in turn, the self-test must fail, and for that layer."""

    def body() -> None:
        layers = tuple(layer for layer in LAYERS if layer not in walls)
        uid = next_uid() if mode == ROOT else None
        found = selftest.examine(uid=uid, gid=uid, layers=layers)
        failed = {finding.layer for finding in found if finding.result == selftest.FAILED}
        assert failed == SEEN[walls], found
        assert all(finding.detail for finding in found if finding.layer in failed)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_switched_off_is_absent_and_says_so(mode: str):
    """sandbox.namespaces and sandbox.cgroup "off": the others hold, and Landlock alone keeps the files."""

    def body() -> None:
        uid = next_uid() if mode == ROOT else None
        found = {
            finding.layer: finding
            for finding in selftest.examine(uid=uid, gid=uid, namespaces=False, cgroup=False)
        }
        for layer in ("namespaces", "cgroup"):
            assert found[layer] == selftest.Finding(layer, "absent", "switched off in the configuration")
        assert found["files"] == selftest.Finding("files", "enforced", "Landlock")

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_files_are_kept_by_the_mount_root_and_by_landlock(mode: str):
    """sandbox.md, "Layers": files are kept by Landlock or a mount root, and the row says by which."""

    def body() -> None:
        uid = next_uid() if mode == ROOT else None
        rows = [
            {f.layer: f.detail for f in selftest.examine(uid=uid, gid=uid, layers=layers)}["files"]
            for layers in (LAYERS, tuple(layer for layer in LAYERS if layer != "mount_root"))
        ]
        assert rows == ["private mount root and Landlock", "Landlock"]

    as_mode(mode, body)


def test_it_leaves_nothing_behind():
    """A throw-away: no child, no folder, no descriptor."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    selftest.run()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


PROGRAM_SEEN = {
    ("rlimits",): ("memory", "files"),
    ("files", "mount_root"): ("other file", "writing", "other program", "another run"),
    ("seccomp",): ("socket", "fork", "group", "disarming"),
}
"""Walls left out -> the acts of a program that then go through."""


@pytest.mark.parametrize("mode", MODES)
def test_every_wall_of_a_program_holds_here(mode: str):
    """The exec profile has a filter of its own, so it is tried by itself."""

    def body() -> None:
        uid = next_uid() if mode == ROOT else None
        found = selftest.examine(uid=uid, gid=uid, programs=True)
        assert found[-1] == selftest.Finding(selftest.PROGRAM, "enforced")

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("walls", quick_first(PROGRAM_SEEN, 2), ids="+".join)
def test_a_missing_wall_of_a_program_is_seen(walls: tuple[str, ...], mode: str):
    """As for a sandbox: the row fails, and says which act went through."""

    def body() -> None:
        layers = tuple(layer for layer in LAYERS if layer not in walls)
        uid = next_uid() if mode == ROOT else None
        found = selftest.examine(uid=uid, gid=uid, layers=layers, programs=True)[-1]
        assert found.result == selftest.FAILED
        missing = [act for act in PROGRAM_SEEN[walls] if f"{act}: " not in found.detail]
        assert not missing, found

    as_mode(mode, body)
