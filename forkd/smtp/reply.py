"""What is a reply, and what are its bytes? (RFC 5321 4.2, RFC 2034)"""

from __future__ import annotations

import dataclasses
import functools
import re

MAX_LINE_OCTETS = 512
"""RFC 5321 4.5.3.1.5: a reply line has 512 octets at most, code and CRLF included."""
MAX_CHALLENGE_OCTETS = 12_288
"""But for the line of an authentication exchange, which cannot be cut (RFC 4954 4)."""

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}", re.ASCII)
_UNSAFE = re.compile(r"[^\x20-\x7e]")


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One reply to the client: code, enhanced status code (or none), one or more text lines.

    The text is made safe for the wire when it is encoded: whatever is not printable ASCII (or, where
    the client reads UTF-8, not printable) becomes "?", so that neither a client's nor a plugin's bytes
    can split a reply.
    `close` says that the connection ends after it.

    Raises ValueError for a code outside 200..599, no lines, or an enhanced code of another class.
    """

    code: int
    enhanced: str | None
    lines: tuple[str, ...]
    close: bool = False
    _wire: bytes | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.lines:
            raise ValueError("a reply needs at least one line of text")
        _check_codes(self.code, self.enhanced)

    @property
    def ok(self) -> bool:
        """True for 2xx and 3xx: the command took effect."""
        return self.code < 400

    def encode(self, *, smtputf8: bool = False) -> bytes:
        """The bytes on the wire, every line with code, enhanced code and CRLF; made once, then kept.

        smtputf8  the client has said that it reads UTF-8 (RFC 6531 3.7.4.1)
        """
        if smtputf8 and not all(map(str.isascii, self.lines)):
            return _encode_utf8(self)
        wire = self._wire
        if wire is None:
            wire = _encode(self)
            object.__setattr__(self, "_wire", wire)  # a cache: the value stays what it was
        return wire


def reply(code: int, enhanced: str | None, *lines: str, close: bool = False) -> Reply:
    """Short form for tables: `reply(250, "2.1.0", "sender ok")`."""
    return Reply(code, enhanced, lines, close)


@functools.lru_cache(maxsize=512)  # a reply is made for every message; its codes are nearly always the same
def _check_codes(code: int, enhanced: str | None) -> None:
    if not 200 <= code <= 599:
        raise ValueError(f"reply code {code} is not in 200..599")
    if enhanced is not None and (not _ENHANCED.fullmatch(enhanced) or enhanced[0] != str(code)[0]):
        raise ValueError(f"enhanced status code {enhanced!r} does not fit {code}")


def _encode(reply: Reply) -> bytes:
    code = reply.code
    prefix = f"{reply.enhanced} " if reply.enhanced else ""
    room = (MAX_CHALLENGE_OCTETS if code == 334 else MAX_LINE_OCTETS) - len("250-\r\n") - len(prefix)
    if len(reply.lines) == 1 and len(reply.lines[0]) <= room:
        return f"{code} {prefix}{_safe(reply.lines[0])}\r\n".encode("ascii")
    texts = [piece for line in reply.lines for piece in _wrapped(_safe(line), room)]
    last = texts.pop()
    head = "".join(f"{code}-{prefix}{text}\r\n" for text in texts)
    return f"{head}{code} {prefix}{last}\r\n".encode("ascii")


def _encode_utf8(reply: Reply) -> bytes:
    prefix = f"{reply.enhanced} " if reply.enhanced else ""
    room = MAX_LINE_OCTETS - len("250-\r\n") - len(prefix)
    pieces = [piece for line in reply.lines for piece in _wrapped_utf8(line, room)]
    marks = ["-"] * (len(pieces) - 1) + [" "]
    return "".join(
        f"{reply.code}{mark}{prefix}{text}\r\n" for mark, text in zip(marks, pieces, strict=True)
    ).encode()


def _wrapped_utf8(text: str, room: int) -> list[str]:
    """Cut between characters, by octets; what is not printable (controls, line separators, overrides of
    direction, surrogates) is "?"."""
    pieces = [""]
    left = room
    for character in text:
        safe = character if character.isprintable() else "?"
        octets = len(safe.encode())
        if octets > left:
            pieces.append("")
            left = room
        pieces[-1] += safe
        left -= octets
    return pieces


def _safe(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub("?", text)


def _wrapped(text: str, room: int) -> list[str]:
    return [text[i : i + room] for i in range(0, len(text), room)] or [""]
