"""What of a message comes back with a report on it? All of it or its header, by RET, length and octets."""

from __future__ import annotations

import binascii
import dataclasses
import re
from collections.abc import Iterable

from forkd.sdk.headers import split_header

MAX_LINE = 998
"""Octets without CRLF (RFC 5322 2.1.1)."""
MAX_HEADER = 64 * 1024
"""Octets of a header that come back; of a longer one its first fields."""

_UNFIT = re.compile(rb"\0|\r(?!\n)|(?<!\r)\n|[^\r\n]{%d}" % (MAX_LINE + 1))
"""What neither 7bit nor 8bit may hold (RFC 2045 2.7, 2.8)."""
_FIELD = re.compile(rb"\n(?=[!-9;-~]+[ \t]*:)")


@dataclasses.dataclass(frozen=True, slots=True)
class Returned:
    """What comes back, as it came: `whole` with its body, or the header alone."""

    octets: bytes
    header: bytes
    whole: bool
    shortened: bool = False
    """The sender might have had more, but the message is too long for that or in no form to be sent back."""

    @property
    def utf8_header(self) -> bool:
        """Its header has letters beyond ASCII, and they are UTF-8 (RFC 6532)."""
        return not self.header.isascii() and _is_utf8(self.header)

    def part(self, *, smtputf8: bool) -> tuple[bytes, bool]:
        """The third part with its own header, and whether it has octets beyond ASCII.

        The whole message must stay as it is: such a type has no encoding but 7bit and 8bit (RFC 2046 5.2.1).
        """
        octets = self.octets
        eight_bit = not octets.isascii()
        utf8 = smtputf8 and self.utf8_header
        if self.whole:
            if not self.header and not octets.startswith(b"\r\n"):
                octets = b"\r\n" + octets  # it has no header, and its text must not be taken for one
            kind = "message/global" if utf8 else "message/rfc822"
            encoding = "8bit" if eight_bit else "7bit"
        else:
            kind = "message/global-headers" if utf8 else "text/rfc822-headers"
            encoding = "8bit" if eight_bit else "7bit"
            if (eight_bit and not utf8) or _UNFIT.search(octets):
                octets = quoted_printable(octets)
                encoding, eight_bit = "quoted-printable", False
                if self.utf8_header and not utf8:
                    kind += "; charset=utf-8"
        header = (
            f"Content-Description: {'Message' if self.whole else 'Header of the message'}\r\n"
            f"Content-Type: {kind}\r\n"
            f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
        )
        return header.encode("ascii") + octets, eight_bit


def choose(original: Iterable[bytes], *, ret: str, failed: bool, most: int) -> Returned:
    """Take of a message what comes back.

    original  its octets in pieces, CRLF line ends; read no further than is needed, and held in memory then
    ret       FULL, HDRS, or empty: then what is short comes back whole
    failed    the report tells of a failure: other reports have the header alone, and so have reports on
              failures where the sender said HDRS (RFC 3461 4.3)
    most      octets; what is longer has its header alone come back
    """
    wants_whole = failed and ret != "HDRS"
    begun = bytearray()
    ended = True
    for piece in original:
        begun += piece
        if len(begun) > (max(most, MAX_HEADER) if wants_whole else MAX_HEADER):
            ended = False
            break
    octets = bytes(begun)
    header = _header(octets)
    if wants_whole and ended and len(octets) <= most and not _UNFIT.search(octets):
        return Returned(octets, header, whole=True)
    return Returned(header, header, whole=False, shortened=wants_whole)


def quoted_printable(octets: bytes) -> bytes:
    """RFC 2045 6.7, with CRLF. A line end that is no CRLF is octets like others."""
    lines = octets.split(b"\r\n")
    return b"\r\n".join([_quoted(line) for line in lines])


def _quoted(line: bytes) -> bytes:
    # istext false: CR and LF within a line are written =0D and =0A.
    return binascii.b2a_qp(line, quotetabs=False, istext=False, header=False).replace(b"=\n", b"=\r\n")


def _header(octets: bytes) -> bytes:
    """The header without the empty line behind it; of a long one, whole fields only."""
    end = split_header(octets[:MAX_HEADER])
    header = octets[:end]
    if header.endswith(b"\r\n\r\n"):
        return header[:-2]
    if header == b"\r\n":
        return b""
    if end >= MAX_HEADER:
        cuts = [match.end() for match in _FIELD.finditer(header)]
        return header[: cuts[-1]] if cuts else header
    return header


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
