"""Does each wall hold on this machine? Tried, not believed, before forkd starts.

A real zygote with the real policy forks real sandboxes, and each tries a denied act per layer. Because
seccomp stands before most of Landlock and the namespaces, a second zygote shows Landlock alone, and a
third the namespaces alone: otherwise a kernel without them would look just as safe. Where programs are run,
another starts a program, behind the wider filter that those have. (The limits of cgroups: cgroup_trial.py.)

    enforced     the act was tried and failed in the way that this wall makes it fail
    absent       the machine or the mode has no such wall
    failed       the wall should be there, and the act went through, or failed in another way
    unverified   it could not be tried
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import time
from pathlib import Path

from forkd.sandbox import cgroup_trial, landlock, launch
from forkd.sandbox import namespaces as namespaced
from forkd.sandbox.confine import AROUND, LAYERS
from forkd.sandbox.finding import ABSENT, ENFORCED, FAILED, UNVERIFIED, Finding
from forkd.sandbox.launch import ZygoteSpec
from forkd.sandbox.policy import Policy, PolicyError, compile_policy
from forkd.sandbox.trial import Run, Trial

__all__ = ["ABSENT", "ENFORCED", "FAILED", "PROGRAM", "REPORTED", "UNVERIFIED", "Finding", "examine", "run"]

REPORTED = (
    "seccomp",
    "no_new_privs",
    "rlimits",
    "cpu_timer",
    "leash",
    "files",
    "landlock",
    "network",
    "signals",
    "uid",
    "non_dumpable",
    "empty_environment",
    "namespaces",
    "cgroup",
)
"""Every layer this self-test reports on, in the order shown to the admin."""
PROGRAM = "program"
"""The row of the exec profile, behind those: asked for where a program is configured."""

_MEMORY, _CPU_S, _OPEN_FILES = 16 << 20, 0.15, 16
"""Of processor time the acts take 11 ms at most (hoarding memory), on the machine where this was written."""
_PROGRAM_MEMORY = 4 * _MEMORY
"""For the interpreter too: a program's exec begins with nothing."""
_TRIES = Path(__file__).with_name("tries.py")
_FORBIDDEN_FILE = "/etc/passwd"
"""World-readable on every system: only a wall of ours can refuse it."""
_ENVIRONMENT = frozenset({"LD_BIND_NOW", "LD_ORIGIN_PATH", "TZ", "LC_CTYPE"})
"""LC_CTYPE is set by the interpreter itself (PEP 538)."""


def run(*, uid: int | None = None, gid: int | None = None, start_timeout_s: float = 30.0) -> dict[str, str]:
    """Layer -> enforced | absent | failed | unverified, for every layer of REPORTED.

    uid, gid   what a plugin would get; None: as we are.
    Blocks for about 0.3 seconds. Never raises for a wall: what goes wrong is `failed`.
    """
    return {
        finding.layer: finding.result
        for finding in examine(uid=uid, gid=gid, start_timeout_s=start_timeout_s)
    }


def examine(
    *,
    uid: int | None = None,
    gid: int | None = None,
    start_timeout_s: float = 30.0,
    layers: tuple[str, ...] = LAYERS,
    programs: bool = False,
    namespaces: bool = True,
    cgroup: bool = True,
) -> list[Finding]:
    """run(), with what was seen. `layers` less than all of them is for testing the test.

    programs   try the walls of programs too, and report on PROGRAM: 0.06 seconds more.
    namespaces, cgroup   as zygotes are given them (ZygoteSpec).
    """
    try:
        policy = compile_policy()
    except PolicyError as error:
        return [Finding(layer, FAILED, str(error)) for layer in REPORTED]
    found = {"cgroup": cgroup_trial.examine() if cgroup else Finding("cgroup", ABSENT, _OFF)}
    try:
        whole = _probe(policy, uid=uid, gid=gid, layers=layers, namespaces=namespaces)
        with Trial(whole, timeout_s=start_timeout_s) as trial:
            _walls(trial, uid, found)
        bare = tuple(layer for layer in layers if layer not in ("seccomp", *AROUND))
        with Trial(_probe(policy, uid=None, gid=None, layers=bare), timeout_s=start_timeout_s) as trial:
            _landlock(trial, found)
        possible = namespaced.possible()
        if not namespaces or not possible.names:
            found["namespaces"] = Finding("namespaces", ABSENT, possible.reasons() if namespaces else _OFF)
        else:
            bare = tuple(layer for layer in layers if layer not in _BEFORE_NAMESPACES)
            with Trial(dataclasses.replace(whole, layers=bare), timeout_s=start_timeout_s) as trial:
                _namespaces(trial, possible, found)
    except (OSError, launch.LaunchError, EOFError) as error:
        for layer in REPORTED:
            found.setdefault(layer, Finding(layer, FAILED, f"no sandbox: {error}"))
    if programs:
        try:
            spec = _program_spec(uid=uid, gid=gid, layers=layers, namespaces=namespaces)
            with Trial(spec, timeout_s=start_timeout_s) as trial:
                _program(trial, found)
        except (OSError, launch.LaunchError, EOFError, PolicyError) as error:
            found[PROGRAM] = Finding(PROGRAM, FAILED, f"no program: {error}")
    reported = (*REPORTED, PROGRAM) if programs else REPORTED
    return [found.get(layer, Finding(layer, UNVERIFIED)) for layer in reported]


