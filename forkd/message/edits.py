"""Which octets does a recipient get? Fields on top, then the message as it came, in LF or CRLF."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol


class LineEnd(enum.Enum):
    """What a transport wants between lines: files and programs LF, SMTP and LMTP CRLF."""

    LF = b"\n"
    CRLF = b"\r\n"


class HeaderEdit(Protocol):
    """What queue.envelope.Edit looks like from here."""

    @property
    def op(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...


_NOT_NAME = re.compile(r"[^!-9;-~]")
_BREAK = re.compile(r"\r\n|\r|\n")


def field(name: str, value: str) -> str:
    """One header field ending in CRLF. A line end in the value becomes a fold, never a field of its own."""
    if "\n" in value or "\r" in value:
        lines = [line for line in _BREAK.split(value) if line.strip(" \t")] or [""]
        value = "\r\n".join(
            line if i == 0 or line[0] in " \t" else f" {line}" for i, line in enumerate(lines)
        )
    return f"{_NOT_NAME.sub('?', name)}: {value}\r\n".replace("\0", "?")


def stream(
    message: Iterable[bytes],
    trace: str,
    edits: Sequence[HeaderEdit] = (),
    *,
    line_end: LineEnd,
    top: str = "",
) -> Iterator[bytes]:
    """The message as it goes out, in pieces.

    From the top: `top` (a transport's own fields, e.g. Return-Path: above all other trace fields,
    RFC 5321 4.4), `trace`, the added fields in their order, the message. Its own octets are not
    touched but for the line ends. Raises what `message` raises.

    message  pieces as they came, CRLF line ends; a CRLF may be cut by a border
    trace    whole fields with CRLF, or empty
    """
    added = "".join([field(edit.name, edit.value) for edit in edits if edit.op == "add_header"])
    head = f"{top}{trace}{added}".encode("utf-8", "replace")
    if line_end is LineEnd.CRLF:
        if head:
            yield head
        yield from message
        return
    if head:
        yield head.replace(b"\r\n", b"\n")
    held = b""
    for piece in message:
        whole = held + piece if held else piece
        if whole.endswith(b"\r"):
            # Perhaps half of a CRLF: the next piece will tell.
            held, whole = b"\r", whole[:-1]
        else:
            held = b""
        if whole:
            yield whole.replace(b"\r\n", b"\n")
    if held:
        yield held
