"""Which calls does a plugin's sandbox make that the walls refuse, and from which line? Learn mode.

For the author's kit only, never for mail. What the production filter does not allow at once waits for us
(learn_policy.py). We look it up in the same tables, note it with its arguments and the Python stack, and
answer what the tables say: the errno, the death, or that the kernel may go on. A decision looks at nothing
but the number and the registers; what pointers point to is read for showing only.

Once a sandbox has asked for its second filter, its calls are looked up in both tables. Opening files is
watched too, because Landlock refuses without a word: there we note what the kernel must have said.

Stacks: the waiting process gets a signal whose handler (faulthandler, in C) writes its stack to a socket
of ours; the kernel then starts the call again, and it is answered the second time. Where signals are
blocked (libc makes threads so) the call is answered at once, and the stack comes as soon as they are not. A
plugin that takes that signal away is shown without a stack.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
from pathlib import Path
from typing import Final

from forkd.sandbox import calls
from forkd.sandbox.launch import LaunchError
from forkd.sandbox.learn_policy import WATCHED, Tables
from forkd.sandbox.learner import STACK_SIGNAL
from forkd.sandbox.refusal import HARMLESS, Frame, Refusal
from forkd.sandbox.syscalls import ALLOW, KILL, Action

MAX_NOTED: Final = 500
"""Refusals that are noted; what comes after is answered and counted."""

_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC050_2100, 0xC018_2101
_GO_ON = 1
_READS, _MAX_TEXT_BYTES = 16, 262_144
"""At once, and kept, of what comes as stacks: a plugin can write there too, as much as it likes."""
_THERE, _WAITS, _LATER, _NEVER = "there", "waits", "later", "never"
"""Where is a call's stack? It has come; the call comes again when it has; it comes later; nowhere."""
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class _Notice:
    id: int
    pid: int
    number: int
    arguments: tuple[int, ...]


