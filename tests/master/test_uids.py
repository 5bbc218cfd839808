"""forkd/master/walls.py: whom plugins run as, by numbers (sandbox.md, layers: uid and gid of its own)."""

from __future__ import annotations

import dataclasses

import pytest

from forkd.master import walls
from forkd.master.errors import StartError
from forkd.master.privileges import Identities, Identity
from forkd.sandbox.policy import Policy
from forkd.sandbox.spec import ZygoteSpec

SPEC = ZygoteSpec(name="first", policy=Policy(load=b"", child=b"", load_own_uid=b""), uid=1_900_000_000)
ROLES = Identities({"user": Identity(1000, 1000, "forkd")})


def named(name: str, uid: int | None) -> ZygoteSpec:
    return dataclasses.replace(SPEC, name=name, uid=uid)


@pytest.mark.parametrize(
    ("other", "both"),
    [
        (named("second", SPEC.uid), ("plugin 'second'", "plugin 'first'")),
        (named("@checkpassword", SPEC.uid), ("auth.checkpassword", "plugin 'first'")),
        (named("@pipe-way", SPEC.uid), ("transport.way and", "plugin 'first'")),
        (named("second", 1000), ("plugin 'second'", "server.user = 'forkd'")),
    ],
    ids=["two plugins", "checkpassword", "a transport", "a role"],
)
def test_two_with_one_uid_are_refused_by_name(other: ZygoteSpec, both: tuple[str, str]):
    """Processes of one uid may stop each other and read each other's files."""
    with pytest.raises(StartError) as refused:
        walls.distinct([SPEC, other], ROLES)
    assert all(name in str(refused.value) for name in both)


def test_each_with_its_own_or_all_with_ours_is_fine():
    """Started by a user nobody has a uid of his own."""
    walls.distinct([SPEC, named("second", 1_900_000_001)], ROLES)
    walls.distinct([named("first", None), named("second", None)], Identities({}))
