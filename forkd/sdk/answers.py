"""How does what a hook returned become an answer's bytes? Only for hooks that have something to say."""

from __future__ import annotations

import sys
from json.encoder import encode_basestring_ascii as _quoted

from forkd.sdk.edits import Edit
from forkd.sdk.verdicts import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ANSWER_BYTES = 65_536
"""The worker takes no longer record (forkd.rpc.calls.MAX_FRAME_BYTES)."""
MAX_EDITS = 1_000
"""Of one answer."""
MAX_ERROR = 1000
"""Characters of an exception's text that go over; the whole traceback goes to stderr."""

MAX_LINES, MAX_LINE = 8, 500
"""Lines that one call logs, and characters of one."""
MAX_COUNTERS, MAX_COUNTER, MAX_COUNT = 16, 40, 1 << 31
"""Counters in one call, characters of a name, and what may be added at once."""

_ELSEWHERE = {"rewrite_recipient": "rcpt", "export": ""}
"""Edits that do not belong to the message hook; export belongs to all but disconnect."""


class Told:
    """What one hook's call has logged and counted."""

    __slots__ = ("counts", "dropped", "lines")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: dict[str, int] = {}
        self.dropped = 0
        """Lines beyond MAX_LINES."""

    def log(self, text: object) -> None:
        """One line more, cut to what may go over."""
        if len(self.lines) < MAX_LINES:
            # A lone surrogate would be no JSON to the worker.
            text = str(text)[:MAX_LINE].encode("utf-8", "backslashreplace").decode()
            self.lines.append(text[:MAX_LINE])
        else:
            self.dropped += 1
            self.lines[-1] = f"({self.dropped + 1} more lines in one call)"

    def count(self, name: str, by: int) -> None:
        """Raises ValueError for a name that is none, or for less than nothing."""
        letters = name.replace("_", "")
        if not (name.isascii() and name.islower() and letters.isalnum() and name[0].isalpha()):
            raise ValueError(f"a counter's name is made of a-z, 0-9 and _, a letter first, not {name!r}")
        if len(name) > MAX_COUNTER or not 0 <= by <= MAX_COUNT:
            raise ValueError(f"a counter's name has {MAX_COUNTER} characters at most, and it counts upwards")
        if name in self.counts or len(self.counts) < MAX_COUNTERS:
            self.counts[name] = min(MAX_COUNT, self.counts.get(name, 0) + by)

    def json(self) -> str:
        """Members of an answer."""
        counts = ",".join([f'"{name}":{count}' for name, count in self.counts.items()])
        return f'"log":[{",".join(map(_quoted, self.lines))}],"count":{{{counts}}}'


def sort(said: Any) -> tuple[Verdict | None, list[Edit]]:
    """The verdict and the edits in what a hook returned. Raises TypeError for anything else."""
    verdict: Verdict | None = None
    edits: list[Edit] = []
    for one in said if type(said) in (list, tuple) else (said,):
        if isinstance(one, Edit):
            edits.append(one)
        elif isinstance(one, Verdict) and verdict is None:
            verdict = one
        else:
            raise TypeError(
                f"a hook returns None, a verdict, or edits with at most one verdict, not {said!r}"
            )
    return verdict, edits


def verdict_json(verdict: Verdict, smtputf8: bool) -> bytes:
    """A verdict as it goes over; what is not ASCII is for clients with SMTPUTF8 only."""
    text = verdict.text
    if not smtputf8 and not text.isascii():
        text = text.encode("ascii", "replace").decode("ascii")
    return (
        f'{{"do":"{verdict.do}","code":{verdict.code},"enhanced":"{verdict.enhanced}","text":{_quoted(text)}}}'
    ).encode("ascii")


def write(
    n: int,
    hook: str,
    verdict: Verdict | None,
    edits: list[Edit],
    *,
    by: str,
    smtputf8: bool,
    told: Told | None = None,
) -> bytes:
    """The answer's bytes. Raises ValueError for what may not be said at this hook or does not fit."""
    parts = [f'"n":{n}']
    if verdict is not None:
        parts.append(f'"verdict":{verdict_json(verdict, smtputf8).decode("ascii")}')
        if by:
            parts.append(f'"by":{_quoted(by)}')
    if edits:
        if len(edits) > MAX_EDITS:
            raise ValueError(f"an answer has {MAX_EDITS} edits at most, not {len(edits)}")
        for edit in edits:
            where = _ELSEWHERE.get(edit.op, "message")
            if hook == "disconnect" or (where and where != hook):
                raise ValueError(f"{edit.op} belongs to the hook {where or 'of a command'}, not to {hook}")
            if not smtputf8:
                _check_ascii(edit)
        parts.append(f'"edits":[{",".join([edit.json() for edit in edits])}]')
    answer = f"{{{','.join(parts)}}}".encode("ascii")
    if told is not None:
        whole = f"{{{','.join([*parts, told.json()])}}}".encode("ascii")
        if len(whole) <= MAX_ANSWER_BYTES:  # else the edits matter more
            return whole
    if len(answer) > MAX_ANSWER_BYTES:
        raise ValueError(f"the answer has {len(answer)} of {MAX_ANSWER_BYTES} bytes: too many edits")
    return answer


def _check_ascii(edit: Edit) -> None:
    for member in edit.members:
        value = getattr(edit, member)
        if isinstance(value, str) and not value.isascii():
            raise ValueError(
                f"{edit}: the client did not ask for SMTPUTF8, so this must be ASCII: see forkd.sdk.encoded"
            )


def failure(n: int, error: Exception, told: Told | None = None) -> bytes:
    """The answer of a hook that raised; its traceback goes to stderr, and before it what the hook logged."""
    try:
        if told is not None:
            print(*told.lines, sep="\n", file=sys.stderr)
        # The interpreter's own printer: the traceback module would bring a dozen others with it.
        sys.__excepthook__(type(error), error, error.__traceback__)
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # noqa: BLE001, RUF100 - an exception whose own text raises, or no memory left
        text = type(error).__name__
    # backslashreplace: a lone surrogate would be no JSON to the worker.
    text = text[:MAX_ERROR].encode("ascii", "backslashreplace").decode("ascii")
    return f'{{"n":{n},"error":{_quoted(text)}}}'.encode("ascii")
