"""What is read of the kept events for one answer? Pieces of the file (trace_file.py), as plain values.

Who told them may have been taken over. So a field is text, a number or a list of them, whatever it was, and
no event is of a later time than admin took it at: whoever shows an answer need not ask.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import msgspec

from forkd.rpc.messages_trace import Event

PIECES: Final = 2000
"""Of one answer; a session has one to three, as a rule."""
ANSWER_BYTES: Final = 8 << 20
"""Of events in one answer, as they are kept."""

_PLAIN = (str, int, float, bool, type(None))

_events = msgspec.msgpack.Decoder(list[Event])


class Reading:
    """Pieces of one answer."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._pieces = 0
        self._octets = 0
        self.events: list[dict[str, Any]] = []
        self.writers: set[int] = set()
        self.ids: set[str] = set()
        """Queue ids that the events tell of."""
        self.begins = False
        self.more = False
        """There was more than one answer has."""

    def read(self, key: str) -> None:
        """Take what is kept under that id, as far as it fits one answer."""
        rows = self._database.execute(
            "SELECT at, writer, begins, events FROM piece WHERE key = ? ORDER BY n LIMIT ?",
            (key, PIECES - self._pieces + 1),
        )
        for taken, writer, begins, octets in rows:
            self._pieces += 1
            self._octets += len(octets)
            if self._pieces > PIECES or self._octets > ANSWER_BYTES:
                self.more = True
                return
            self.writers.add(writer)
            self.begins |= bool(begins)
            for told_at, name, told in self._decoded(octets):
                at = told_at if 0 <= told_at <= taken else taken
                fields = {key: _plain(value) for key, value in told.items()}
                self.events.append({"at": at, "writer": writer, "event": name, "fields": fields})
                if name == "message" and isinstance(fields.get("id"), str):
                    self.ids.add(fields["id"])

    @staticmethod
    def _decoded(octets: bytes) -> list[Event]:
        """The events of a piece; what a process taken over has put there is none, and is said to be."""
        try:
            return _events.decode(octets)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return [(-1.0, "unreadable", {"detail": str(error)})]


def _plain(value: Any) -> Any:
    """A value of an event as the log has them: text, a number, yes or no, or a list of such."""
    if isinstance(value, list):
        return [item if isinstance(item, _PLAIN) else str(item) for item in value]
    return value if isinstance(value, _PLAIN) else str(value)
