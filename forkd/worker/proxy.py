"""Who is behind this proxy? The PROXY protocol's header, versions 1 and 2, sans I/O.

Source: HAProxy's doc/proxy-protocol.txt, sections 2.1 and 2.2. Nothing is assumed about how the octets are
cut, and what stands behind the header (which may be TLS) is given back.

The package proxy-protocol was looked at (0.11.3): its v1 parser wants the line alone, and malformed
addresses, ports and lengths leave it as ValueError and struct.error.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import struct
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""Of version 2, 12 octets; the shortest header of version 1 has 15."""
MAX_V1_OCTETS: Final = 107
"""Section 2.1: the longest line with its CRLF."""
MAX_V2_OCTETS: Final = 4096
"""Of what follows the fixed part. Addresses take 216 at most; HAProxy's TLVs with a client certificate's
name some 600. Beyond it somebody wants our memory, not our attention."""

_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_FIXED = struct.Struct("!BBH")
_V2_ADDRESSES: Final = {
    1: struct.Struct("!4s4sHH"),
    2: struct.Struct("!16s16sHH"),
    3: struct.Struct("108s108s"),
}
"""Address family -> source, destination, ports; 3 (AF_UNIX) has only names."""
_STREAM: Final = 1


class BadHeader(Exception):  # noqa: N818 - a state of the world
    """This is no PROXY header: the connection must be closed (section 2)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoints:
    """The connection as the proxy has it: (address, port) of the client, and of where it connected to."""

    source: tuple[str, int]
    destination: tuple[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """A whole header. `endpoints` is None where the connection's own count: LOCAL (the proxy itself, as
    for its health checks), UNKNOWN, UNSPEC, or unix sockets at the proxy."""

    endpoints: Endpoints | None


class HeaderReader:
    """Reads one header: feed() what comes until it gives the Header; `rest` is what stood behind it.

    TLVs of version 2 are read over; a checksum among them is not verified (section 2.2.4 leaves it to us,
    and TCP has one).
    """

    __slots__ = ("_data", "rest")

    def __init__(self) -> None:
        self._data = b""
        self.rest = b""
        """Behind a whole header: SMTP, or a TLS handshake."""

    def feed(self, data: bytes) -> Header | None:
        """Take octets; the header when it is whole. Raises BadHeader as soon as it cannot become one."""
        self._data += data
        have = self._data
        if have[: len(SIGNATURE)] == SIGNATURE[: len(have)]:
            return self._second()
        if have[:6] == b"PROXY "[: len(have)]:
            return self._first()
        raise BadHeader("no PROXY header")

    def _first(self) -> Header | None:
        line, end, rest = self._data[:MAX_V1_OCTETS].partition(b"\r\n")
        if not end:
            if len(self._data) >= MAX_V1_OCTETS:
                raise BadHeader("version 1: the line is too long")
            return None
        self.rest = rest + self._data[MAX_V1_OCTETS:]
        words = line.split(b" ")
        if words[1] == b"UNKNOWN":
            return Header(None)
        if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
            raise BadHeader("version 1: not PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT")
        version = 4 if words[1] == b"TCP4" else 6
        source, destination = (_address(word, version) for word in words[2:4])
        source_port, destination_port = (_port(word) for word in words[4:6])
        return Header(Endpoints((source, source_port), (destination, destination_port)))

    def _second(self) -> Header | None:
        start = len(SIGNATURE)
        if len(self._data) < start + _FIXED.size:
            return None
        version_command, family_protocol, length = _FIXED.unpack_from(self._data, start)
        if version_command >> 4 != 2 or version_command & 15 > 1:
            raise BadHeader("version 2: unknown version or command")
        if length > MAX_V2_OCTETS:
            raise BadHeader(f"version 2: {length} octets")
        start += _FIXED.size
        if len(self._data) < start + length:
            return None
        self.rest = self._data[start + length :]
        family, protocol = family_protocol >> 4, family_protocol & 15
        if version_command & 15 == 0 or family_protocol == 0:  # LOCAL; UNSPEC
            return Header(None)
        addresses = _V2_ADDRESSES.get(family)
        if addresses is None or protocol != _STREAM:
            raise BadHeader("version 2: no stream of a family we know")
        if length < addresses.size:
            raise BadHeader("version 2: too short for its addresses")
        if family == 3:
            return Header(None)
        source, destination, source_port, destination_port = addresses.unpack_from(self._data, start)
        return Header(
            Endpoints(
                (str(ipaddress.ip_address(source)), source_port),
                (str(ipaddress.ip_address(destination)), destination_port),
            )
        )


def _address(word: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(word.decode("ascii"))
    except ValueError as error:
        raise BadHeader("version 1: an address that is none") from error
    if address.version != version or "%" in str(address):
        raise BadHeader("version 1: an address of the other family")
    return str(address)


def _port(word: bytes) -> int:
    if not _PORT.fullmatch(word) or int(word) > 65535:
        raise BadHeader("version 1: a port that is none")
    return int(word)
