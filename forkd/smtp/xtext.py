"""How does text travel in a parameter? xtext, RFC 3461 4: printable ASCII, with +XX for the rest."""

from __future__ import annotations

import re

PATTERN = r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*"
"""What xtext looks like. Hex digits are upper case."""
_SYNTAX = re.compile(PATTERN)
_TO_ENCODE = re.compile(r"[\x00-\x20+=\x7f]")
_HEX = re.compile(rb"\+([0-9A-F]{2})")


def decode(text: str) -> str | None:
    """The text meant, or None where `text` is no xtext, or its octets are no printable UTF-8."""
    if not _SYNTAX.fullmatch(text):
        return None
    if "+" not in text:
        return text
    octets = _HEX.sub(lambda pair: bytes.fromhex(pair[1].decode("ascii")), text.encode("ascii"))
    try:
        decoded = octets.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return decoded if decoded.isprintable() else None


def encode(text: str) -> str:
    """Printable text in xtext; what is not ASCII stays as it is (RFC 3461 4; RFC 6533 3 says what then)."""
    return _TO_ENCODE.sub(lambda character: f"+{ord(character[0]):02X}", text)
