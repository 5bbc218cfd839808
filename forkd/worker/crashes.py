"""How are failed calls kept for `forkd plugin replay`? Written by a thread, bounded, and never in mail's way.

What a record is, rpc/records.py says. The folder is made by master (crash.keep > 0) and is the worker's
alone. All workers write there: each makes room before it writes, so that there are crash.keep records at
most, and one or two more for a moment. A disk that is full loses the record, not the mail: that is logged.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from forkd.fs import REAL
from forkd.hooks.given import KeptCopy
from forkd.rpc import records
from forkd.rpc.records import CrashRecord

WAITING = 32
"""Records on their way to the disk; those beyond are lost: who crashes a plugin in a loop fills no memory."""
_PIECE_BYTES = 1 << 20
_END_S = 1.0
"""How long the end of the worker waits for records on their way."""


class Crashes:
    """The one way to the folder of records in this worker.

    on_done   called in the thread with a copy that is not needed any more
    on_lost   called in the thread with id and reason
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        max_size: int,
        on_done: Callable[[KeptCopy], None],
        on_lost: Callable[[str, str], None],
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._max_size = max_size
        self._on_done = on_done
        self._on_lost = on_lost
        self._queue: queue.Queue[tuple[CrashRecord, tuple[bytes, ...], KeptCopy | None] | None]
        self._queue = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None

    def submit(self, record: CrashRecord, frames: tuple[bytes, ...], message: KeptCopy | None) -> bool:
        """Write it soon; False: too many wait, and `message` stays the caller's to close.

        record   without frames and name of a message: those are put in here; no text of it has a password
                 in it (output.scrubbed).
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="crash records", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait((record, frames, message))
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write what waits; waits _END_S at most."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=_END_S)
            self._thread.join(_END_S)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            record, frames, message = item
            try:
                self._write(record, frames, -1 if message is None else message.fd)
            except OSError as error:
                self._remove(record.id)
                self._on_lost(record.id, f"{error.filename or self._folder}: {error.strerror}")
            except Exception as error:  # a bug of ours must not end the thread, and with it all later records
                self._remove(record.id)
                self._on_lost(record.id, f"{type(error).__name__}: {error}")
            finally:
                if message is not None:
                    self._on_done(message)

    def _write(self, record: CrashRecord, frames: tuple[bytes, ...], message: int) -> None:
        self._make_room()
        name, cut = "", record.cut
        if message >= 0 and self._max_size:
            name = f"{record.id}.eml"
            cut = self._copy(message, f"{self._folder}/{name}") or cut
        elif message >= 0:
            cut = True
        record = msgspec.structs.replace(
            record,
            frames=tuple(msgspec.Raw(frame) for frame in records.without_secrets(frames)),
            message=name,
            cut=cut,
        )
        # Under another name until it is whole: who looks meanwhile does not read half of it.
        unfinished = f"{self._folder}/{record.id}.tmp"
        fd = REAL.create(unfinished, 0o600)
        try:
            REAL.write(fd, [records.encode(record)])
        finally:
            REAL.close(fd)
        REAL.rename(unfinished, f"{self._folder}/{record.id}.json")

    def _copy(self, message: int, path: str) -> bool:
        """As much of the message as crash.max_size allows; whether it was cut."""
        size = os.fstat(message).st_size
        left, at = min(size, self._max_size), 0
        fd = REAL.create(path, 0o600)
        try:
            while left > 0 and (piece := REAL.read(message, min(left, _PIECE_BYTES), at)):
                REAL.write(fd, [piece])
                at += len(piece)
                left -= len(piece)
        finally:
            REAL.close(fd)
        return at < size

    def _make_room(self) -> None:
        """For one more record: the oldest go. What a killed worker left half written counts as one."""
        ids = sorted({name.partition(".")[0] for name in REAL.names(str(self._folder))})
        for id_ in ids[: max(0, len(ids) - self._keep + 1)]:
            self._remove(id_)

    def _remove(self, id_: str) -> None:
        for kind in ("json", "eml", "tmp"):
            with contextlib.suppress(OSError):  # another worker made room too
                REAL.unlink(f"{self._folder}/{id_}.{kind}")
