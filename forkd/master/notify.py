"""What is systemd told? The protocol of sd_notify(3), over the datagram socket in NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping


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
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            with contextlib.suppress(OSError):
                self._socket.connect("\0" + address[1:] if address[0] == "@" else address)

    def send(self, *lines: str) -> None:
        """Send e.g. `READY=1`, `STOPPING=1`, `STATUS=…`, `WATCHDOG=1` as one datagram."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send("\n".join(lines).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
