"""Which system calls did the kernel refuse our sandboxes? Heard from its audit, told to the workers.

Only where root started us and the kernel lets us listen (sandbox/audit.py says why master does it). Whose
process it was is known by its uid, since each plugin has one of its own; other programs' records are not
told to anybody. Each plugin has a share of what is told: one whose processes are killed as fast as it can
fork them would else take the workers' time, and the places of the others' names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Mapping
from socket import socket

from forkd.master.child import Child
from forkd.rpc.messages import RefusedCall
from forkd.sandbox import audit

PER_S, AT_ONCE = 50.0, 200.0
"""Refusals told of one plugin: how fast its share grows, and how large it becomes. A failure beyond has no
name in its line; those before it had."""


@dataclasses.dataclass(slots=True, eq=False)
class Share:
    """What may still be told of one plugin. Times are monotonic seconds."""

    left: float = AT_ONCE
    at: float = 0.0

    def take(self, now: float) -> bool:
        """One of it; false: there is none."""
        self.left = min(AT_ONCE, self.left + (now - self.at) * PER_S)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Refusals:
    """The audit's socket, held.

    by_uid  uid -> plugin
    shares  what may still be told of each
    """

    def __init__(self, sock: socket, by_uid: Mapping[int, str]) -> None:
        self._socket = sock
        self._by_uid = by_uid
        self.shares = {plugin: Share() for plugin in by_uid.values()}

    @property
    def descriptor(self) -> int:
        """For the loop."""
        return self._socket.fileno()

    def also(self, uids: Iterable[tuple[int | None, str]]) -> None:
        """Know these too."""
        self._by_uid = {**self._by_uid, **{uid: plugin for uid, plugin in uids if uid is not None}}
        for plugin in self._by_uid.values():
            self.shares.setdefault(plugin, Share())

    def tell(self, workers: Iterable[Child]) -> None:
        """Read what came, tell every worker of what is ours: which of them had the sandbox, it knows."""
        told, now = tuple(workers), time.monotonic()
        for refusal in audit.read(self._socket):
            plugin = self._by_uid.get(refusal.uid)
            if plugin is None or not self.shares[plugin].take(now):
                continue
            message = RefusedCall(plugin=plugin, pid=refusal.pid, call=refusal.call)
            for worker in told:
                worker.tell(message)

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._socket.close()


def listen(uids: Iterable[tuple[int | None, str]]) -> Refusals | None:
    """Begin to listen for processes of these uids; None: there are none, or the kernel does not let us."""
    by_uid = {uid: plugin for uid, plugin in uids if uid is not None}
    if not by_uid or (sock := audit.listen()) is None:
        return None
    return Refusals(sock, by_uid)
