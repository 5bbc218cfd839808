"""forkd/sandbox/wire.py: the records of a zygote's socket."""

from __future__ import annotations

import pytest

from forkd.rpc import calls
from forkd.sandbox import syscalls, wire
from forkd.sandbox.wire import Death, WireError
from forkd.sdk import channel


def test_requests_and_reports_come_back_as_they_went():
    """PROTOCOL.md, part 1."""
    assert wire.unpack_fork(wire.pack_fork([1, 2, 0xFFFF_FFFF])) == (1, 2, 0xFFFF_FFFF)
    deaths = [Death(1, 99, 9, 1000, 2000, 11_000, 183), Death(2, 0, 0, 0, 0, 0, 0)]
    assert wire.unpack_deaths(wire.pack_deaths(deaths)) == deaths


@pytest.mark.parametrize(
    "record",
    [b"", b"F", b"F\x00", b"F\x01", b"F\x01abc", b"F\x02abcd", b"F\xff" + bytes(4 * 255), b"X\x01abcd"],
)
def test_a_request_out_of_protocol_is_refused(record: bytes):
    """The zygote drops that worker's connection."""
    with pytest.raises(WireError):
        wire.unpack_fork(record)


@pytest.mark.parametrize("record", [b"", b"D", b"D\x00", b"D\x01short", b"F\x01abcd", b"D\x01" + bytes(45)])
def test_a_report_out_of_protocol_is_refused(record: bytes):
    """A zygote is hostile: the worker drops the connection and goes on."""
    with pytest.raises(WireError):
        wire.unpack_deaths(record)


def test_both_ends_agree_on_numbers_written_twice():
    """rpc may not import sandbox, nor the zygote rpc: so the test holds them together."""
    assert wire.MAX_FRAME_BYTES == calls.MAX_FRAME_BYTES
    assert wire.LEASH_FD == syscalls.LEASH_FD
    assert wire.BROKER_FD == channel.BROKER_FD == wire.LEASH_FD + 1
