"""Is every attack of the list tried, and is what the catalogue names there?"""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest

from forkd.sandbox import profiles
from forkd.sandbox.policy import compile_policy
from tests.escapes.catalogue import CATALOGUE, LAST
from tests.escapes.tables import ATTACKS
from tests.support.walls import WALLS

ROOT = Path(__file__).parent.parent.parent
OTHER_STOPS = {"process", "worker", "master", "interpreter", "kernel"}


def test_every_number_is_there_once():
    """1 to 95, then what was added."""
    assert [entry.number for entry in CATALOGUE] == list(range(1, len(CATALOGUE) + 1))
    assert len(CATALOGUE) > LAST


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: f"{entry.number} {entry.act}")
def test_every_attack_is_tried_or_its_lack_explained(entry):
    """A row of a table, or a test that exists; what is not defended says so."""
    rows = [attack for attack in ATTACKS if entry.number in attack.numbers]
    for test in entry.tests:
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        names = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in names, f"{test} is not there"
    assert rows or entry.tests or entry.note, "nobody tries it"


def test_what_stops_an_attack_is_a_wall_we_know():
    """So that a mutation can leave it out, or it is clear why none can."""
    from tests.escapes.mutations import PATCHES

    known = WALLS | set(PATCHES) | OTHER_STOPS
    assert [(attack.name, attack.by) for attack in ATTACKS if not set(attack.by) <= known] == []


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_no_filter_for_mail_asks_a_supervisor(profile: str):
    """Attack 37: no answer is left to somebody who could be shown one argument and given another."""
    policy = compile_policy(profile=profile)
    for program in {policy.load, policy.load_own_uid, policy.child}:
        returned = {value for code, _, _, value in struct.iter_unpack("=HBBI", program) if code == 0x06}
        kinds = {value & 0xFFFF_0000 for value in returned}
        assert kinds <= {0x7FFF_0000, 0x8000_0000, 0x0005_0000}, (
            "allow, kill the process, an errno; nothing else"
        )
