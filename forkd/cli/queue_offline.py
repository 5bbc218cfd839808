"""What does the spool say where no forkd runs? Its files, read as qmgr reads them, and never written to."""

from __future__ import annotations

import bisect
import os
from pathlib import Path
from typing import Any

import msgspec

from forkd.cli.failure import CommandFailed
from forkd.qmgr.requests_look import Candidate, whole_entry
from forkd.qmgr.requests_pages import list_page, stat_page
from forkd.queue.ids import ID
from forkd.queue.recovery import scan
from forkd.queue.spool import Spool, spool_root
from forkd.rpc.messages import QueueAnswer, QueueRequest

_PAGES = {"list": list_page, "stat": stat_page}


class Offline:
    """Answers list, show and stat as qmgr does, states as its files tell them: nothing is being tried now.

    Raises CommandFailed: `failure`, where there is no spool that it could have been about.
    """

    def __init__(self, data_dir: Path, failure: CommandFailed) -> None:
        self.root = str(spool_root(data_dir))
        try:
            found = [each for each in scan(self.root) if each is not None]
        except (FileNotFoundError, NotADirectoryError):
            raise failure from None
        except OSError as error:
            raise unreadable(self.root, error) from None
        self._candidates = sorted((Candidate(each.id, each.slot) for each in found), key=lambda each: each.id)

    def ask(self, **arguments: Any) -> dict[str, Any]:
        """As Queue.ask."""
        asked = msgspec.convert({"n": 0, **arguments}, QueueRequest, str_keys=True)
        answer = self._show(asked) if asked.act == "show" else self._page(asked)
        return dict(msgspec.to_builtins(answer))

    def _show(self, asked: QueueRequest) -> QueueAnswer:
        entries = (whole_entry(self.root, each) for each in self._candidates if each.id in asked.ids)
        found = tuple(entry for entry in entries if entry is not None)
        if not found:
            raise CommandFailed(f"{asked.ids[0]} is not in the queue")
        return QueueAnswer(n=0, entries=found, count=len(found))

    def _page(self, asked: QueueRequest) -> QueueAnswer:
        rest = self._candidates[
            bisect.bisect_right(self._candidates, asked.after, key=lambda each: each.id) :
        ]
        if asked.filter and (named := asked.filter.ids):
            rest = [each for each in rest if each.id in named]
        answer = _PAGES[asked.act](self.root, rest, asked)
        return msgspec.structs.replace(answer, count=len(self._candidates))


def unreadable(path: str, error: OSError) -> CommandFailed:
    """Of the spool, or a file in it."""
    hint = (
        "run this as root, or as the user that owns the spool" if isinstance(error, PermissionError) else ""
    )
    return CommandFailed(f"{path} cannot be read: {error.strerror or error}", hint=hint)


def path_of(root: str, queue_id: str) -> str | None:
    """Where a message lies; None: it is not in the queue. Raises CommandFailed."""
    if not ID.fullmatch(queue_id):
        return None
    try:
        paths = [f"{root}/new/{slot}/{queue_id}" for slot in Spool.slots(root)]
        for path in paths:
            # Not os.path.exists(), which takes "permission denied" for "not there".
            try:
                os.stat(path, follow_symlinks=False)  # noqa: PTH116
            except FileNotFoundError:
                continue
            return path
    except OSError as error:
        raise unreadable(root, error) from None
    return None
