"""Which answers of DNS are remembered? So many and so many octets; who was used longest ago goes first.

Names are chosen by clients and answers by whoever has a zone, so both are counted with what they cost in
memory, not by number alone.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forkd.lookups.resolver import Answer

Labels = tuple[str, ...]
"""Of a name, the leftmost first, without the root's."""

MAX_BYTES: Final = 32 << 20
MAX_ANSWER_BYTES: Final = 8192
"""Larger ones are answered and not kept: nobody asks for them twice but to fill this."""
_OBJECT_BYTES: Final = 64
"""Of a label or record, beside its octets."""
_ENTRY_BYTES: Final = 400

Question = tuple[Labels, str]


class Kept:
    """Answers by question.

    most  answers; 0: none is kept
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[Question, tuple[Answer, int]] = OrderedDict()
        self.octets = 0
        """Of memory, about."""

    def __len__(self) -> int:
        """Answers that are kept."""
        return len(self._answers)

    def get(self, question: Question) -> Answer | None:
        """The answer, if it has not expired."""
        found = self._answers.get(question)
        if found is None:
            return None
        if found[0].expires <= time.monotonic():
            self._forget(question)
            return None
        self._answers.move_to_end(question)
        return found[0]

    def put(self, question: Question, answer: Answer) -> None:
        """Keep it, unless it is too large; others may have to go."""
        self._forget(question)
        size = _size(answer.records)
        if not self._most or size > MAX_ANSWER_BYTES:
            return
        size += _size(question[0]) + _ENTRY_BYTES
        self._answers[question] = answer, size
        self.octets += size
        while len(self._answers) > self._most or self.octets > MAX_BYTES:
            self._forget(next(iter(self._answers)))

    def _forget(self, question: Question) -> None:
        _, size = self._answers.pop(question, (None, 0))
        self.octets -= size


def _size(parts: Iterable[Any]) -> int:
    """Of labels or records: texts, octets, and (preference, host)."""
    return sum(_OBJECT_BYTES + len(part[1] if isinstance(part, tuple) else part) for part in parts)
