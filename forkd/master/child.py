"""How is a role's process made? Forked, with its own end of a channel and only what its row names."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable

from forkd import log
from forkd.exits import Exit
from forkd.master import privileges, signals
from forkd.master.errors import StartError
from forkd.master.privileges import Identity
from forkd.rpc import channel
from forkd.rpc.message import Message
from forkd.rpc.messages import AskStop, Blame, FromRole, Ready
from forkd.rpc.messages_pool import Heartbeat, Stop
from forkd.rpc.messages_reload import AskReload
from forkd.rpc.messages_status import AskStatus
from forkd.rpc.start import RoleStart
from forkd.sandbox import role_walls
from forkd.sandbox.role_walls import Walls

Main = Callable[[RoleStart], int]


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """It gives up before being ready: one line, and what a person needs to see, e.g. a traceback."""

    text: str
    detail: str = ""


Said = Ready | Heartbeat | Blame | AskStatus | AskStop | AskReload | Failed


@dataclasses.dataclass(slots=True, eq=False)
class Child:
    """A process of ours, as the supervisor sees it; zygote_child.py has the other kind.

    channel  master's end, non-blocking
    output   a pipe with its stdout and stderr, or -1
    reaped   it is dead, and its pid may be another's: nothing may be sent there any more
    """

    pid: int
    channel: socket.socket | None
    output: int = -1
    reaped: bool = False

    def hear(self, now: float) -> tuple[list[Said], bool]:  # noqa: ARG002 - zygote_child.py needs it
        """(what it said since the last time, it hung up). Raises BadRecord."""
        if self.channel is None:
            return [], True
        return channel.drain(self.channel, FromRole)

    def tell(self, message: Message) -> bool:
        """Say something to it now; false when it does not listen."""
        return self.channel is not None and channel.try_send(self.channel, message)

    def stop(self, limit_s: float | None, *, gently: bool = False) -> bool:
        """Ask it to end within that time (rpc.messages_pool.Stop). False: it does not read now, and has to be
        told again."""
        return self.channel is None or self.tell(Stop(deadline_s=limit_s, gently=gently))

    def kill(self) -> None:
        """SIGKILL; harmless when it is dead but not yet reaped (its pid is not free before that)."""
        if not self.reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give up channel and output."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        if self.output >= 0:
            os.close(self.output)
            self.output = -1


def load(main: str) -> Main:
    """Import a role's module and give its function: in master, so that its pages are shared. Raises
    StartError."""
    module, _, function = main.partition(":")
    try:
        found: Main = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise StartError(Exit.BUG, f"{main} cannot be imported: {error}") from error
    return found


def fork(
    main: Main,
    make_start: Callable[[socket.socket], RoleStart],
    identity: Identity | None,
    walls: Walls | None = None,
    *,
    may_gain: bool = False,
) -> Child:
    """Fork a process that runs `main(make_start(its end of the channel))` and exits with its status.

    identity   whom it becomes first; None: it stays who we are
    walls      what it is left with then; None: not walled in
    may_gain   as privileges.confine()
    Raises OSError when there are no processes or descriptors to be had.
    """
    ours, theirs = channel.pair()
    with signals.held_back():
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            # Master's objects stay referenced by the frames below this one, so nobody closes a
            # descriptor number a second time.
            _be_child(main, make_start(theirs), lambda: put_on(identity, walls, may_gain=may_gain))
    theirs.close()
    ours.setblocking(False)
    return Child(pid, ours)


def _be_child(main: Main, start: RoleStart, become: Callable[[], None]) -> None:
    status: int = Exit.BUG
    name = f"{start.role}.{start.slot}"
    try:
        close_others(_descriptors(start))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        log.identify(name)
        # A reload forks before its configuration is in force: master's log is still the old one's.
        log.change(start.config.log.format, start.config.log.level)
        become()
        signals.release()
        start.title("starting")
        gc.enable()
        status = main(start)
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else Exit.BUG
    except BaseException as error:  # the process boundary: whatever it is ends here, with its traceback
        log.bug(where=name, error=error)
    finally:
        # Not sys.exit(): master's frames are below us, and its finally blocks are not ours to run.
        with contextlib.suppress(BaseException):
            log.finish()
            sys.stderr.flush()
        os._exit(status)


def put_on(identity: Identity | None, walls: Walls | None, *, may_gain: bool = False) -> None:
    """Become `identity` behind `walls`, for good. Raises PermissionError, WallError."""
    if identity is not None:
        # Workers' files are for qmgr's group (queue/spool.py); nobody else's business.
        os.umask(0o007)
        privileges.drop(identity)
    privileges.confine(may_gain=may_gain)
    if walls is not None:
        role_walls.raise_walls(walls)


def _descriptors(start: RoleStart) -> list[int]:
    sockets = [start.master, *start.listeners.values(), *start.sockets.values()]
    if start.trace is not None:
        sockets.append(start.trace)
    given = (*start.certificates.values(), *start.next_hops.values())
    files = [number for each in given for number in each]
    own = [log.descriptor(), start.poke, start.lock, start.client_ca, start.metrics, *files]
    own += start.slots.values()
    return [*own, *(sock.fileno() for sock in sockets)]


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor above 2 but `keep` (negative ones are ignored)."""
    low = 3
    for descriptor in sorted({number for number in keep if number >= low}):
        if descriptor > low:
            os.closerange(low, descriptor)
        low = descriptor + 1
    # closerange() is one close_range(2) where the kernel has it (5.9), whatever the upper number.
    os.closerange(low, 2**31 - 1)