class Learner:
    """Answers the calls of one zygote and its sandboxes, and notes the refused ones.

    Not for threads: ready() is called by whoever waits for the listener.
    """

    def __init__(self, control: socket.socket, tables: Tables) -> None:
        self._control = control
        self._tables = tables
        self._noted: list[Refusal] = []
        self._socket: socket.socket | None = None
        self._text = b""
        """Stacks, as they were written."""
        self._listener = -1
        self._zygote = 0
        self._readable: tuple[Path, ...] = ()
        self._sandboxes: set[tuple[int, str]] = set()
        """Armed ones, by pid and time of start."""
        self._asked: dict[int, tuple[int, tuple[int, ...]]] = {}
        """Who was asked for a stack -> the call it waits in."""
        self._late: list[int] = []
        """Places of refusals whose stack is still to come."""
        self.left_out = 0

    def take_socket(self) -> bool:
        """The zygote's first word, on its control socket: False: it is not there yet. Raises LaunchError.

        Nothing of the plugin has run by then.
        """
        record, fd = _receive(self._control)
        if record is None:
            return False
        try:
            said = json.loads(record)
            if said["t"] == "failed":
                raise LaunchError(said["error"])
            self._zygote = int(said["pid"])
            self._readable = tuple(Path(os.path.realpath(path)) for path in said["readable"])
        except (ValueError, KeyError, TypeError) as error:
            raise LaunchError(f"the zygote spoke out of protocol: {record[:64]!r}") from error
        if fd < 0:
            raise LaunchError("the zygote sent no socket")
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        return True

    def take_listener(self) -> int:
        """The listener, the first thing on its socket; -1: not there yet. Raises LaunchError.

        A zygote that fails before says so on its control socket.
        """
        assert self._socket is not None
        record, fd = _receive(self._socket)
        if record is None:
            return -1
        if fd < 0:
            raise LaunchError(
                "no listener: another filter around us has one already (learn mode in learn mode)"
            )
        self._listener = fd
        return fd

    def refusals(self) -> list[Refusal]:
        """All so far, in their order."""
        self._take_late(self._dumps())
        return list(self._noted)

    def ask_where(self) -> bool:
        """Ask the zygote for its stack, where it would not die of that: it comes to the socket."""
        bit = 1 << STACK_SIGNAL - 1
        if not int(_status(self._zygote).get("SigCgt", "0"), 16) & bit:
            return False
        self._dumps()
        return int(_libc.tgkill(self._zygote, self._zygote, STACK_SIGNAL)) == 0

    def where(self) -> tuple[Frame, ...]:
        """The stack that was asked for; empty: it has not come."""
        dumps = self._dumps()
        return dumps[-1] if dumps else ()

    @property
    def socket_fd(self) -> int:
        """Where the listener comes, and then stacks."""
        return -1 if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Let go: calls that wait then, and later ones, get ENOSYS."""
        if self._listener >= 0:
            os.close(self._listener)
            self._listener = -1
        if self._socket is not None:
            self._socket.close()

    def ready(self) -> None:
        """The listener can be read: answer one call."""
        notice = self._next()
        if notice is None:
            return
        name = calls.name_of(notice.number)
        process = self._process(notice.pid)
        sandbox = process in self._sandboxes
        action = self._tables.decide(name, notice.arguments, sandbox=sandbox)
        if action == ALLOW:
            if name == "seccomp" and notice.pid != self._zygote:
                self._sandboxes.add(process)
            path = calls.path_of(name, notice.arguments, notice.pid) if name in WATCHED else ""
            if not path or self._may_read(path):
                self._answer(notice, go_on=True)
                return
        if len(self._noted) >= MAX_NOTED:
            self.left_out += 1
        elif self._asked.pop(notice.pid, None) == (notice.number, notice.arguments):
            self._note(notice, name, action, sandbox=sandbox, stack=_THERE)
        else:
            stack = self._ask_for_stack(notice)
            if stack is _WAITS:
                return
            self._note(notice, name, action, sandbox=sandbox, stack=stack)
        if action == ALLOW:
            self._answer(notice, go_on=True)
        elif action == KILL:
            self._kill(notice.pid)
        else:
            assert isinstance(action, int)
            self._answer(notice, error=action)

    def read_stacks(self) -> None:
        """The socket can be read. Whoever writes a deep stack waits for this."""
        with contextlib.suppress(OSError):
            for _ in range(_READS):
                piece = b"" if self._socket is None else self._socket.recv(65_536)
                self._text = (self._text + piece)[-_MAX_TEXT_BYTES:]
                if not piece:
                    return

    def _next(self) -> _Notice | None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        # Before Linux 6.11 the call below waits for ever where all whom the listener serves are dead.
        if not any(event & select.POLLIN for _, event in poll.poll(0)):
            return None
        buffer = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, buffer)
        except OSError:
            return None  # it was killed while it waited
        id_, pid, _, number, _, _, *arguments = _NOTICE.unpack(buffer)
        return _Notice(id_, pid, number, tuple(arguments))

    def _answer(self, notice: _Notice, *, error: int = 0, go_on: bool = False) -> None:
        answer = _ANSWER.pack(notice.id, 0, -error, _GO_ON if go_on else 0)
        with contextlib.suppress(OSError):  # it was killed meanwhile
            fcntl.ioctl(self._listener, _SEND, answer)

    def _process(self, pid: int) -> tuple[int, str]:
        """Whose thread is it: pid and time of start of the process."""
        process = (pid, _started(pid))
        if pid == self._zygote or process in self._sandboxes:
            return process
        group = int(_status(pid).get("Tgid", pid))
        return (group, _started(group))

    def _ask_for_stack(self, notice: _Notice) -> str:
        """Send the signal, where it would be caught."""
        if calls.name_of(notice.number) in HARMLESS:
            return _NEVER
        status = _status(notice.pid)
        bit = 1 << STACK_SIGNAL - 1
        if not int(status.get("SigCgt", "0"), 16) & bit:
            return _NEVER
        blocked = int(status.get("SigBlk", "0"), 16) & bit
        if not blocked:
            self._asked[notice.pid] = (notice.number, notice.arguments)
        if _libc.tgkill(int(status["Tgid"]), notice.pid, STACK_SIGNAL) < 0:
            return _NEVER
        return _LATER if blocked else _WAITS

    def _note(self, notice: _Notice, name: str, action: Action, *, sandbox: bool, stack: str) -> None:
        dumps = self._dumps()
        frames = dumps.pop() if dumps and stack is _THERE else ()
        self._take_late(dumps)
        result = "killed" if action == KILL else "EACCES" if action == ALLOW else errno.errorcode[int(action)]
        if stack is _LATER:
            self._late.append(len(self._noted))
        self._noted.append(
            Refusal(
                pid=notice.pid,
                name=name,
                text=calls.text_of(name, notice.arguments, notice.pid),
                result=result,
                loading=not sandbox,
                stack=frames,
                path=calls.path_of(name, notice.arguments, notice.pid),
            )
        )

    def _dumps(self) -> list[tuple[Frame, ...]]:
        """The stacks that have come, the oldest first."""
        self.read_stacks()
        text, self._text = self._text, b""
        dumps = text.decode("utf-8", "replace").split("Stack (most recent call first):")[1:]
        return [tuple(Frame(f, int(line), name) for f, line, name in _FRAME.findall(one)) for one in dumps]

    def _take_late(self, dumps: list[tuple[Frame, ...]]) -> None:
        """A stack that came late is that of all calls that waited for it: one signal was pending for all."""
        if dumps and self._late:
            for place in self._late:
                self._noted[place] = dataclasses.replace(self._noted[place], stack=dumps[0])
            self._late = []

    def _may_read(self, path: str) -> bool:
        """Would Landlock let it open this? What is not there is no refusal: the kernel says ENOENT first."""
        real = Path(os.path.realpath(path))
        return not real.exists() or any(real == root or root in real.parents for root in self._readable)

    def _kill(self, pid: int) -> None:
        """As the filter would: by SIGSYS; where that one would not end it, by SIGKILL.

        The filter's own asks nobody: ours would wait for ever with a plugin that blocks every signal.
        """
        status = _status(pid)
        kept_off = 0
        for name in ("SigCgt", "SigIgn", "SigBlk"):
            kept_off |= int(status.get(name, "0"), 16)
        which = signal.SIGKILL if kept_off & (1 << signal.SIGSYS - 1) else signal.SIGSYS
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(status.get("Tgid", pid)), which)


_libc = ctypes.CDLL(None, use_errno=True)


def _receive(channel: socket.socket) -> tuple[bytes | None, int]:
    """One record with at most one descriptor; None: nothing there yet. Raises LaunchError at its end."""
    try:
        record, fds, _, _ = socket.recv_fds(channel, 65_536, 1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None, -1
    except OSError as error:
        raise LaunchError("the zygote died") from error
    if not record:
        raise LaunchError("the zygote died")
    for fd in fds:
        os.set_inheritable(fd, False)
    return record, fds[0] if fds else -1


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
