"""How is a sandbox forked, and what does it do until its last answer?

This is the hot path of forkd: a sandbox costs its page faults, and every line here before the first
frame copies pages. So all arguments are made in the zygote (Armour), calls go through one function
object, and nothing is looked up, formatted or imported.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
from collections.abc import Callable

from forkd.sandbox import linux, wire
from forkd.sandbox.linux import NUMBER, syscall
from forkd.sandbox.wire import BROKER_FD, CHANNEL_FD, LEASH_FD, MAX_FRAME_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXIT_ARMING = 121
"""A wall of the sandbox could not be raised, or its worker was gone already."""
EXIT_ERROR = 122
"""The runner let something escape; it was answered as an error."""
EXIT_CHANNEL = 123
"""The channel broke: the worker went away."""

Handle = Callable[[bytes, int | None], bytes]
"""One frame and its message descriptor to one answer (forkd.sdk.runner.Runner.handle)."""

NICE = 10
"""Of a sandbox: whoever loops leaves its zygote and the workers nine tenths of the processor they share."""
_SIGKILL = 9
_POLL_IN = 1
_MESSAGE_FD_SPACE = 24
"""CMSG_SPACE of one descriptor."""


class Armour:
    """Everything a sandbox hands to the kernel, made once in the zygote and kept alive by this object."""

    def __init__(
        self,
        *,
        cpu_s: float,
        open_files: int,
        program: bytes,
        layers: frozenset[str],
        title: linux.Title,
        name: str,
        processes: int = 0,
        highest_fd: int = 0xFFFF_FFFF,
        broker: bool = False,
    ) -> None:
        """What every sandbox of this plugin is given.

        cpu_s: processor time until SIGKILL; program: the stacked filter; layers: as confine() has them;
        title: where ps looks; name: the plugin's; processes: RLIMIT_NPROC, for threads;
        highest_fd: what lies above stays open (learn mode);
        broker: it has a channel to the broker.
        """
        self.title, self.shown = title.prepare(f"forkd: sandbox {name}")
        null = ctypes.c_void_p(None)
        zero = ctypes.c_long(0)
        self._kept: list[object] = [null, zero]
        self.dup3 = NUMBER["dup3"]
        self.own = (NUMBER["fcntl"], linux.F_SETOWN)
        """With the leash, and the sandbox's pid: its owner. By the number that it came with: what will be
        LEASH_FD is the zygote's listening socket until then, of which nobody may become the owner."""
        self.frame = memoryview(bytearray(MAX_FRAME_BYTES))
        self.buffers = (self.frame,)
        """Where frames are received: a buffer made for each of them would be touched at both its ends."""
        steps: list[tuple[object, ...]] = [
            (
                NUMBER["close_range"],
                (BROKER_FD if broker else LEASH_FD) + 1,
                ctypes.c_ulong(highest_fd),
                zero,
            )
        ]
        self.lower = (NUMBER["setpriority"], zero, zero, ctypes.c_long(NICE))
        if "rlimits" in layers:
            whole, part = divmod(cpu_s, 1)
            timer = ctypes.c_int(0)
            event = linux.SignalEvent(0, _SIGKILL, 0, b"")
            value = linux.TimerValue(0, 0, int(whole), int(part * 1e9))
            steps += [
                (NUMBER["timer_create"], linux.CLOCK_PROCESS_CPUTIME_ID, self._at(event), self._at(timer)),
                (NUMBER["timer_settime"], timer, zero, self._at(value), null),
            ]
            # The timer is the limit; RLIMIT_CPU stands behind it in whole seconds.
            for resource, limit in (
                (linux.RLIMIT_CPU, int(cpu_s) + 2),
                (linux.RLIMIT_NOFILE, open_files),
                (linux.RLIMIT_NPROC, processes),
            ):
                steps.append((NUMBER["prlimit64"], zero, resource, self._at(linux.Limit(limit, limit)), null))
        if "seccomp" in layers:
            filter_ = linux.seccomp_filter(program)
            steps.append((NUMBER["seccomp"], linux.SECCOMP_SET_MODE_FILTER, zero, self._at(filter_)))
        self.steps = tuple(steps)
        leash = linux.PollEntry(LEASH_FD, _POLL_IN, 0)
        self.look = (NUMBER["ppoll"], self._at(leash), 1, self._at(linux.TimerValue(0, 0)), null, zero)
        """After arming: a leash dropped before that fired at nobody, so it is looked at once."""

    def _at(self, structure: Any) -> object:
        self._kept.append(structure)
        return ctypes.byref(structure)


