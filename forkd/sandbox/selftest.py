"""Does each wall hold on this machine? Tried, not believed, before forkd starts.

A real zygote with the real policy forks real sandboxes, and each tries a denied act per layer. Because
seccomp stands before most of Landlock, a second zygote without seccomp shows Landlock alone: otherwise
a kernel without it would look just as safe.

    enforced     the act was tried and failed in the way that this wall makes it fail
    absent       the machine or the mode has no such wall
    failed       the wall should be there, and the act went through, or failed in another way
    unverified   it could not be tried
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import tempfile
import time
from typing import Any

from forkd.sandbox import launch, wire
from forkd.sandbox.confine import LAYERS, landlock_abi
from forkd.sandbox.launch import ZygoteProcess, ZygoteSpec
from forkd.sandbox.link import Link
from forkd.sandbox.policy import Policy, PolicyError, compile_policy
from forkd.sandbox.report import status_text
from forkd.sandbox.wire import Death

ENFORCED, ABSENT, FAILED, UNVERIFIED = "enforced", "absent", "failed", "unverified"
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
)
"""Every layer the self-test reports on, in the order shown to the admin."""

_MEMORY, _CPU_S, _OPEN_FILES = 16 << 20, 0.25, 16
_FORBIDDEN_FILE = "/etc/passwd"
"""World-readable on every system: only a wall of ours can refuse it."""
_ENVIRONMENT = frozenset({"LD_BIND_NOW", "TZ", "LC_CTYPE"})
"""LC_CTYPE is set by the interpreter itself (PEP 538)."""
_ACT_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One layer's result; `detail` says what was seen where it is not enforced."""

    layer: str
    result: str
    detail: str = ""


