"""What is systemd told? The protocol of sd_notify(3), over the datagram socket in NOTIFY_SOCKET.

Its own time limits (TimeoutStartSec, TimeoutStopSec) know nothing of ours. So while we start, reload or stop,
master asks for EXTEND_S more, again and again, as long as its loop goes round: who is late is master's to
judge, by limits that are made for it (pool.py, shutdown.py), and a drain has none. A master that stands still
asks no more, and systemd ends it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

STATUS_EVERY_S = 5.0
"""STATUS= for systemctl status; with it EXTEND_TIMEOUT_USEC=."""
EXTEND_S = 30.0
"""Within it systemd must hear of us again: as WatchdogSec= of forkd.service, for when nobody else watches."""


class Notifier:
    """Takes NOTIFY_SOCKET and WATCHDOG_USEC out of the environment, so that no child can speak for us.

    Without NOTIFY_SOCKET every call does nothing. Never waits, never raises: systemd being away is not
    a reason for mail to stop.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog = environ.pop("WATCHDOG_USEC", "")
        for_us = environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._socket: socket.socket | None = None
        self.watchdog_s = int(watchdog) / 2e6 if address and for_us and watchdog.isdecimal() else 0.0
        """How often WATCHDOG=1 is due: half of what systemd waits (sd_watchdog_enabled(3)); 0: never."""
        self._watchdog_at = self._status_at = 0.0
        self._changing = True
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            with contextlib.suppress(OSError):
                self._socket.connect("\0" + address[1:] if address[0] == "@" else address)
        # Walls are tried, and what is left of another forkd is waited for, before there is a loop.
        self.send("STATUS=starting", _EXTEND)

    def close(self) -> None:
        """Nothing is said any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, *lines: str) -> None:
        """Send e.g. `READY=1`, `STATUS=…` as one datagram."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send("\n".join(lines).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def ready(self) -> None:
        """The service is up: after its start, and after each reload, whatever came of it."""
        self._changing = False
        self.send("READY=1")
        self._status_at = 0.0

    def reloading(self) -> None:
        """A reload begins; ready() ends it. The time is what Type=notify-reload asks for (systemd 253)."""
        self._changing = True
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", _EXTEND)
        self._status_at = 0.0

    def stopping(self, state: str) -> None:
        """The service goes down, and this time it ends."""
        self._changing = True
        self.send("STOPPING=1", f"STATUS={state}", _EXTEND)

    def failed(self, why: str) -> None:
        """It does not start; `systemctl status` shows why."""
        self.send("STATUS=did not start: " + " ".join(why.split()))

    @property
    def due(self) -> float | None:
        """When look() must be called at the latest."""
        return self._watchdog_at if self.watchdog_s else None

    def look(self, now: float, status: Callable[[], str]) -> None:
        """Say what is due. It feeds the watchdog: for each turn of the loop, and for nobody else."""
        if self.watchdog_s and now >= self._watchdog_at:
            self.send("WATCHDOG=1")
            self._watchdog_at = now + self.watchdog_s
        if now >= self._status_at:
            self._status_at = now + STATUS_EVERY_S
            self.send(f"STATUS={status()}", *([_EXTEND] if self._changing else []))


_EXTEND = f"EXTEND_TIMEOUT_USEC={int(EXTEND_S * 1e6)}"
