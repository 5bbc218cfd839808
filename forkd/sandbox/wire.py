"""What do a worker and a zygote say on the zygote's socket? (PROTOCOL.md, part 1: the same, byte by byte.)

Both ends import this module, so it holds constants and packing only, and needs the standard library only.
"""

from __future__ import annotations

import struct
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

CONTROL_FD, LISTENER_FD, SPEC_FD, SIZE_FD = 3, 4, 5, 6
"""Where launch.py puts the zygote's own descriptors; 0 is /dev/null, 1 and 2 are its output pipe."""
CHANNEL_FD, LEASH_FD, BROKER_FD = 3, 4, 5
"""Where a sandbox moves its own; 1 and 2 are its output pipe. Nothing above them is open, nor is the broker's
channel where the plugin was granted nothing that it does."""

PROGRAM_LEASH_FD = 200
"""Where a program has its leash: out of the way of what programs open, below the zygote's own limit."""
MAX_PROGRAM_FDS, MAX_PROGRAM_FD = 8, 31
"""A program is given so many descriptors, with numbers up to this."""

FDS_PER_SANDBOX, MOST_FDS_PER_SANDBOX = 3, 4
"""Channel, leash, output, in this order; and the channel to the broker, where the specification says so."""
MAX_FORKS = 8
"""Per request. SCM_RIGHTS takes 253 descriptors; beyond eight forks a batch gains nothing more."""
MAX_FRAME_BYTES = 65_536
"""Of a call or an answer (forkd.rpc.calls has the same number for the worker; a test compares them)."""

API = 2
"""Of the zygote's `ready`; master refuses another."""

FORK = ord("F")
RUN = ord("R")
DIED = ord("D")
_HEAD = struct.Struct("=BB")
_RUN_HEAD = struct.Struct("=BBI")
_DEATH = struct.Struct("=IIiQQQQ")
MAX_DEATHS = 64
"""Deaths in one report."""
MAX_RECORD_BYTES = _HEAD.size + MAX_DEATHS * _DEATH.size
MAX_ENVIRONMENT_BYTES = 1 << 20
"""Of a program, with its arguments: the kernel takes a quarter of the stack's limit, 2 MiB (execve(2))."""
FDS_PER_RUN = 3
"""Beside a request to run a program, before the program's own descriptors."""


class WireError(ValueError):
    """A record that is not in the protocol: the reader drops the connection."""


if TYPE_CHECKING:

    class Death(NamedTuple):
        """How one sandbox ended, as its zygote claims.

        pid     0: it was never forked.
        status  as wait4 gives it.
        """

        id: int
        pid: int
        status: int
        user_us: int
        system_us: int
        max_rss_kib: int
        faults: int

    class Run(NamedTuple):
        """A request to run a program. Beside it travel the leash, the output pipe, a memory file with its
        environment and arguments, and one descriptor per number.

        numbers  which descriptor of the program each of the last becomes.
        """

        id: int
        numbers: tuple[int, ...]
else:  # the module typing would be 0.7 MB in every zygote
    Death = namedtuple("Death", "id pid status user_us system_us max_rss_kib faults")
    Run = namedtuple("Run", "id numbers")


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


def pack_run(run: Run) -> bytes:
    """A request to run the program once. Raises WireError when it does not fit."""
    record = _RUN_HEAD.pack(RUN, len(run.numbers), run.id) + bytes(run.numbers)
    unpack_run(record)
    return record


def unpack_run(record: bytes) -> Run:
    """A request as it came. Raises WireError."""
    if len(record) < _RUN_HEAD.size or record[0] != RUN:
        raise WireError("not a request to run")
    _, count, id_ = _RUN_HEAD.unpack_from(record)
    numbers = tuple(record[_RUN_HEAD.size :])
    if len(numbers) != count or count > MAX_PROGRAM_FDS or len(set(numbers)) != count:
        raise WireError("wrong descriptors")
    if numbers and max(numbers) > MAX_PROGRAM_FD:
        raise WireError("a descriptor's number is too high")
    return Run(id_, numbers)


def unpack_environment(text: bytes) -> tuple[dict[bytes, bytes], list[bytes] | None]:
    """A program's environment, and its arguments; None: those that it was configured with.

    Entries NAME=value, each with a NUL behind it; where there are arguments, an empty entry and then each of
    them, likewise. Raises WireError.
    """
    entries = text.split(b"\0")
    arguments = None
    if len(text) > MAX_ENVIRONMENT_BYTES or entries.pop():
        raise WireError("wrong environment")
    if b"" in entries:
        at = entries.index(b"")
        entries, arguments = entries[:at], entries[at + 1 :]
    if not all(entry.find(b"=") > 0 for entry in entries):
        raise WireError("wrong environment")
    return {name: value for name, _, value in (entry.partition(b"=") for entry in entries)}, arguments


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
