"""forkd/sandbox/landlock.py: which rights does each version of Landlock handle?"""

from __future__ import annotations

import os

import pytest

from forkd.sandbox import landlock
from forkd.sandbox.role_walls import Walls, left

RESOLVE_UNIX, IOCTL_DEV, TRUNCATE, REFER = 1 << 16, 1 << 15, 1 << 14, 1 << 13
"""linux/landlock.h: the rights that came later, LANDLOCK_ACCESS_FS_*."""
FIRST = (1 << 13) - 1


@pytest.mark.parametrize(
    ("abi", "rights"),
    [
        (1, FIRST),
        (2, FIRST | REFER),
        (3, FIRST | REFER | TRUNCATE),
        (4, FIRST | REFER | TRUNCATE),
        (5, FIRST | REFER | TRUNCATE | IOCTL_DEV),
        (8, FIRST | REFER | TRUNCATE | IOCTL_DEV),
        (9, FIRST | REFER | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX),
        (99, FIRST | REFER | TRUNCATE | IOCTL_DEV | RESOLVE_UNIX),
    ],
)
def test_every_right_for_files_that_the_kernel_knows_is_handled(abi: int, rights: int):
    """sandbox.md, "Layers": the best ABI there is; of a newer one than ours, the best we know."""
    assert landlock.rights(landlock.FS_BITS, abi) == rights


@pytest.mark.parametrize(("abi", "rights"), [(4, 0b11), (9, 0b11), (10, 0b1111), (99, 0b1111)])
def test_ports_are_those_of_tcp_and_where_known_of_udp(abi: int, rights: int):
    """Bind and connect, each."""
    assert landlock.rights(landlock.NET_BITS, abi) == rights


@pytest.mark.parametrize("abi", [1, 3, 5, 7])
def test_this_kernel_takes_what_an_older_one_knows(abi: int):
    """Every set of rights up to this kernel's version makes a ruleset: no bit is in the wrong place."""
    have = landlock.abi()
    if have < abi:
        pytest.skip(f"other architecture of Landlock: version {have}")
    ruleset = landlock.create(landlock.handled(abi, (True, True, True)))
    assert ruleset > 2
    os.close(ruleset)


@pytest.mark.parametrize(
    ("abi", "udp", "bounded"),
    [
        (3, False, (FIRST | REFER | TRUNCATE, 0, 0)),
        (7, True, (FIRST | REFER | TRUNCATE | IOCTL_DEV, 0b11, 0b11)),
        (10, True, (FIRST | REFER | TRUNCATE | IOCTL_DEV, 0b11, 0b11)),
        (10, False, (FIRST | REFER | TRUNCATE | IOCTL_DEV, 0b1111, 0b11)),
    ],
)
def test_a_role_is_bounded_by_all_that_it_does_not_live_by(abi: int, udp: bool, bounded: tuple[int, ...]):
    """It talks by path sockets; some ask name servers. A newer kernel must not take either from it."""
    walls = Walls(paths=(), udp=udp, program=b"")
    assert landlock.handled(abi, (True, True, True), left(walls)) == bounded


def test_what_is_not_wanted_is_left_alone():
    """A wall that is switched off bounds nothing."""
    assert landlock.handled(99, (False, False, False)) == (0, 0, 0)
    assert landlock.handled(99, (False, True, False)) == (0, 0b1111, 0)
