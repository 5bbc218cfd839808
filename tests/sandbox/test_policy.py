"""forkd/sandbox/policy.py, syscalls.py, profiles.py: programs say what tables say, on both architectures."""

from __future__ import annotations

import ctypes
import errno

import pyseccomp
import pytest

from forkd.sandbox import policy, profiles, syscalls, wire
from forkd.sandbox.policy import PolicyError, compile_policy
from forkd.sandbox.profiles import PROFILES
from forkd.sandbox.syscalls import ALLOW, KILL, Action, Is, Row
from tests.support.bpf import verdict

ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
I386, ARM = 0x4000_0003, 0x4000_0028
X32 = 0x4000_0000


def word(action: Action) -> int:
    return {ALLOW: 0x7FFF_0000, KILL: 0x8000_0000}.get(action) or 0x5_0000 | int(action)


def number(name: str, architecture: str) -> int:
    return int(pyseccomp.resolve_syscall(ARCHITECTURES[architecture], name))


def known(architecture: str) -> set[str]:
    """Every call libseccomp knows there."""
    resolve = pyseccomp._libseccomp.seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_void_p
    names = set()
    for n in range(1024):
        text = resolve(ARCHITECTURES[architecture], n)
        if text:
            names.add(ctypes.string_at(text).decode())
    return names


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_known_call_has_a_row(profile: str, architecture: str):
    """sandbox.md, "Layers": default ENOSYS, every known call an explicit row."""
    named = {name for row in PROFILES[profile][0] for name in row.names.split()}
    assert known(architecture) - named == set()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("table", ["load", "child"])
def test_the_program_answers_as_the_table_says(table: str, profile: str, architecture: str):
    """Each rule, and each way in which a row's condition can fail, is looked up in the compiled program."""
    program = getattr(compile_policy(architecture, profile=profile), table)
    rows = PROFILES[profile][0 if table == "load" else 1]
    for name, action, conditions in policy.rules(rows):
        call = number(name, architecture)
        if call < 0:
            continue
        arguments = [0] * 6
        for condition in conditions:
            # mask 0 stands for "not equal": one more is another value
            arguments[condition.arg] |= condition.value if condition.mask else condition.value + 1
        got = verdict(
            program, number=call, architecture=ARCHITECTURES[architecture], arguments=tuple(arguments)
        )
        assert got == word(action), (name, conditions, hex(got))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_the_table_does_not_know_is_enosys(architecture: str):
    """A call newer than the table: libc must fall back to an older one (runc 2151, systemd 19922)."""
    program = compile_policy(architecture).load
    for call in (470, 500, 9999, 0x3FFF_FFFF):
        got = verdict(program, number=call, architecture=ARCHITECTURES[architecture])
        assert got == word(errno.ENOSYS)


@pytest.mark.parametrize("table", ["load", "child"])
def test_another_architecture_and_x32_are_killed(table: str):
    """Their numbers mean other calls; a filter without this check can be walked around."""
    for architecture, own in ARCHITECTURES.items():
        program = getattr(compile_policy(architecture), table)
        for other in (I386, ARM, *(set(ARCHITECTURES.values()) - {own})):
            assert verdict(program, number=0, architecture=other) == word(KILL)
    program = getattr(compile_policy("x86_64"), table)
    assert verdict(program, number=39 | X32, architecture=ARCHITECTURES["x86_64"]) == word(KILL)


def test_int_arguments_are_compared_on_their_low_half():
    """CVE-2019-10063: the kernel ignores the upper half of an int, so must the filter."""
    program = compile_policy("x86_64").load
    high = 1 << 32
    for call, arguments, action in (
        ("mprotect", (0, 0, 4 | high), errno.EACCES),
        ("mmap", (0, 4096, 7 | high, 0x22), errno.EACCES),
        ("ioctl", (0, 0x5412 | high), errno.ENOTTY),
        ("openat", (0, 0, 1 | high), errno.EACCES),
        ("prlimit64", (high, 0, 1), ALLOW),  # pid 0, whatever stands above
        ("prlimit64", (1, 0, 0), errno.EPERM),
    ):
        got = verdict(
            program, number=number(call, "x86_64"), architecture=ARCHITECTURES["x86_64"], arguments=arguments
        )
        assert got == word(action), call


