"""forkd/sandbox/confine.py: which rights does each version of Landlock handle?"""

from __future__ import annotations

import pytest

from forkd.sandbox import confine

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
    assert confine._bits(confine._FS_BITS, abi) == rights


@pytest.mark.parametrize(("abi", "rights"), [(4, 0b11), (9, 0b11), (10, 0b1111), (99, 0b1111)])
def test_ports_are_those_of_tcp_and_where_known_of_udp(abi: int, rights: int):
    """Bind and connect, each."""
    assert confine._bits(confine._NET_BITS, abi) == rights


@pytest.mark.parametrize("abi", [1, 3, 5, 7])
def test_this_kernel_takes_what_an_older_one_knows(abi: int):
    """Every set of rights up to this kernel's version makes a ruleset: no bit is in the wrong place."""
    have = confine.landlock_abi()
    if have < abi:
        pytest.skip(f"other architecture of Landlock: version {have}")
    state = {
        "files": "on",
        "network": "on" if abi >= 4 else "absent",
        "signals": "on" if abi >= 6 else "absent",
    }
    ruleset = confine._ruleset(state, abi)
    assert ruleset > 2
    import os

    os.close(ruleset)
