"""What is a header after edits? The same for a plugin that looks and for the recipient who gets it.

Folding belongs here too: the value that a plugin gave and the lines that go out say the same.
"""

from __future__ import annotations

from forkd.sdk.headers import Headers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FOLD_AT = 78
"""RFC 5322 2.1.1: a line should have no more."""


def fold(name: str, value: str) -> str:
    """The value with CRLF in front of white space, so that lines keep to FOLD_AT where they can.

    Nothing but line ends is added, so that unfolding gives the value back. It has no white space at its
    ends, so no line is blank.
    """
    room = FOLD_AT - len(name) - 2
    if len(value) <= room:
        return value
    lines: list[str] = []
    line = ""
    at, end = 0, len(value)
    while at < end:
        start = at
        while at < end and value[at] in " \t":
            at += 1
        while at < end and value[at] not in " \t":
            at += 1
        if line and len(line) + at - start > room:
            lines.append(line)
            line, room = "", FOLD_AT
        line += value[start:at]
    lines.append(line)
    return "\r\n".join(lines)


def longest(name: str, folded: str) -> int:
    """Octets of the longest line of a field."""
    return max(len(line.encode()) for line in f"{name}: {folded}".split("\r\n"))


def apply(header: bytes, edits: Sequence[Any]) -> Headers:
    """A header after edits, as the recipient will get it; others than those of the header are passed over."""
    fields = [(name.lower(), octets) for name, octets in Headers(header).raw_fields()]
    added = 0
    for edit in edits:
        op = edit.op
        if op == "add_header":
            field = f"{edit.name}: {fold(edit.name, edit.value)}\r\n"
            fields.insert(added, (edit.name.lower(), field.encode()))
            added += 1
        elif op == "change_header":
            places = _places(fields, edit.name)
            if edit.n <= len(places):
                place = places[edit.n - 1]
                name, octets = fields[place]
                spelled = octets.partition(b":")[0].rstrip(b" \t").decode("ascii")
                fields[place] = (name, f"{spelled}: {fold(edit.name, edit.value)}\r\n".encode())
        elif op == "delete_header":
            places = _places(fields, edit.name)
            for place in reversed(places[edit.n - 1 : edit.n] if edit.n else places):
                del fields[place]
                added -= place < added
    return Headers(b"".join([octets for _, octets in fields]))


def _places(fields: list[tuple[str, bytes]], name: str) -> list[int]:
    name = name.lower()
    return [place for place, (have, _) in enumerate(fields) if have == name]