def test_the_sandbox_loses_what_only_a_zygote_needs():
    """The stacked filter: fork, leash, descriptors by number, timers, limits, new code."""
    policy_ = compile_policy("x86_64")
    for call, arguments in (
        ("clone", (syscalls.FORK_FLAGS,)),
        ("close", (syscalls.LEASH_FD,)),
        ("fcntl", (9, 4, 0)),
        ("dup3", (0, 9, 0)),
        ("timer_settime", ()),
        ("prlimit64", (0, 7, 1)),
        ("mmap", (0, 4096, 5, 2)),
    ):
        where = {
            "number": number(call, "x86_64"),
            "architecture": ARCHITECTURES["x86_64"],
            "arguments": arguments,
        }
        assert verdict(policy_.load, **where) == word(ALLOW), call
        assert verdict(policy_.child, **where) != word(ALLOW), call


@pytest.mark.parametrize("profile", [name for name in PROFILES if not name.startswith("exec")])
def test_the_listening_socket_cannot_be_changed(profile: str):
    """It is master's, for every zygote that comes after; nor under another number. Others can."""
    program = compile_policy("x86_64", profile=profile).load
    calls = [("shutdown", 2), ("dup3", 10), *(("fcntl", command) for command in (4, 8, 10))]
    for call, second in calls:
        for fd, action in (
            (wire.LISTENER_FD, errno.EPERM),
            (wire.LISTENER_FD | 1 << 32, errno.EPERM),
            (9, ALLOW),
        ):
            got = verdict(
                program,
                number=number(call, "x86_64"),
                architecture=ARCHITECTURES["x86_64"],
                arguments=(fd, second),
            )
            assert got == word(action), (call, second, fd)
    for call, second in (("listen", 0), ("setsockopt", 1), ("ioctl", 0x5421), ("fcntl", 15), ("fcntl", 1024)):
        got = verdict(
            program,
            number=number(call, "x86_64"),
            architecture=ARCHITECTURES["x86_64"],
            arguments=(wire.LISTENER_FD, second),
        )
        assert got not in (word(ALLOW), word(KILL)), (call, second)


def test_the_stacked_filter_is_small():
    """Every sandbox loads it: its length is paid per session (a kernel run per call number, once)."""
    assert len(compile_policy("x86_64").child) // 8 <= 40


def test_the_complement_of_conditions_is_whole_and_disjoint():
    """What a row does not allow is spelled out rule by rule, since libseccomp promises no order."""
    conditions = (Is(0, 0b11, 0b01), Is(1, 0b1, 0))
    ways = list(policy.complement(conditions))
    for first in range(4):
        for second in range(2):
            values = (first, second)
            met = [way for way in ways if all(values[c.arg] & c.mask == c.value for c in way)]
            allowed = first == 0b01 and second == 0
            assert len(met) == (0 if allowed else 1), values


def test_an_unknown_architecture_is_refused():
    """No table, no sandbox: never a filter that was made for another machine."""
    with pytest.raises(PolicyError, match="riscv64"):
        compile_policy("riscv64")


def test_no_call_is_given_two_unconditional_answers():
    """One behaviour per call: a second row without a condition would be decided by libseccomp's order."""
    for table in (table for tables in PROFILES.values() for table in tables):
        seen: set[str] = set()
        rows: list[Row] = [row for row in table if not row.given]
        for name in (name for row in rows for name in row.names.split()):
            assert name not in seen
            seen.add(name)


def test_a_program_loses_what_only_its_start_needs():
    """The filter stacked before the exec: the leash, the group, signals to others, limits; and processes."""
    alone, with_others = (
        compile_policy("x86_64", profile="exec"),
        compile_policy("x86_64", profile="exec, processes"),
    )
    leash = profiles.PROGRAM_LEASH_FD
    for call, arguments in (
        ("close", (leash,)),
        ("dup", (leash,)),
        ("dup2", (0, leash)),
        ("dup3", (leash, 9, 0)),
        ("fcntl", (leash, 2, 1)),
        ("fcntl", (0, 8, 1)),
        ("close_range", (3, 9)),
        ("setpgid", ()),
        ("landlock_create_ruleset", ()),
        ("landlock_restrict_self", ()),
        ("prlimit64", (0, 7, 1)),
        ("clone", (profiles.VFORK_FLAGS,)),
        ("vfork", ()),
    ):
        where = {
            "number": number(call, "x86_64"),
            "architecture": ARCHITECTURES["x86_64"],
            "arguments": arguments,
        }
        assert verdict(alone.load, **where) == word(ALLOW), call
        assert verdict(alone.child, **where) != word(ALLOW), call
        starts_others = call in ("clone", "vfork")
        assert (verdict(with_others.child, **where) == word(ALLOW)) == starts_others, call
    for call, arguments in (("dup2", (0, 9)), ("close", (9,)), ("fcntl", (9, 2, 1)), ("execve", ())):
        got = verdict(
            alone.child,
            number=number(call, "x86_64"),
            architecture=ARCHITECTURES["x86_64"],
            arguments=arguments,
        )
        assert got == word(ALLOW), call
