"""When is a message ours? The commit point: before it nothing is promised, after it nothing may be lost."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from forkd import log
from forkd.queue.envelope import Envelope
from forkd.queue.format import MAX_ENVELOPE_BYTES, encode_tail
from forkd.queue.ids import QueueId
from forkd.queue.spool import Spool, SpoolError, SpoolFile, spool_error

BATCH = 64
"""Commits that share one directory sync at most: bounds how long the first of them waits for the last."""

Result = QueueId | SpoolError


def commit(spool: Spool, batch: Iterable[tuple[SpoolFile, Envelope]]) -> list[Result]:
    """Make messages durable and visible to qmgr; return queue id or error for each.

    Once this returns an id, message, envelope and name are on disk, and only then may the session
    answer 250 (RFC 5321 4.2.5, 6.1). A SpoolFile commits once.

    Per message: envelope and footer appended, file synced, renamed to new/; then one sync of new/SLOT
    for all. The order is the promise: a name in new/ never precedes its bytes.

    batch    may grow while it is worked on: what joins it shares the sync of the directory

    Blocks   for one file sync each and one directory sync: run it in a thread (Committer).
    Errors   SpoolFull   no space or quota          -> 452 4.3.1
             SpoolError  any other OS failure       -> 451 4.3.0
             as values, each for its own message. Such a message is gone, or at worst (the directory
             could not be synced nor the name removed) whole in new/: then it is delivered although
             the client will send it again.
    """
    results: list[Result] = []
    files: list[SpoolFile] = []
    renamed: list[int] = []
    for file, envelope in batch:
        files.append(file)
        try:
            _one(spool, file, envelope)
        except OSError as error:
            file.discard()
            results.append(spool_error(error))
        except SpoolError as error:
            results.append(error)
        else:
            renamed.append(len(results))
            results.append(file.id)
    if renamed and spool.durable:
        try:
            spool.fs.sync_dir(spool.new_fd())
        except OSError as error:
            for index in renamed:
                _take_back(spool, files[index])
                results[index] = spool_error(error)
        else:
            spool.pool.synced()
    elif renamed:
        spool.pool.synced()
    return results


def finish_uncommitted(file: SpoolFile, envelope: Envelope) -> str:
    """Make the message whole, as a file in tmp/ that qmgr can read; return its name there.

    For mail that is handed on while its client waits: nothing is promised and nothing synced, and the file
    is still the session's to abort(). Raises SpoolError; it is aborted then.
    """
    tail = encode_tail(envelope, message_bytes=file.size, message_crc=file.checksum())
    try:
        file.spill((tail,))
    except OSError as error:
        file.abort()
        raise spool_error(error) from error
    return file.path.rpartition("/")[2]


def _one(spool: Spool, file: SpoolFile, envelope: Envelope) -> None:
    file.seize()
    tail = encode_tail(envelope, message_bytes=file.size, message_crc=file.checksum())
    if len(tail) > MAX_ENVELOPE_BYTES:
        # Nobody would read it again.
        file.discard()
        raise SpoolError(f"an envelope of {len(tail)} octets; at most {MAX_ENVELOPE_BYTES}")
    _write(spool, file, tail)
    try:
        spool.fs.rename(file.path, f"{spool.new}/{file.id}")
    except FileNotFoundError:
        if not file.renew():
            raise
        _write(spool, file, tail)
        spool.fs.rename(file.path, f"{spool.new}/{file.id}")


def _write(spool: Spool, file: SpoolFile, tail: bytes) -> None:
    fd = file.write_all(tail)
    if spool.durable:
        spool.fs.sync(fd)
    # Closed first: a close that fails (a network file system's late error) is then still before the name.
    file.release()


def _take_back(spool: Spool, file: SpoolFile) -> None:
    # qmgr may have been quicker, or the disk is gone: at worst a duplicate.
    with contextlib.suppress(OSError):
        spool.fs.unlink(f"{spool.new}/{file.id}")


class Committer:
    """One thread per worker that commits whatever waits, together.

    on_done   called in the thread, once per batch, with (token, queue id or SpoolError) of each; a
              worker passes a function that wakes its loop. It must not raise.
    """

    def __init__(self, spool: Spool, on_done: Callable[[list[tuple[Any, Result]]], None]) -> None:
        self._spool = spool
        self._on_done = on_done
        self._waiting: queue.SimpleQueue[tuple[SpoolFile, Envelope, Any] | None] = queue.SimpleQueue()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def submit(self, spool_file: SpoolFile, envelope: Envelope, token: Any) -> None:
        """Hand a message over; never waits. From here it will be committed, whatever the client does."""
        spool_file.find_file()
        self._waiting.put((spool_file, envelope, token))

    def close(self) -> None:
        """Commit what waits, then end the thread. Blocks for that. Nothing may be submitted after it."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._ending:
            tokens: list[Any] = []
            results: Sequence[Result]
            try:
                results = commit(self._spool, self._batch(tokens))
            except Exception as error:  # a bug of ours must not leave sessions waiting for ever
                log.bug(where="commit", error=error)
                results = [SpoolError("internal error")] * len(tokens)
            if tokens:
                self._on_done(list(zip(tokens, results, strict=True)))

    def _batch(self, tokens: list[Any]) -> Iterator[tuple[SpoolFile, Envelope]]:
        """What waits, and what comes while that is worked on; their tokens go into the list."""
        item = self._waiting.get()
        while item is not None:
            file, envelope, token = item
            tokens.append(token)
            yield file, envelope
            if len(tokens) == BATCH or self._waiting.empty():
                return
            item = self._waiting.get()
        self._ending = True
