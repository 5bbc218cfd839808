"""What may go on at once in learn mode, and what do the walls say of the rest? The policy, turned round.

The filter is the production one, turned round: what it allows at once is allowed, and every other call
waits for a listener (SECCOMP_RET_USER_NOTIF). The kernel takes one listener in a chain of filters, so a
sandbox' second filter is not loaded: what that one refuses waits as well, and Tables holds both in words.
"""

from __future__ import annotations

import errno
import struct
from typing import Final

from forkd.sandbox import policy
from forkd.sandbox.learner import LEARN_FD
from forkd.sandbox.policy import Policy
from forkd.sandbox.profiles import PROFILES
from forkd.sandbox.syscalls import ALLOW, INT, KILL, Action, Is, Row

WATCHED: Final = frozenset({"open", "openat"})
"""Allowed by the filter; Landlock may refuse them."""
_RET_NOTIFY, _RET_ALLOW, _RET_ERRNO = 0x7FC0_0000, 0x7FFF_0000, 0x0005_0000
_BPF_RET = 0x06
_INSTRUCTION = struct.Struct("=HBBI")

Rules = dict[str, list[tuple[Action, tuple[Is, ...]]]]


def learning_policy(profile: str = "pure") -> Policy:
    """The programs of learn mode for one of profiles.PROFILES. Raises PolicyError."""
    load, child = PROFILES[profile]
    own_load, own_child = PROFILES.get(f"{profile}, own uid", (load, child))
    return Policy(
        load=_program(load, child),
        child=_INSTRUCTION.pack(_BPF_RET, 0, 0, _RET_ALLOW),
        load_own_uid=_program(own_load, own_child),
    )


def _program(load: tuple[Row, ...], child: tuple[Row, ...]) -> bytes:
    """Allows what both tables allow, whatever the process is; every other call waits for the listener."""
    taken = _by_name(child)
    rows = [Row(ALLOW, "sendmsg", "hands the listener over", given=(Is(0, INT, LEARN_FD),))]
    for name, action, conditions in policy.rules(load):
        if action == ALLOW and name not in WATCHED:
            left = _without(conditions, [given for what, given in taken.get(name, ()) if what != ALLOW])
            rows += [Row(ALLOW, name, "", given=given) for given in left]
    return _turned(policy.compile_allowed(rows))


def _without(conditions: tuple[Is, ...], refused: list[tuple[Is, ...]]) -> list[tuple[Is, ...]]:
    """What of a rule is left without those: itself, itself but for one value, or nothing."""
    left = [conditions]
    for other in refused:
        if any(_apart(a, b) for a in conditions for b in other):
            continue
        if len(other) == 1 and other[0].mask and all(c.arg != other[0].arg for c in conditions):
            left = [(*given, *rest) for given in left for rest in policy.complement(other)]
        else:
            return []
    return left


def _apart(one: Is, other: Is) -> bool:
    """No call meets both."""
    both = one.mask & other.mask
    return one.arg == other.arg and bool((one.value ^ other.value) & both)


def _turned(program: bytes) -> bytes:
    """`program` with its default, ENOSYS, turned into a question."""
    default = _RET_ERRNO | errno.ENOSYS
    return b"".join(
        _INSTRUCTION.pack(code, jt, jf, _RET_NOTIFY if code == _BPF_RET and k == default else k)
        for code, jt, jf, k in _INSTRUCTION.iter_unpack(program)
    )


def _by_name(rows: tuple[Row, ...]) -> Rules:
    found: Rules = {}
    for name, action, conditions in policy.rules(rows):
        found.setdefault(name, []).append((action, conditions))
    return found


def _look_up(rules: Rules, name: str, arguments: tuple[int, ...], default: Action) -> Action:
    for action, conditions in rules.get(name, ()):
        if all(_holds(condition, arguments) for condition in conditions):
            return action
    return default


def _holds(condition: Is, arguments: tuple[int, ...]) -> bool:
    value = arguments[condition.arg]
    return value & condition.mask == condition.value if condition.mask else value != condition.value


class Tables:
    """What a zygote's and a sandbox' filter say, in words: the decision that learn mode takes over."""

    def __init__(self, profile: str, *, own_uid: bool) -> None:
        named = f"{profile}, own uid"
        load, child = PROFILES[named if own_uid and named in PROFILES else profile]
        self._load, self._child = _by_name(load), _by_name(child)

    def decide(self, name: str, arguments: tuple[int, ...], *, sandbox: bool) -> Action:
        """As the kernel would with both filters: the stricter answer, of two errnos the newer filter's."""
        load = _look_up(self._load, name, arguments, errno.ENOSYS)
        child = _look_up(self._child, name, arguments, ALLOW) if sandbox else ALLOW
        if KILL in (load, child):
            return KILL
        return load if child == ALLOW else child
