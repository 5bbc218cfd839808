"""PROXY headers: what HAProxy's proxy-protocol.txt allows is read, all else is refused."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.worker.proxy import MAX_V2_OCTETS, SIGNATURE, BadHeader, Endpoints, Header, HeaderReader

V4 = Endpoints(("192.0.2.7", 40000), ("198.51.100.1", 25))
V6 = Endpoints(("2001:db8::7", 40000), ("2001:db8::1", 25))


def v2(command: int, family: int, body: bytes, *, version: int = 2, length: int | None = None) -> bytes:
    """A header of version 2, byte by byte as section 2.2 draws it."""
    fixed = struct.pack("!BBH", version << 4 | command, family, len(body) if length is None else length)
    return SIGNATURE + fixed + body


def addresses(kind: int, source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    return (
        socket.inet_pton(kind, source)
        + socket.inet_pton(kind, destination)
        + struct.pack("!HH", source_port, destination_port)
    )


TCP4 = addresses(socket.AF_INET, "192.0.2.7", "198.51.100.1", 40000, 25)
TCP6 = addresses(socket.AF_INET6, "2001:db8::7", "2001:db8::1", 40000, 25)
TLVS = b"\x01\x00\x02h2" + b"\x03\x00\x04\xde\xad\xbe\xef" + b"\x04\x00\x00" + b"\xea\x00\x01x"

GOOD = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", V4),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n", V6),
    "v1 TCP6 written long": (b"PROXY TCP6 2001:0db8:0:0:0:0:0:0007 2001:DB8::1 40000 25\r\n", V6),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN with what is to be ignored": (
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        None,
    ),
    "v2 TCP4": (v2(1, 0x11, TCP4), V4),
    "v2 TCP6": (v2(1, 0x21, TCP6), V6),
    "v2 TCP4 with TLVs": (v2(1, 0x11, TCP4 + TLVS), V4),
    "v2 TCP4 with TLVs that make no sense": (v2(1, 0x11, TCP4 + b"\xff\xff\xff"), V4),
    "v2 LOCAL": (v2(0, 0x00, b""), None),
    "v2 LOCAL with addresses to be ignored": (v2(0, 0x11, TCP4), None),
    "v2 UNSPEC": (v2(1, 0x00, b"whatever"), None),
    "v2 unix": (v2(1, 0x31, b"/run/a".ljust(108, b"\0") * 2), None),
    "v2 as long as we take": (v2(1, 0x11, TCP4.ljust(MAX_V2_OCTETS, b"\0")), V4),
}

BAD = {
    "SMTP": b"EHLO client.example\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "lower case": b"proxy TCP4 192.0.2.7 198.51.100.1 40000 25\r\n",
    "v1 family of its own": b"PROXY TCP5 192.0.2.7 198.51.100.1 40000 25\r\n",
    "v1 UDP": b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 25\r\n",
    "v1 nothing": b"PROXY \r\n",
    "v1 too few words": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n",
    "v1 too many words": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25 26\r\n",
    "v1 two spaces": b"PROXY TCP4  192.0.2.7 198.51.100.1 40000 25\r\n",
    "v1 address of the other family": b"PROXY TCP4 2001:db8::7 2001:db8::1 40000 25\r\n",
    "v1 address with zeros": b"PROXY TCP4 192.0.02.7 198.51.100.1 40000 25\r\n",
    "v1 address with a scope": b"PROXY TCP6 fe80::1%eth0 2001:db8::1 40000 25\r\n",
    "v1 name": b"PROXY TCP4 localhost 198.51.100.1 40000 25\r\n",
    "v1 not ASCII": b"PROXY TCP4 192.0.2.7\xb2 198.51.100.1 40000 25\r\n",
    "v1 port too high": b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
    "v1 port signed": b"PROXY TCP4 192.0.2.7 198.51.100.1 +4000 25\r\n",
    "v1 port with underscore": b"PROXY TCP4 192.0.2.7 198.51.100.1 4_000 25\r\n",
    "v1 port with a zero": b"PROXY TCP4 192.0.2.7 198.51.100.1 04000 25\r\n",
    "v1 bare LF, then too long": b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\n" + b"x" * 80,
    "v1 too long": b"PROXY UNKNOWN " + b"x" * 93 + b"\r\n",
    "v2 signature cut": SIGNATURE[:-1] + b"\r" + v2(1, 0x11, TCP4)[12:],
    "v2 version 1": v2(1, 0x11, TCP4, version=1),
    "v2 version 3": v2(1, 0x11, TCP4, version=3),
    "v2 command 2": v2(2, 0x11, TCP4),
    "v2 family 4": v2(1, 0x41, TCP4),
    "v2 datagrams": v2(1, 0x12, TCP4),
    "v2 no protocol": v2(1, 0x10, TCP4),
    "v2 too short for its addresses": v2(1, 0x11, TCP4[:-1]),
    "v2 TCP6 with the length of TCP4": v2(1, 0x21, TCP4),
    "v2 longer than we take": v2(1, 0x11, TCP4, length=MAX_V2_OCTETS + 1),
    "v2 endless": v2(1, 0x11, TCP4, length=65535),
}


def read(pieces: list[bytes]) -> tuple[Header | None, bytes]:
    """Feed piece by piece; the header, and all that stood behind it."""
    reader = HeaderReader()
    header = None
    behind = b""
    for piece in pieces:
        if header is not None:
            behind += piece
            continue
        header = reader.feed(piece)
        if header is not None:
            behind = reader.rest
    return header, behind


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("rest", [b"", b"EHLO c.example\r\n", SIGNATURE, b"\x16\x03\x01"])
def test_a_header_is_read_however_it_is_cut(name: str, rest: bytes):
    """Whole, byte by byte, and cut in two at every place; what stands behind is not touched."""
    octets, endpoints = GOOD[name]
    whole = octets + rest
    cuts = range(1, len(whole)) if len(whole) < 1000 else (1, 12, 16, 20, 28, len(octets) - 1, len(octets))
    for pieces in (
        [whole],
        [whole[i : i + 1] for i in range(len(whole))],
        *([whole[:cut], whole[cut:]] for cut in cuts),
    ):
        header, behind = read(pieces)
        assert header == Header(endpoints)
        assert behind == rest


@pytest.mark.parametrize("name", GOOD)
def test_a_header_that_is_not_whole_is_none(name: str):
    """No prefix is taken for a header, and none for a fault."""
    octets, _ = GOOD[name]
    for cut in range(len(octets)):
        assert HeaderReader().feed(octets[:cut]) is None


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_however_it_is_cut(name: str):
    """Section 2: the receiver must close where the header is not as specified."""
    octets = BAD[name]
    for pieces in ([octets], [octets[i : i + 1] for i in range(len(octets))]):
        with pytest.raises(BadHeader):
            read(pieces)


@given(st.binary(max_size=200), st.integers(0, 40), st.sampled_from(sorted(GOOD)))
def test_any_octets_give_a_header_or_a_refusal_and_nothing_else(noise: bytes, keep: int, name: str):
    """Hostile octets cause no other exception, and memory stays bounded."""
    reader = HeaderReader()
    try:
        reader.feed(GOOD[name][0][:keep])
        reader.feed(noise)
    except BadHeader:
        pass
