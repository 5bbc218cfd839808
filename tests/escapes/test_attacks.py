"""Every act of the tables fails in the way its row says, and nobody else notices."""

from __future__ import annotations

import pytest

from tests.escapes.attack import Attack, perform
from tests.escapes.tables import ATTACKS
from tests.support.sandboxes import FURTHER_MODES, MODES

CASES = [
    pytest.param(attack, mode, marks=() if mode in MODES else pytest.mark.slow, id=f"{attack.name}-{mode}")
    for mode in (*MODES, *FURTHER_MODES)
    for attack in ATTACKS
    if attack.possible(mode)
]


@pytest.mark.parametrize(("attack", "mode"), CASES)
def test_an_attack_fails(attack: Attack, mode: str):
    """sandbox.md, "Attacks": how it failed is asserted; a control session beside it is answered as ever,
    no process, descriptor, file or shared memory is left, and the failure has its cause."""
    perform(attack, mode)


def test_each_attack_has_a_name_of_its_own():
    """The mutation tests and the table choose by it."""
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
