"""Which octets does a recipient get? Fields on top, the header with its edits, the body; in LF or CRLF."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from forkd.sdk.headers import MAX_HEADER_BYTES, Headers


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
    @property
    def n(self) -> int: ...


_NOT_NAME = re.compile(r"[^!-9;-~]")
_BREAK = re.compile(r"\r\n|\r|\n")
_MBOX_LINES = (b"From ", b">From ")
"""What old software sends in front of a header (forkd.sdk.headers skips it)."""
_MBOX_NAME = b"Mailbox-Line: "
"""As Postfix names it. Below our own fields that line would end the header for most readers."""
_FIELD_OR_END = re.compile(rb"[!-9;-~]+[ \t]*:|\r\n|\Z")
"""How a message may begin, so that what we put on top of it is whole."""


def field(name: str, value: str) -> str:
    """One header field ending in CRLF. A line end in the value becomes a fold, never a field of its own."""
    if "\n" in value or "\r" in value:
        lines = [line for line in _BREAK.split(value) if line.strip(" \t")] or [""]
        value = "\r\n".join(
            line if i == 0 or line[0] in " \t" else f" {line}" for i, line in enumerate(lines)
        )
    return f"{_NOT_NAME.sub('?', name)}: {value}\r\n".replace("\0", "?")


def apply(header: bytes, edits: Sequence[HeaderEdit]) -> bytes:
    """A message's beginning, its header changed by edits in their order; what stands behind it stays.

    add_header     a new field above the message's own ones, below those added before
    change_header  the n-th field of that name, from the top and from 1, gets the value; its name stays
                   as it is spelled and where it stands. No such field: nothing
    delete_header  that field goes; with n 0 all of that name

    n counts in the header as the edits before left it, added fields too. The trace is not part of it.
    Cost: one scan of the header, and per edit one look at its fields.
    """
    scanned = Headers(header)
    fields = [(name.lower(), octets) for name, octets in scanned.raw_fields()]
    # An mbox separator in front is no field: whoever streams has made it one.
    start = len(scanned.raw) - sum(len(octets) for _, octets in fields)
    end = len(scanned.raw)
    added = 0
    for edit in edits:
        name = edit.name.lower()
        if edit.op == "add_header":
            fields.insert(added, (name, _octets(edit.name, edit.value)))
            added += 1
            continue
        places = [place for place, (have, _) in enumerate(fields) if have == name]
        if edit.op == "change_header" and 0 < edit.n <= len(places):
            place = places[edit.n - 1]
            spelled = fields[place][1].partition(b":")[0].rstrip(b" \t").decode("ascii")
            fields[place] = (name, _octets(spelled, edit.value))
        elif edit.op == "delete_header":
            chosen = places[edit.n - 1 : edit.n] if edit.n > 0 else places
            for place in reversed(chosen):
                del fields[place]
                added -= place < added
    return b"".join([header[:start], *(octets for _, octets in fields), header[end:]])


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
    RFC 5321 4.4), `trace`, the added fields, the message's header with its edits, the body. Octets that
    no edit speaks of are not touched but for the line ends; only an mbox separator in front gets a
    field's name, and a text without a header an empty line. Raises what `message` raises.

    message  pieces as they came, CRLF line ends; a CRLF may be cut by a border
    trace    whole fields with CRLF, or empty
    """
    head = f"{top}{trace}"
    pieces = iter(message)
    if any(edit.op != "add_header" for edit in edits):
        # Nearly all messages have nothing, or additions only: these are not looked at, just sent.
        first = apply(_named(_beginning(pieces)), edits)
    else:
        head += "".join([field(edit.name, edit.value) for edit in edits])
        first = _first_line(pieces)
        if head:
            first = _named(first)
    octets = head.encode("utf-8", "replace")
    return _crlf(octets, first, pieces) if line_end is LineEnd.CRLF else _lf(octets, first, pieces)


def _crlf(head: bytes, first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    if first:
        yield first
    yield from pieces


def _lf(head: bytes, first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head.replace(b"\r\n", b"\n")
    held = b""
    piece: bytes | None = first
    while piece is not None:
        whole = held + piece if held else piece
        if whole.endswith(b"\r"):
            # Perhaps half of a CRLF: the next piece will tell.
            held, whole = b"\r", whole[:-1]
        else:
            held = b""
        if whole:
            yield whole.replace(b"\r\n", b"\n")
        piece = next(pieces, None)
    if held:
        yield held


def _beginning(pieces: Iterator[bytes]) -> bytes:
    """So much of a message that its header is in it whole: to the first empty line, if there is one."""
    begun = bytearray()
    for piece in pieces:
        known = len(begun)
        begun += piece
        if begun.find(b"\r\n\r\n", max(0, known - 3)) >= 0 or begun[:2] == b"\r\n":
            break
        if len(begun) >= MAX_HEADER_BYTES:
            break  # the scanner looks no further either
    return bytes(begun)


def _first_line(pieces: Iterator[bytes]) -> bytes:
    """So much of a message that its first line is in it."""
    begun = next(pieces, b"")
    while b"\n" not in begun and len(begun) < MAX_HEADER_BYTES:
        piece = next(pieces, None)
        if piece is None:
            break
        begun += piece
    return begun


def _named(begun: bytes) -> bytes:
    """Fit to stand below our fields. Where no field is first there is no header: an empty line says so, lest
    the text be taken for more of our last field (as Postfix does)."""
    if _FIELD_OR_END.match(begun):
        return begun
    return (_MBOX_NAME if begun.startswith(_MBOX_LINES) else b"\r\n") + begun


def _octets(name: str, value: str) -> bytes:
    return field(name, value).encode("utf-8", "replace")
