"""How does the self-test get something to act behind the walls? A throw-away zygote, and what it forks.

Blocking, unlike a worker's side (host.py): the self-test runs before there is anything to wait beside.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import tempfile
import time
from typing import Any

from forkd.sandbox import launch, wire
from forkd.sandbox.launch import ZygoteProcess, ZygoteSpec
from forkd.sandbox.link import Link
from forkd.sandbox.report import status_text
from forkd.sandbox.wire import Death

_ACT_S = 5.0


class Trial:
    """A zygote with a connection to it, for as long as the context lasts."""

    def __init__(self, spec: ZygoteSpec, *, timeout_s: float) -> None:
        self._spec = spec
        self._timeout_s = timeout_s
        self.process: ZygoteProcess
        self._stack = contextlib.ExitStack()
        self._deaths: dict[int, Death] = {}
        self._ids = 0

    def __enter__(self) -> Trial:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="forkd-selftest-"))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            listener.bind(f"{folder}/zygote.sock")
            listener.listen(4)
            process = launch.launch(self._spec, listener=listener)
            stack.callback(_end, process)
            _wait_ready(process, self._timeout_s)
            self.process = process
            if problems := launch.look(process, layers=self._spec.layers).problems:
                raise launch.LaunchError("; ".join(problems))
            launch.ask(process, 1)
            self._link = Link(f"{folder}/zygote.sock")
            stack.callback(self._link.drop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sandboxes(self, count: int) -> list[Probe]:
        """Fresh sandboxes."""
        probes = []
        for _ in range(count):
            self._ids += 1
            probe = Probe(self, self._ids)
            self._stack.callback(probe.close)
            self._link.ask(probe)
            probes.append(probe)
        self._link.flush()
        return probes

    def run(self, descriptors: tuple[int, int], environment: bytes) -> int:
        """Start the program of a trial whose kind is program: leash and output are its; returns its id.

        environment  entries NAME=value, each with a NUL behind it.
        """
        self._ids += 1
        variables = os.memfd_create("environment", os.MFD_CLOEXEC)
        try:
            os.write(variables, environment)
            if not self._link.send(wire.pack_run(wire.Run(self._ids, ())), (*descriptors, variables)):
                raise launch.LaunchError("the zygote does not read")
        finally:
            os.close(variables)
        return self._ids

    def end(self, id_: int) -> str:
        """How sandbox `id_` ended, waiting for it: `died: …`, or `lives`."""
        until = time.monotonic() + _ACT_S
        while id_ not in self._deaths:
            if not _readable(self._link.fd, until):
                return "lives"
            for death in self._link.receive() or ():
                self._deaths[death.id] = death
        return f"died: {status_text(self._deaths[id_])}"


class Probe:
    """One sandbox of the trial."""

    def __init__(self, trial: Trial, id_: int) -> None:
        self.id = id_
        self._trial = trial
        self._channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        leash, self._leash = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.theirs: tuple[int, ...] = (channel.detach(), leash, null)

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
        return self._trial.end(self.id)

    def close(self) -> None:
        """Drop the leash."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
            self._channel.close()


class Run:
    """One run of the trial's program, for as long as the context lasts."""

    def __init__(self, trial: Trial, environment: bytes = b"") -> None:
        self._trial = trial
        leash, self._leash = os.pipe2(os.O_CLOEXEC)
        self._output, output = os.pipe2(os.O_CLOEXEC)
        try:
            self._id = trial.run((leash, output), environment)
        finally:
            os.close(leash)
            os.close(output)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop_leash()
        os.close(self._output)

    def told(self, lines: int) -> dict[str, str] | str:
        """What it tells, so many lines of JSON; text where that is nothing of ours."""
        text = b""
        until = time.monotonic() + _ACT_S
        while text.count(b"\n") < lines and _readable(self._output, until):
            piece = os.read(self._output, 4096)
            if not piece:
                break
            text += piece
        try:
            told: dict[str, str] = {}
            for line in text.splitlines():
                told |= json.loads(line)
        except (ValueError, TypeError):
            return text[-200:].decode("utf-8", "backslashreplace").strip()
        return told

    def drop_leash(self) -> None:
        """As a worker ends a run."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def end(self) -> str:
        """As Probe.end()."""
        return self._trial.end(self._id)


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