_OFF = "switched off in the configuration"
_BEFORE_NAMESPACES = ("seccomp", "files", "network", "signals")
"""Layers that would refuse first what namespaces make impossible."""


def _probe(
    policy: Policy, *, uid: int | None, gid: int | None, layers: tuple[str, ...], namespaces: bool = True
) -> ZygoteSpec:
    return ZygoteSpec(
        name="selftest",
        policy=policy,
        memory=_MEMORY,
        cpu_s=_CPU_S,
        open_files=_OPEN_FILES,
        sandboxes=16,
        uid=uid,
        gid=gid,
        kind="probe",
        layers=layers,
        namespaces=namespaces,
    )


def _walls(trial: Trial, uid: int | None, found: dict[str, Finding]) -> None:
    """What all walls together show."""
    first, second, spinning, leashed = trial.sandboxes(4)
    spinning.send("spin")
    leashed.send("spin")
    expect = _Expectations(found)
    expect.all(
        "seccomp",
        ("socket", first.act("socket"), "EACCES"),
        ("fork", first.act("fork"), "EPERM"),
        ("ptrace", second.act("ptrace"), "died: SIGSYS"),
    )
    # Now: long before it has burnt what the timer allows, which would end it the same way.
    started = time.monotonic()
    leashed.close()
    ended = leashed.end()
    detail = ended if time.monotonic() - started < 1.0 else "late"
    expect.all("leash", ("spinning", detail, "died: SIGKILL"))
    expect.all(
        "rlimits",
        ("memory", first.act("hoard memory"), "MemoryError"),
        ("files", first.act("hoard files", _OPEN_FILES), "EMFILE"),
    )
    by = [*(["private mount root"] if trial.process.mount_root else [])]
    by += ["Landlock"] if landlock.abi() >= 1 else []
    if not by:
        found["files"] = Finding("files", ABSENT, "no Landlock in this kernel, and no private mount root")
    else:
        expect.all(
            "files",
            ("own file", first.act("read own file"), "done"),
            ("other file", first.act("read", _FORBIDDEN_FILE), _refusal(trial)),
            note=" and ".join(by),
        )
    environment = set(first.act("environment").split()) - _ENVIRONMENT
    expect.all("empty_environment", ("variables", " ".join(sorted(environment)), ""))
    if uid is None:
        found["uid"] = Finding("uid", ABSENT, "plugins share our uid")
    else:
        expect.all("uid", ("uid", first.act("uid"), str(uid)))
    expect.all("cpu_timer", ("spinning", spinning.end(), "died: SIGKILL"))


def _refusal(trial: Trial) -> str:
    """How a file fails that was not granted: it is not there, or may not be opened."""
    return "ENOENT" if trial.process.mount_root else "EACCES"


def _namespaces(trial: Trial, possible: namespaced.Possible, found: dict[str, Finding]) -> None:
    """What namespaces show when nothing stands before them. The trial itself has looked from outside too."""
    sandbox = trial.sandboxes(1)[0]
    acts = []
    if "pid" in possible.names:
        acts.append(("parent", sandbox.act("parent"), "1"))
    if "net" in possible.names:
        with socket.create_server(("127.0.0.1", 0)) as server:
            acts.append(("TCP", sandbox.act("connect", server.getsockname()[1]), "ENETUNREACH"))
    if possible.mount_root:
        acts.append(("other file", sandbox.act("look", _FORBIDDEN_FILE), "ENOENT"))
    _Expectations(found).all("namespaces", *acts)
    if found["namespaces"].result == ENFORCED and not (possible.whole and possible.mount_root):
        have = ", ".join(possible.names)
        found["namespaces"] = Finding("namespaces", ABSENT, f"only {have}; {possible.reasons()}")


