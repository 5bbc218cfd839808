"""A plugin's new body on its way into the spool (worker/bodies.py)."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.rpc.calls import CallFailed
from forkd.smtp.chunks import ChunkReader
from forkd.smtp.events import DataChunk, DataEnd
from forkd.smtp.lines import Input
from forkd.worker.bodies import Body


class Kept:
    """What reached the file."""

    def __init__(self, *, limit: int = 1 << 20, lead: bytes = b"") -> None:
        self.octets = b""
        self.finished: list[Body] = []
        self.body = Body(self._keep, offset=7, lead=lead, limit=limit, done=self.finished.append)

    def _keep(self, octets: bytes) -> None:
        self.octets += octets

    def take(self, octets: bytes, cuts: list[int]) -> bytes:
        at = 0
        for cut in [*cuts, len(octets)]:
            self.body.write(octets[at : at + cut])
            at += cut
        self.body.finish()
        return self.octets


LINES = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b" ", b"\xc3\xa4"]), max_size=12).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 3), max_size=12)


@given(LINES, CUTS)
def test_a_body_is_made_text_as_a_clients_message_is(octets: bytes, cuts: list[int]) -> None:
    """Whatever the cuts: what BDAT of the same octets gives under wire = "normalize"."""
    reader, source, wanted = ChunkReader(1 << 20, normalize=True), Input(), b""
    source.receive(octets)
    reader.begin(len(octets), last=True)
    while isinstance(event := reader.next_event(source), DataChunk):
        wanted += event.data
    assert isinstance(event, DataEnd)
    assert Kept().take(octets, cuts) == wanted


@given(LINES, CUTS, st.sampled_from([b"", b"\r\n"]))
def test_length_sum_and_place_are_those_of_what_lies_in_the_file(
    octets: bytes, cuts: list[int], lead: bytes
) -> None:
    """The envelope says where the body is and how to check it (queue/FORMAT.md)."""
    kept = Kept(lead=lead)
    written = kept.take(octets, cuts)
    assert written.startswith(lead)
    body = kept.body
    assert (body.offset, body.octets, body.crc) == (7, len(written), zlib.crc32(written))
    assert body.ascii is written.isascii()


@pytest.mark.parametrize("pieces", [[b"a\0b"], [b"a", b"\0"]])
def test_a_nul_is_a_breach(pieces: list[bytes]) -> None:
    """No message has one (RFC 5321 4.5.2): the plugin's on_failure decides."""
    kept = Kept()
    with pytest.raises(CallFailed, match="NUL"):
        for piece in pieces:
            kept.body.write(piece)
    assert not kept.finished


@pytest.mark.parametrize(
    ("octets", "fits"), [(b"x" * 8 + b"\n", True), (b"x" * 9 + b"\n", False), (b"\n" * 6, False)]
)
def test_the_limit_counts_what_it_becomes(octets: bytes, fits: bool) -> None:
    """CRLF for LF makes it longer; the limit is that of every message."""
    kept = Kept(limit=10)
    if fits:
        kept.take(octets, [])
        assert kept.finished == [kept.body]
        return
    with pytest.raises(CallFailed, match="too big"):
        kept.take(octets, [])
    assert not kept.finished
