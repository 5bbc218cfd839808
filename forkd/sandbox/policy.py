"""How does a profile's table of system calls become the two programs a zygote loads? Master only: libseccomp.

The programs are exported as BPF and handed to the zygote as bytes, so that nothing of libseccomp has
to be installed for, or run inside, a plugin's interpreter. As a binary tree (libseccomp's attribute
CTL_OPTIMIZE = 2) loading costs 37 microseconds instead of 96 and a call a few comparisons.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import platform
from collections.abc import Iterable, Iterator
from typing import Any

from forkd.sandbox.profiles import PROFILES
from forkd.sandbox.syscalls import ALLOW, KILL, LONG, Action, Is, Row

_ATTR_ACT_BADARCH = 2
_ATTR_CTL_OPTIMIZE = 8  # seccomp_attr_set(3)
_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
"""AUDIT_ARCH_*: every other one, 32-bit and x32 calls with it, meets KILL."""


class PolicyError(Exception):
    """The machine cannot give a policy: no libseccomp, or an architecture we have no table for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """Seccomp programs (arrays of struct sock_filter, host byte order): the zygote's, the sandbox's.

    load_own_uid   the zygote's where it has a uid of its own.
    """

    load: bytes
    child: bytes
    load_own_uid: bytes


def complement(conditions: tuple[Is, ...]) -> Iterator[tuple[Is, ...]]:
    """All ways in which not every condition holds, as disjoint conjunctions.

    libseccomp gives no promise on overlapping rules, so what a row does not allow is spelled out:
    the first condition that fails, and in it the first bit that differs.
    """
    for index, condition in enumerate(conditions):
        before = conditions[:index]
        if condition.mask == LONG:
            # a whole word differs: one rule with "not equal", marked by an impossible mask of zero
            yield (*before, Is(condition.arg, 0, condition.value))
            continue
        bits = [1 << n for n in range(64) if condition.mask >> n & 1]
        seen = 0
        for bit in bits:
            value = (condition.value & seen) | (~condition.value & bit)
            yield (*before, Is(condition.arg, seen | bit, value))
            seen |= bit


def rules(rows: Iterable[Row]) -> Iterator[tuple[str, Action, tuple[Is, ...]]]:
    """The table as single rules: name, action, conditions (mask 0 means: not equal to value)."""
    for row in rows:
        for name in row.names.split():
            yield name, row.action, (*row.given, *row.only)
            if row.only:
                for failed in complement(row.only):
                    yield name, row.otherwise, (*row.given, *failed)


def compile_policy(architecture: str = "", *, profile: str = "pure", threads: bool = False) -> Policy:
    """Compile both programs of one of profiles.PROFILES for this machine, or for a named architecture.

    threads  of a plugin that was granted some.
    Blocks for about 40 ms, and 20 ms more the first time (libseccomp is searched for and loaded).
    Raises PolicyError.
    """
    return _compile(architecture or platform.machine(), f"{profile}, threads" if threads else profile)


@functools.cache
def _compile(architecture: str, profile: str) -> Policy:
    if architecture not in _ARCHITECTURES:
        raise PolicyError(f"no system call table for {architecture} (only {', '.join(_ARCHITECTURES)})")
    load, child = PROFILES[profile]
    program = _program(load, default=errno.ENOSYS, architecture=architecture)
    own_uid = f"{profile}, own uid"
    return Policy(
        load=program,
        child=_program(child, default=ALLOW, architecture=architecture),
        load_own_uid=_compile(architecture, own_uid).load if own_uid in PROFILES else program,
    )


@functools.cache
def compile_refusals(rows: tuple[Row, ...], architecture: str = "") -> bytes:
    """One program from rows over a default of leave: a role's (role_syscalls.py). Raises PolicyError."""
    architecture = architecture or platform.machine()
    if architecture not in _ARCHITECTURES:
        raise PolicyError(f"no system call table for {architecture} (only {', '.join(_ARCHITECTURES)})")
    return _program(rows, default=ALLOW, architecture=architecture)


def compile_allowed(rows: Iterable[Row]) -> bytes:
    """One program from rows over a default of ENOSYS, for this machine (learn mode). Raises PolicyError."""
    return _program(rows, default=errno.ENOSYS, architecture=platform.machine())


def syscall_name(number: int) -> str:
    """Of a number of this machine; empty: libseccomp does not know it. Raises PolicyError."""
    seccomp = _library()
    try:
        name = seccomp.resolve_syscall(seccomp.system_arch(), number)
    except ValueError:
        return ""
    return name.decode() if isinstance(name, bytes) else str(name)


def _program(rows: Iterable[Row], *, default: Action, architecture: str) -> bytes:
    seccomp = _library()
    program = seccomp.SyscallFilter(_action(seccomp, default))
    token = _ARCHITECTURES[architecture]
    if token != seccomp.system_arch():
        program.add_arch(token)
        program.remove_arch(seccomp.system_arch())
    program.set_attr(_ATTR_ACT_BADARCH, seccomp.KILL_PROCESS)
    program.set_attr(_ATTR_CTL_OPTIMIZE, 2)
    for name, action, conditions in rules(rows):
        if action == default:
            continue  # said by the default; libseccomp refuses the repetition
        with contextlib.suppress(_NoSuchCallError):
            number = _number(seccomp, token, name)
            arguments = [_argument(seccomp, condition) for condition in conditions]
            program.add_rule_exactly(_action(seccomp, action), number, *arguments)
    with os.fdopen(os.memfd_create("policy", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


class _NoSuchCallError(Exception):
    """This architecture (or this libseccomp) has no such call: nothing to allow or to name."""


def _number(seccomp: Any, token: int, name: str) -> int:
    if seccomp.resolve_syscall(token, name) < 0:
        raise _NoSuchCallError(name)
    # Rules are added by this machine's number; libseccomp translates it for another architecture.
    return int(seccomp.resolve_syscall(seccomp.system_arch(), name))


def _argument(seccomp: Any, condition: Is) -> Any:
    if condition.mask == 0:
        return seccomp.Arg(condition.arg, seccomp.NE, condition.value)
    if condition.mask == LONG:
        return seccomp.Arg(condition.arg, seccomp.EQ, condition.value)
    return seccomp.Arg(condition.arg, seccomp.MASKED_EQ, condition.mask, condition.value)


def _action(seccomp: Any, action: Action) -> int:
    if action == ALLOW:
        return int(seccomp.ALLOW)
    if action == KILL:
        return int(seccomp.KILL_PROCESS)
    return int(seccomp.ERRNO(action))


def _library() -> Any:
    """Pyseccomp, imported here: its import loads libseccomp.so.2 and fails where that is missing."""
    try:
        import pyseccomp  # noqa: PLC0415 - see above; a missing library must not break `forkd version`
    except (ImportError, RuntimeError, OSError) as error:
        raise PolicyError(f"libseccomp cannot be loaded (Debian package libseccomp2): {error}") from error
    return pyseccomp
