"""How is one hostile plugin tried? In a real sandbox, a control session beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forkd.rpc.calls import Answer, CallFailed
from forkd.sandbox import launch
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.held import Sandbox
from tests.escapes import native
from tests.support.sandboxes import ROOT, Stage, StartFailed, as_mode, greet, mail, stage, text_of
from tests.support.waiting import wait_for
from tests.support.walls import OFF_BY_MODE, WALLS

PATIENT = {"cpu_s": 300.0}
"""Of an attack that says nothing else: its CPU timer must not do what its row says that something else does.
However busy the machine is, and with that wall left out (mutations.py) it shows."""
GONE_S = 0.5
"""A sandbox whose leash was dropped is gone within 10 ms (sandbox.md, "Life"), here with slack."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """One act and how it must fail. `code` defines attack(argument), whose text is the answer.

    name       its number in the list of attacks, or a range of numbers, then what is tried.
    by         what stops it: any of these does. Of walls (support/walls.py, WALLS, and those of
               mutations.py) a test switches all of them off and must see it go otherwise. Else "process":
               the kernel ends it, and it alone; "worker", "master": they see through it;
               "interpreter": Python does.
    only       walls that are up, no others; empty: all of them. So one layer shows what it does alone.
    arguments  one attempt for each, in a sandbox of its own; all must fail alike.
    says       pattern of the attack's own account of how it failed; it answered and lives.
    fails      cause and pattern of the detail: the call brought no answer, the sandbox is gone. With `says`
               as well: either.
    refused    pattern of how the zygote ended that should have loaded it.
    status     pattern of the dead sandbox's status as reported; left out: not looked at.
    cpu_s      most processor time it may have used; 0: not looked at.
    otherwise  wall -> another `says` in modes without it: the second layer's answer.
    modes      in which it is tried; empty: all, but those without any of its walls (`by`).
    native     acts.c is compiled, and put beside the plugin as acts.so.
    libraries  other C sources, by the name of the shared object.
    """

    name: str
    code: str
    by: tuple[str, ...]
    only: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ("a",)
    says: str = ""
    fails: tuple[str, str] | None = None
    refused: str = ""
    status: str = ""
    cpu_s: float = 0
    otherwise: Mapping[str, str] = dataclasses.field(default_factory=dict)
    modes: tuple[str, ...] = ()
    timeout_s: float = 5.0
    spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    host: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    native: bool = False
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def numbers(self) -> range:
        """Of the list of attacks."""
        first, _, last = self.name.split()[0].partition("-")
        return range(int(first), int(last or first) + 1)

    def off(self, mode: str) -> frozenset[str]:
        """Walls that are not up when it is tried as `mode`."""
        off = OFF_BY_MODE.get(mode, frozenset())
        return off | (WALLS - frozenset(self.only) if self.only else frozenset())

    def possible(self, mode: str) -> bool:
        """Is there anything in `mode` that should stop it?"""
        if self.modes and not mode.startswith(self.modes):
            return False
        return bool(self.stops(mode))

    def stops(self, mode: str) -> frozenset[str]:
        """Of `by`, what there is in `mode`."""
        return (
            frozenset(self.by)
            - self.off(mode)
            - (set() if mode.startswith(ROOT) else {"uid", "no_new_privs"})
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How it failed, in words for a table."""

    how: str


def perform(attack: Attack, mode: str, *, off: frozenset[str] = frozenset()) -> Outcome:
    """Try it as `mode`; every claim of the group's docstring is asserted here.

    off  walls left out beside those of the mode: for tests that must see it fail.
    """
    return as_mode(mode, lambda: _perform(attack, mode, off | attack.off(mode)))


