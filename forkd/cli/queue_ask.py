"""Who tells about the queue? The running daemon; where there is none, the spool's own files."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from forkd.cli.control import QUEUE_TIMEOUT_S, PartAway, request
from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say
from forkd.cli.queue_choice import MAX_TEXTS, Choice
from forkd.cli.queue_offline import Offline
from forkd.exits import Exit

PAGE = 1000
"""Entries in one answer, at most: qmgr ends a page when its record or its time is full."""
PROGRESS_AFTER_S = 0.5

Told = Callable[[int, int], None]
"""Called with (done, of how many)."""


class Queue:
    """Requests about the queue of the daemon that uses `data_dir`.

    reads  no forkd answers: the spool's files do, with a word about it (for commands that change nothing)
    """

    def __init__(self, data_dir: Path, *, reads: bool = False) -> None:
        self._data_dir = data_dir
        self._reads = reads
        self._offline: Offline | None = None

    @property
    def offline(self) -> bool:
        """Answers come from the files."""
        return self._offline is not None

    def ask(self, **arguments: Any) -> dict[str, Any]:
        """The answer. Blocks until then; raises CommandFailed."""
        if self._offline is None:
            try:
                answer: dict[str, Any] = request(
                    self._data_dir, "queue", timeout_s=QUEUE_TIMEOUT_S, **arguments
                )
            except CommandFailed as failure:
                self._offline = self._instead(failure)
            else:
                if answer.get("error"):
                    raise CommandFailed(answer["error"])
                return answer
        return self._offline.ask(**arguments)

    def _instead(self, failure: CommandFailed) -> Offline:
        if failure.status is not Exit.NO_DAEMON and not isinstance(failure, PartAway):
            raise failure
        if not self._reads:
            # Without qmgr's lock nobody may touch the spool.
            raise failure
        offline = Offline(self._data_dir, failure)
        why = "qmgr does not answer" if isinstance(failure, PartAway) else "no forkd runs here"
        say(f"note: {why}; read from the files in {offline.root}")
        return offline

    def entries(self, choice: Choice, told: Told, ids: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """Those chosen, oldest first; of `ids` only, where they are given."""
        seen = 0
        for some in [ids[at : at + MAX_TEXTS] for at in range(0, len(ids), MAX_TEXTS)] or [()]:
            named = {"ids": some} if some else {}
            for answer in self.pages("list", limit=PAGE, **choice.filter(**named)):
                seen += answer["seen"]
                told(seen, len(ids) or answer["count"])
                yield from filter(choice.fits, answer["entries"])

    def pages(self, act: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """All answers of an act that is paged."""
        after, more = "", True
        while more:
            answer = self.ask(act=act, after=after, **arguments)
            yield answer
            more = answer["more"] and answer["after"] > after
            after = answer["after"]


@contextlib.contextmanager
def progress(what: str) -> Iterator[Told]:
    """Shows how far long work is, on a terminal; nothing elsewhere, and nothing when it is soon done."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 - only for eyes that wait
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    begun = time.monotonic()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=None)

    def told(done: int, total: int) -> None:
        bar.update(task, completed=done, total=max(done, total))
        if time.monotonic() - begun >= PROGRESS_AFTER_S:
            bar.start()

    try:
        yield told
    finally:
        bar.stop()