class Forker:
    """Forks a Python plugin's sandboxes."""

    def __init__(self, spec: dict[str, Any], handle: Handle, *, control: Any, title: linux.Title) -> None:
        self.armour = Armour(  # also for what is tried in a throw-away sandbox (indimail_trial.py)
            cpu_s=spec["cpu_s"],
            open_files=spec["limits"]["open_files"],
            program=base64.b64decode(spec["child"]),
            layers=frozenset(spec["layers"]),
            title=title,
            name=spec["name"],
            processes=spec["limits"]["sandbox_processes"],
            highest_fd=spec.get("highest_fd", 0xFFFF_FFFF),
            broker="broker" in spec,
        )
        self._fds = wire.MOST_FDS_PER_SANDBOX if "broker" in spec else wire.FDS_PER_SANDBOX
        self._handle = handle
        self._channel = control
        random = sys.modules.get("random")
        self._reseed = random.seed if random is not None else None
        self._leash_signal = (NUMBER["fcntl"], linux.F_SETSIG, ctypes.c_long(_SIGKILL))
        self._leash_async = (NUMBER["fcntl"], linux.F_SETFL, ctypes.c_long(linux.O_ASYNC | os.O_RDWR))

    def fork(self, record: bytes, descriptors: list[int]) -> list[tuple[int, int]]:
        """As zygote.Forker."""
        ids = wire.unpack_fork(record)
        each_has = self._fds
        if len(descriptors) != each_has * len(ids):
            raise wire.WireError("descriptors are missing")
        # First what needs no new process: each line between two forks copies pages for both of them.
        own = []
        for at in range(0, len(descriptors), each_has):
            leash = descriptors[at + 1]
            number, command, value = self._leash_signal
            syscall(number, leash, command, value)
            number, command, value = self._leash_async
            syscall(number, leash, command, value)
            broker = descriptors[at + 3] if each_has > wire.FDS_PER_SANDBOX else -1
            own.append((descriptors[at], leash, descriptors[at + 2], broker))
        forked = []
        for id_, each in zip(ids, own, strict=True):
            pid = linux.fork()
            if pid == 0:
                serve(
                    each,
                    armour=self.armour,
                    channel=self._channel,
                    handle=self._handle,
                    reseed=self._reseed,
                )
            forked.append((id_, pid))
        return forked


def serve(
    descriptors: tuple[int, int, int, int],
    *,
    armour: Armour,
    channel: Any,
    handle: Handle,
    reseed: Callable[[], object] | None,
) -> None:
    """Become the sandbox and serve its calls; never returns.

    descriptors   channel, leash, output, channel to the broker (-1: none) as they came; every number is above
                  LEASH_FD, and that of the last above BROKER_FD: the zygote's own signalfd has that one.
    channel       a blocking socket object made in the zygote over CHANNEL_FD.
    reseed        random.seed where the plugin has random loaded: a raw fork skips Python's own hook,
                  and two sessions must not draw the same numbers.
    """
    # Everything by one way into the kernel: each further one (os.dup2, a ctypes object's setter) is
    # a dozen page faults.
    from_worker, leash, output, broker = descriptors
    dup3 = armour.dup3
    if (
        syscall(dup3, from_worker, CHANNEL_FD, 0) < 0
        or syscall(dup3, leash, LEASH_FD, 0) < 0
        or syscall(dup3, output, 1, 0) < 0
        or syscall(dup3, output, 2, 0) < 0
        or (broker >= 0 and syscall(dup3, broker, BROKER_FD, 0) < 0)
    ):
        os._exit(EXIT_ARMING)
    armour.title[:] = armour.shown
    fcntl, set_owner = armour.own
    if syscall(fcntl, leash, set_owner, os.getpid()) < 0:
        os._exit(EXIT_ARMING)
    syscall(*armour.lower)  # refused where it is lower already: by crowd.py, or forkd as a whole is nice
    for step in armour.steps:
        if syscall(*step) < 0:
            os._exit(EXIT_ARMING)
    if syscall(*armour.look):
        os._exit(EXIT_ARMING)
    if reseed is not None:
        reseed()
    frame = b""
    buffer = armour.frame
    receive = channel.recvmsg_into
    try:
        while True:
            size, passed, _, _ = receive(armour.buffers, _MESSAGE_FD_SPACE)
            if not size:
                os._exit(0)
            frame = bytes(buffer[:size])
            if passed:
                message = int.from_bytes(passed[0][2][:4], sys.byteorder)
                answer = handle(frame, message)
                os.close(message)
            else:
                answer = handle(frame, None)
            channel.send(answer)
    except OSError:
        os._exit(EXIT_CHANNEL)
    except BaseException as error:
        try:
            channel.send(_error(frame, error))
        finally:
            os._exit(EXIT_ERROR)


def _error(frame: bytes, error: BaseException) -> bytes:
    """The answer to a frame whose handling let `error` escape."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # __str__ is the plugin's code
        text = type(error).__name__
    return json.dumps({"n": json.loads(frame)["n"], "error": text[:1000]}).encode()