def run(*, uid: int | None = None, gid: int | None = None, start_timeout_s: float = 30.0) -> dict[str, str]:
    """Layer -> enforced | absent | failed | unverified, for every layer of REPORTED.

    uid, gid   what a plugin would get; None: as we are.
    Blocks for about half a second. Never raises for a wall: what goes wrong is `failed`.
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
) -> list[Finding]:
    """run(), with what was seen. `layers` less than all of them is for testing the test."""
    try:
        policy = compile_policy()
    except PolicyError as error:
        return [Finding(layer, FAILED, str(error)) for layer in REPORTED]
    found: dict[str, Finding] = {}
    try:
        with _Bench(policy, uid=uid, gid=gid, layers=layers, timeout_s=start_timeout_s) as bench:
            _walls(bench, uid, found)
        bare = tuple(layer for layer in layers if layer != "seccomp")
        with _Bench(policy, uid=None, gid=None, layers=bare, timeout_s=start_timeout_s) as bench:
            _landlock(bench, found)
    except (OSError, launch.LaunchError, EOFError) as error:
        for layer in REPORTED:
            found.setdefault(layer, Finding(layer, FAILED, f"no sandbox: {error}"))
    return [found.get(layer, Finding(layer, UNVERIFIED)) for layer in REPORTED]


def _walls(bench: _Bench, uid: int | None, found: dict[str, Finding]) -> None:
    """What all walls together show."""
    first, second, spinning, leashed = bench.sandboxes(4)
    spinning.send("spin")
    leashed.send("spin")
    expect = _Expectations(found)
    expect.all(
        "seccomp",
        ("socket", first.act("socket"), "EACCES"),
        ("fork", first.act("fork"), "EPERM"),
        ("ptrace", second.act("ptrace"), "died: SIGSYS"),
    )
    expect.all(
        "rlimits",
        ("memory", first.act("hoard memory"), "MemoryError"),
        ("files", first.act("hoard files", _OPEN_FILES), "EMFILE"),
    )
    abi = landlock_abi()
    if abi < 1:
        found["files"] = Finding("files", ABSENT, "no Landlock in this kernel")
    else:
        expect.all(
            "files",
            ("own file", first.act("read own file"), "done"),
            ("other file", first.act("read", _FORBIDDEN_FILE), "EACCES"),
        )
    environment = set(first.act("environment").split()) - _ENVIRONMENT
    expect.all("empty_environment", ("variables", " ".join(sorted(environment)), ""))
    if uid is None:
        found["uid"] = Finding("uid", ABSENT, "plugins share our uid")
    else:
        expect.all("uid", ("uid", first.act("uid"), str(uid)))
    expect.all("cpu_timer", ("spinning", spinning.end(), "died: SIGKILL"))
    # It has burnt next to nothing yet when the timer's victim is gone: both began together.
    started = time.monotonic()
    leashed.close()
    ended = leashed.end()
    detail = ended if time.monotonic() - started < 1.0 else "late"
    expect.all("leash", ("spinning", detail, "died: SIGKILL"))


def _landlock(bench: _Bench, found: dict[str, Finding]) -> None:
    """What Landlock and the flags of the process show when seccomp does not stand before them."""
    sandbox = bench.sandboxes(1)[0]
    expect = _Expectations(found)
    expect.all("no_new_privs", ("flag", sandbox.act("no_new_privs"), "1"))
    expect.all("non_dumpable", ("flag", sandbox.act("dumpable"), "0"))
    abi = landlock_abi()
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


class _Expectations:
    def __init__(self, found: dict[str, Finding]) -> None:
        self._found = found

    def all(self, layer: str, *acts: tuple[str, str, str]) -> None:
        """Enforced when every act (name, seen, expected) went as expected."""
        wrong = [
            f"{name}: {seen or 'nothing'}, not {expected}"
            for name, seen, expected in acts
            if seen != expected
        ]
        self._found[layer] = Finding(layer, FAILED if wrong else ENFORCED, "; ".join(wrong))


class _Bench:
    """A probe zygote with a connection to it, for as long as the context lasts."""

    def __init__(
        self, policy: Policy, *, uid: int | None, gid: int | None, layers: tuple[str, ...], timeout_s: float
    ) -> None:
        self._spec = ZygoteSpec(
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
        )
        self._timeout_s = timeout_s
        self._stack = contextlib.ExitStack()
        self._deaths: dict[int, Death] = {}
        self._ids = 0

    def __enter__(self) -> _Bench:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="forkd-selftest-"))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listener.bind(f"{folder}/zygote.sock")
            listener.listen(4)
            process = launch.launch(self._spec, listener=listener)
            stack.callback(_end, process)
            _wait_ready(process, self._timeout_s)
            problems = launch.verify(process.pid, layers=self._spec.layers)
            if problems:
                raise launch.LaunchError("; ".join(problems))
            self._link = Link(f"{folder}/zygote.sock")
            stack.callback(self._link.drop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sandboxes(self, count: int) -> list[_Probe]:
        """Fresh sandboxes."""
        probes = []
        for _ in range(count):
            self._ids += 1
            probe = _Probe(self, self._ids)
            self._stack.callback(probe.close)
            self._link.ask(probe)
            probes.append(probe)
        self._link.flush()
        return probes

    def death(self, id_: int) -> Death | None:
        """How sandbox `id_` ended, waiting for it; None: it still lives."""
        until = time.monotonic() + _ACT_S
        while id_ not in self._deaths:
            if not _readable(self._link.fd, until):
                return None
            for death in self._link.receive() or ():
                self._deaths[death.id] = death
        return self._deaths[id_]


class _Probe:
    """One sandbox of the bench."""

    def __init__(self, bench: _Bench, id_: int) -> None:
        self.id = id_
        self._bench = bench
        self._channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        leash, self._leash = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.theirs = (channel.detach(), leash, null)

    def send(self, act: str, argument: Any = None) -> None:
        """Let it act."""
        self._channel.send(json.dumps({"n": 1, "act": act, "argument": argument}).encode())

    def act(self, act: str, argument: Any = None) -> str:
        """Let it act; what came of it, or `died: …`."""
        with contextlib.suppress(BrokenPipeError):
            self.send(act, argument)
            if not _readable(self._channel.fileno(), time.monotonic() + _ACT_S):
                return "no answer"
            answer = self._channel.recv(wire.MAX_FRAME_BYTES)
            if answer:
                return str(json.loads(answer)["result"])
        return self.end()

    def end(self) -> str:
        """How it ended, waiting for that."""
        death = self._bench.death(self.id)
        return "lives" if death is None else f"died: {status_text(death)}"

    def close(self) -> None:
        """Drop the leash."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
            self._channel.close()


def _readable(fd: int, until: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def _wait_ready(process: ZygoteProcess, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while True:
        if not _readable(process.control.fileno(), until):
            raise launch.LaunchError(f"the probe was not ready within {timeout_s:g} s")
        try:
            message = launch.read_control(process)
        except EOFError:
            raise launch.LaunchError(f"the probe died: {_said(process)}") from None
        if isinstance(message, launch.Failed):
            raise launch.LaunchError(message.error)
        if message is not None:
            return


def _said(process: ZygoteProcess) -> str:
    with contextlib.suppress(BlockingIOError):
        return os.read(process.output, 4096).decode("utf-8", "backslashreplace").strip()
    return "nothing said"


def _end(process: ZygoteProcess) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    process.close()
