"""What is the same for all generations of the configuration? Opened once by main.py, given to each of them.

Sockets of ours whose process may be another one after a reload stay open here: who connects meanwhile waits
in the backlog, and is served by the next one.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forkd.master.ground_paths import free_path
from forkd.master.listeners import Passed
from forkd.master.metrics_slots import MetricsSlots
from forkd.master.privileges import Identities
from forkd.master.refusals import Refusals
from forkd.master.role_trial import Subject
from forkd.master.roster import Roster
from forkd.master.runtime import Runtime
from forkd.rpc import places, tracing
from forkd.sandbox.selftest import Finding

if TYPE_CHECKING:
    from forkd.master.zygotes import Zygote

_SOCKETS = {
    "control": (places.CONTROL, socket.SOCK_STREAM, 0o666, "admin_user"),
    "qmgr": (places.QMGR, socket.SOCK_SEQPACKET, 0o600, "admin_user"),
    "workers": (places.WORKERS, socket.SOCK_SEQPACKET, 0o600, "user"),
    "anvil": (places.ANVIL, socket.SOCK_SEQPACKET, 0o600, "user"),
    "probe": (places.PROBE, socket.SOCK_STREAM, 0o600, "admin_user"),
    "proxy": (places.PROXY, socket.SOCK_SEQPACKET, 0o600, "user"),
}
"""Path, kind, mode, owner."""


@dataclasses.dataclass(slots=True, eq=False)
class Ground:
    """From the start of master to its end.

    identities  whom the roles become
    roster      the places of all generations
    zygotes     of all living generations
    sockets     by name, those of _SOCKETS that were wanted so far
    inherited   sockets that systemd passed
    poke        the pipe to qmgr: read end, write end
    trace       the two ends of the way to admin's store, once it was wanted
    metrics     slots of those who count, and of master itself
    refusals    None: the kernel does not tell, or there was no plugin with a uid of its own at the start
    tested      what the self-test found, by what was asked of it: the kernel's walls do not change
    tried       the same of the roles' walls
    """

    runtime: Runtime
    identities: Identities
    roster: Roster
    zygotes: list[Zygote] = dataclasses.field(default_factory=list)
    sockets: dict[str, socket.socket] = dataclasses.field(default_factory=dict)
    inherited: Sequence[Passed] = ()
    poke: tuple[int, int] = (-1, -1)
    trace: dict[str, socket.socket] = dataclasses.field(default_factory=dict)
    metrics: MetricsSlots = dataclasses.field(default_factory=MetricsSlots)
    refusals: Refusals | None = None
    tested: dict[object, list[Finding]] = dataclasses.field(default_factory=dict)
    tried: tuple[tuple[Subject, ...], Finding] | None = None
    started_at: float = dataclasses.field(default_factory=time.time)
    """Unix time."""

    @property
    def run(self) -> Path:
        """The folder of our sockets."""
        return self.runtime.folder

    def know(self, identities: Identities) -> None:
        """More users than until now."""
        self.identities = identities
        self.runtime.identities = identities

    def open_pipe(self) -> None:
        """Make the pipe to qmgr."""
        self.poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def open_trace(self) -> None:
        """Have the way to admin's store of traces."""
        if not self.trace:
            self.trace = dict(zip(("trace_read", "trace_write"), tracing.pair(), strict=True))

    def listen(self, name: str) -> None:
        """Have that socket from now on, if it is not there yet. Raises StartError."""
        if name not in self.sockets:
            path, kind, mode, owner = _SOCKETS[name]
            self.sockets[name] = self.runtime.listen(path, kind, mode=mode, owner=owner)

    def listen_beside(self, name: str, *, owner: str) -> tuple[socket.socket, Path]:
        """A socket for one process among several of its kind: run/NAME, or NAME~1 while that is another's.

        Raises StartError.
        """
        path = free_path(self.run / name)
        uid = self.identities.uid(owner)
        return self.runtime.listen_at(path, socket.SOCK_SEQPACKET, mode=0o600, uid=uid), path

    def close(self) -> None:
        """Give all of it up."""
        for sock in (*self.sockets.values(), *self.trace.values()):
            sock.close()
        self.metrics.close()
        for end in self.poke:
            if end >= 0:
                os.close(end)
        if self.refusals is not None:
            self.refusals.close()