def _perform(attack: Attack, mode: str, off: frozenset[str]) -> Outcome:
    compiled = {name: native.shared_object(source) for name, source in attack.libraries.items()}
    files = dict(attack.files) | compiled
    if attack.native:
        files["acts.so"] = native.acts()
    with stage(mode, off=off) as st:
        if attack.refused:
            return _refused(attack, st, files)
        st.start(attack.code, files=files, **(PATIENT | dict(attack.spec)))
        before = sorted(path.name for path in st.folder.rglob("*"))
        said: set[str] = set()

        async def scenario(st: Stage) -> None:
            control = await st.host.take("plugin", "control")
            answers = 1
            await greet(control, answers)
            for argument in attack.arguments:
                victim = await st.host.take("plugin", "victim")
                act = asyncio.ensure_future(mail(victim, argument, timeout_s=attack.timeout_s))
                await greet(control, answers + 1)
                outcome = (await asyncio.gather(act, return_exceptions=True))[0]
                answers += 2
                await greet(control, answers)
                victim.close()
                await _gone(victim.pid)
                if isinstance(outcome, CallFailed):
                    outcome = await _as_logged(outcome, victim)
                said.add(_check(attack, mode, (outcome, argument, victim.last_output)))
            later = await st.host.take("plugin", "later")
            await greet(later, 1)
            await greet(control, answers + 1)
            later.close()
            control.close()
            await _reported(attack, st)

        st.run(scenario, **(PATIENT | dict(attack.host)))
        assert sorted(path.name for path in st.folder.rglob("*")) == before, "files left"
        if not off & {"seccomp", "rlimits", "non_dumpable"}:
            _as_before(st, [layer for layer in LAYERS if layer not in off])
    return Outcome("; ".join(sorted(said)))


def _as_before(st: Stage, layers: list[str]) -> None:
    """Its zygote looks as any other. While it forks the last spare it does not: it holds that one's pipes."""
    until = time.monotonic() + 2
    while problems := launch.look(st.zygote, layers=layers).problems:
        assert time.monotonic() < until, f"the zygote is another afterwards: {problems}"
        time.sleep(0.002)


def _refused(attack: Attack, st: Stage, files: dict[str, bytes]) -> Outcome:
    try:
        st.start(attack.code, files=files, **attack.spec)
    except (StartFailed, launch.LaunchError) as failed:
        found = re.search(attack.refused, str(failed))
        assert found, f"not {attack.refused!r}: {failed}"
        assert wait_for(lambda: st.processes() == [], timeout_s=5)
        return Outcome(f"not loaded: {found[0]}")
    raise AssertionError("it was loaded")


def _check(attack: Attack, mode: str, seen: tuple[object, str, str]) -> str:
    """The outcome is as claimed; in words."""
    outcome, _, last_output = seen
    if isinstance(outcome, Answer):
        said = text_of(outcome)
        expected = next(
            (attack.otherwise[key] for key in sorted(OFF_BY_MODE.get(mode, ())) if key in attack.otherwise),
            attack.says,
        )
        assert expected, f"it answered: {seen}"
        assert re.fullmatch(expected, said), f"not {expected!r}: {seen}"
        return said
    assert isinstance(outcome, CallFailed), seen
    assert attack.fails is not None, seen
    cause, detail = attack.fails
    assert outcome.cause == cause, f"{seen} {last_output}"
    found = re.search(detail, outcome.detail)
    assert found, f"not {detail!r}: {seen}"
    return f"{cause}: {found[0]}"


async def _as_logged(failed: CallFailed, victim: Sandbox) -> CallFailed:
    """The cause that the log names (worker/failures.py): the zygote's word, where it came late."""
    ended = await victim.last_report()
    return CallFailed(ended.cause, ended.detail) if ended is not None and ended.cause else failed


async def _gone(pid: int) -> None:
    """Dead, or a zombie on its way to be reaped, soon after its leash was dropped."""
    until = asyncio.get_running_loop().time() + GONE_S
    while pid and _runs(pid):
        assert asyncio.get_running_loop().time() < until, f"pid {pid} outlives its leash"
        await asyncio.sleep(0.002)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def _reported(attack: Attack, st: Stage) -> None:
    """The zygote's word on each dead sandbox: how it ended, what it used."""
    if not attack.status and not attack.cpu_s:
        return
    until = asyncio.get_running_loop().time() + 5
    while len(found := [r for r in st.reports if r.session == "victim"]) < len(attack.arguments):
        assert asyncio.get_running_loop().time() < until, "no report on the dead sandbox"
        await asyncio.sleep(0.002)
    for report in found:
        assert re.fullmatch(attack.status or ".*", report.status), found
        assert not attack.cpu_s or report.user_s + report.system_s < attack.cpu_s, found


def arguments(*names: str) -> tuple[str, ...]:
    """Names of system calls that this machine has."""
    from tests.support.sandboxes import NUMBERS

    return tuple(name for name in names if name in NUMBERS)
