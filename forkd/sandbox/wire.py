"""What do a worker and a zygote say on the zygote's socket? (PROTOCOL.md, part 1: the same, byte by byte.)

Both ends import this module, so it holds constants and packing only, and needs the standard library only.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

CONTROL_FD, LISTENER_FD, SPEC_FD = 3, 4, 5
"""Where launch.py puts the zygote's own descriptors; 0 is /dev/null, 1 and 2 are its output pipe."""
CHANNEL_FD, LEASH_FD = 3, 4
"""Where a sandbox moves its own; 1 and 2 are its output pipe. Nothing above them is open."""

FDS_PER_SANDBOX = 3
"""Channel, leash, output, in this order."""
MAX_FORKS = 8
"""Per request. SCM_RIGHTS takes 253 descriptors; beyond eight forks a batch gains nothing more."""
MAX_FRAME_BYTES = 65_536
"""Of a call or an answer (forkd.rpc.calls has the same number for the worker; a test compares them)."""

API = 1
"""Of the zygote's `ready`; master refuses another."""

FORK = ord("F")
DIED = ord("D")
_HEAD = struct.Struct("=BB")
_DEATH = struct.Struct("=IIiQQQQ")
MAX_DEATHS = 64
"""Deaths in one report."""
MAX_RECORD_BYTES = _HEAD.size + MAX_DEATHS * _DEATH.size


class WireError(ValueError):
    """A record that is not in the protocol: the reader drops the connection."""


class Death(NamedTuple):
    """How one sandbox ended, as its zygote claims."""

    id: int
    pid: int
    """0: it was never forked."""
    status: int
    """As wait4 gives it."""
    user_us: int
    system_us: int
    max_rss_kib: int
    faults: int


def pack_fork(ids: list[int]) -> bytes:
    """A request for one sandbox per id; the descriptors travel beside it."""
    return struct.pack(f"=BB{len(ids)}I", FORK, len(ids), *ids)


def unpack_fork(record: bytes) -> tuple[int, ...]:
    """The ids of a request. Raises WireError."""
    if len(record) < _HEAD.size or record[0] != FORK or not 0 < record[1] <= MAX_FORKS:
        raise WireError("not a fork request")
    if len(record) != _HEAD.size + 4 * record[1]:
        raise WireError("fork request of a wrong length")
    return struct.unpack_from(f"={record[1]}I", record, _HEAD.size)


def pack_deaths(deaths: list[Death]) -> bytes:
    """A report on up to MAX_DEATHS sandboxes."""
    return _HEAD.pack(DIED, len(deaths)) + b"".join(_DEATH.pack(*death) for death in deaths)


def unpack_deaths(record: bytes) -> list[Death]:
    """The deaths of a report. Raises WireError."""
    if len(record) < _HEAD.size or record[0] != DIED or not 0 < record[1] <= MAX_DEATHS:
        raise WireError("not a report")
    if len(record) != _HEAD.size + record[1] * _DEATH.size:
        raise WireError("report of a wrong length")
    return [Death._make(fields) for fields in _DEATH.iter_unpack(record[_HEAD.size :])]
