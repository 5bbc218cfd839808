"""What stands in a header, octet by octet? For those who write or compare header text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forkd.sdk.headers import split_header

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n]|\r(?!\n)|\r?\n[ \t])*)")
"""RFC 5322 2.2: ftext, colon, value with its folds. Space before the colon is obsolete (4.5) and common."""

_FOLD = re.compile(rb"\r?\n(?=[ \t])")


def fields(message: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each field of the header of `message` (or of its beginning): name in lower case, unfolded value.

    Values lose the fold's line ends and outer space, nothing else. Lines that are no fields are passed over.
    """
    for match in _FIELD.finditer(message, 0, split_header(message)):
        start = match.start()
        if start == 0 or message[start - 1] == 0x0A:
            yield match[1].lower(), _FOLD.sub(b"", match[2]).strip(b" \t")


def values(message: bytes, name: bytes) -> list[bytes]:
    """The values of all fields of that name (lower case), top first."""
    return [value for have, value in fields(message) if have == name]
