"""Attack 95: with each wall left out in turn, the attacks that it stops must be seen to go otherwise."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.escapes.attack import Attack
from tests.escapes.mutations import (
    PATCHES,
    patched_tree,
    run_in,
    stopped_by,
    survives,
    switchable,
    walls_here,
)
from tests.support.sandboxes import MODES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("attack", "mode"),
    [pytest.param(attack, mode, id=f"{attack.name}-{mode}") for mode in MODES for attack in switchable(mode)],
)
def test_an_attack_goes_otherwise_without_what_stops_it(attack: Attack, mode: str):
    """What a row declares to stop it is measured: with that left out, the row's claim does not hold."""
    assert survives(attack, mode) is None


@pytest.mark.parametrize(("wall", "mode"), [(wall, mode) for mode in MODES for wall in walls_here(mode)])
def test_each_wall_is_missed(wall: str, mode: str):
    """Some attack is stopped by this wall and no other: without it the suite fails."""
    assert stopped_by(wall, mode), f"no attack would notice that {wall} is missing"


@pytest.mark.parametrize(
    ("wall", "mode"), [(wall, mode) for mode in MODES for wall in PATCHES if wall in walls_here(mode)]
)
def test_a_wall_without_a_switch_is_missed_too(wall: str, mode: str):
    """Taken out of a copy of the source: every attack that it stops fails there, and only for that."""
    attacks = stopped_by(wall, mode)
    with tempfile.TemporaryDirectory(prefix="forkd-test-") as folder:
        ran = run_in(patched_tree(Path(folder), PATCHES[wall]), attacks, mode)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        for attack in attacks:
            assert f"NOT STOPPED  {attack.name}" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize("mode", MODES)
def test_in_an_unchanged_copy_they_are_stopped(mode: str):
    """So it is the missing wall that the test above sees, not the copy."""
    attacks = [attack for wall in PATCHES for attack in stopped_by(wall, mode)]
    with tempfile.TemporaryDirectory(prefix="forkd-test-") as folder:
        ran = run_in(patched_tree(Path(folder), ()), attacks, mode)
        assert ran.returncode == 0, ran.stdout + ran.stderr
