"""What does a zygote print? Its stdout and stderr become log lines, escaped there, at a bounded rate."""

from __future__ import annotations

import os

from forkd import log

BURST_BYTES = 32 * 1024
RATE_BYTES_S = 4 * 1024
"""A traceback passes; a plugin that prints for ever costs some 40 lines a second."""

LINE_BYTES = 1000

PAUSE_S = 0.5
"""Whoever printed more than his share is not read for so long: he writes into a full pipe, and loses it (the
pipe does not block), and master does not spend the processor on throwing it away."""


class Output:
    """One pipe. read() is called when it polls readable; `now` in monotonic seconds."""

    def __init__(self, descriptor: int, *, plugin: str, pid: int, now: float) -> None:
        self.descriptor = descriptor
        self._plugin = plugin
        self._pid = pid
        self._part = b""
        self._room = float(BURST_BYTES)
        self._at = now
        self._dropped = 0
        self.resume_at: float | None = None
        """Not to be read before that."""
        os.set_blocking(descriptor, False)

    def read(self, now: float) -> bool:
        """Log what is there; false at end of file. Takes at most 64 KiB, so that it cannot hold the loop."""
        try:
            data = os.read(self.descriptor, 65_536)
        except BlockingIOError:
            return True
        if not data:
            self.finish()
            return False
        self._room = min(BURST_BYTES, self._room + (now - self._at) * RATE_BYTES_S)
        self._at = now
        kept = data[: max(0, int(self._room))]
        if len(kept) < len(data):
            self.resume_at = now + PAUSE_S
        self._room -= len(kept)
        self._dropped += len(data) - len(kept)
        *lines, self._part = (self._part + kept).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._part) > LINE_BYTES:
            self._say(self._part)
            self._part = b""
        return True

    def resumes(self, now: float) -> bool:
        """The pause is over, said once."""
        if self.resume_at is None or now < self.resume_at:
            return False
        self.resume_at = None
        return True

    def finish(self) -> None:
        """The process is gone: what has no final newline is a line as well."""
        part, self._part = self._part, b""
        if part or self._dropped:
            self._say(part)

    def _say(self, line: bytes) -> None:
        dropped, self._dropped = self._dropped, 0
        if line.strip() or dropped:
            text = line[:LINE_BYTES].decode("utf-8", "backslashreplace")
            log.plugin_output(plugin=self._plugin, pid=self._pid, text=text, dropped=dropped)