def _landlock(trial: Trial, found: dict[str, Finding]) -> None:
    """What Landlock and the flags of the process show when seccomp does not stand before them."""
    sandbox = trial.sandboxes(1)[0]
    expect = _Expectations(found)
    expect.all("no_new_privs", ("flag", sandbox.act("no_new_privs"), "1"))
    expect.all("non_dumpable", ("flag", sandbox.act("dumpable"), "0"))
    abi = landlock.abi()
    needs = {"landlock": 1, "network": 4, "signals": 6}
    for layer, need in needs.items():
        if abi < need:
            found[layer] = Finding(layer, ABSENT, f"Landlock ABI {abi}, needs {need}")
    if abi >= needs["landlock"]:
        expect.all("landlock", ("other file", sandbox.act("read", _FORBIDDEN_FILE), "EACCES"))
    if abi >= needs["network"]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            expect.all("network", ("TCP", sandbox.act("connect", server.getsockname()[1]), "EACCES"))
    if abi >= needs["signals"]:
        name = f"forkd-selftest-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("\0" + name)
            server.listen()
            expect.all(
                "signals",
                ("signal", sandbox.act("signal", os.getpid()), "EPERM"),
                ("abstract socket", sandbox.act("connect abstract", name), "EPERM"),
            )


_REFUSED = {
    "environment": "LC_ALL PATH",
    "other file": "EACCES",
    "writing": "EACCES",
    "other program": "EACCES",
    "another run": "EACCES",
    "socket": "EACCES",
    "fork": "EPERM",
    "group": "EPERM",
    "disarming": "EPERM",
    "memory": "MemoryError",
    "files": "EMFILE",
}
"""Act of tries.py -> how it fails."""
_UNWRITABLE = ("EACCES", "ENOENT", "EROFS")
"""A mount root may have a /tmp, where something in there is to be read."""
_BY_FILES = ("other file", "writing", "other program", "another run")
_UNREACHABLE = ("EACCES", "ENOENT")
"""/proc may hide who cannot be looked into, or not be there."""
_TOGETHER = "without Landlock and a private mount root, runs at the same time can reach each other"


def _program_spec(
    *, uid: int | None, gid: int | None, layers: tuple[str, ...], namespaces: bool
) -> ZygoteSpec:
    policy = compile_policy(profile="exec")
    return dataclasses.replace(
        _probe(policy, uid=uid, gid=gid, layers=layers, namespaces=namespaces),
        kind="program",
        argv=(sys.executable, "-IS", str(_TRIES), _FORBIDDEN_FILE, str(_OPEN_FILES), str(_PROGRAM_MEMORY)),
        files=(_TRIES, Path(os.__file__).parent),
        memory=_PROGRAM_MEMORY,
    )


def _program(trial: Trial, found: dict[str, Finding]) -> None:
    """What a program meets that is started as the profile exec starts it."""
    with Run(trial) as run:
        said = run.told(1)
        if not isinstance(said, dict) or not said:
            found[PROGRAM] = Finding(PROGRAM, FAILED, f"the program said: {said or 'nothing'}")
            return
        with Run(trial, b"FIRST_RUN=%s\0" % said.pop("in proc", "").encode()) as second:
            reached = second.told(2)
            said |= reached if isinstance(reached, dict) else {"another run": reached}
        run.drop_leash()
        note = ""
        refused = _REFUSED | dict.fromkeys(_BY_FILES, _refusal(trial))
        if landlock.abi() < 1 and not trial.process.mount_root:  # the layer `files` says so
            said |= {act: refused[act] for act in _BY_FILES}
            note = _TOGETHER
        if said.get("writing") in _UNWRITABLE:
            said["writing"] = refused["writing"]
        if said.get("another run") in _UNREACHABLE:
            said["another run"] = refused["another run"]
        acts = [(act, said.get(act, ""), expected) for act, expected in refused.items()]
        _Expectations(found).all(PROGRAM, *acts, ("leash", run.end(), "died: SIGKILL"), note=note)


class _Expectations:
    def __init__(self, found: dict[str, Finding]) -> None:
        self._found = found

    def all(self, layer: str, *acts: tuple[str, str, str], note: str = "") -> None:
        """Enforced when every act (name, seen, expected) went as expected; then `note` is the detail."""
        wrong = [
            f"{name}: {seen or 'nothing'}, not {expected}"
            for name, seen, expected in acts
            if seen != expected
        ]
        self._found[layer] = Finding(layer, FAILED if wrong else ENFORCED, "; ".join(wrong) or note)
