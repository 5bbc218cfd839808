"""Attacks 62 to 69: whatever comes up the channel, it costs that session one call and the worker nothing."""

from __future__ import annotations

from tests.escapes.attack import Attack

RAW = """
import _socket
channel = None
def say(*records):
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 3)
    for record in records:
        channel.send(record)
    while True: time.sleep(1)
"""


def _breach(name: str, records: str, detail: str) -> Attack:
    return Attack(
        name=name,
        code=RAW + f"\ndef attack(_):\n    say({records})\n",
        fails=("protocol", detail),
        status="SIGKILL",
        by=("worker",),
    )


ATTACKS = (
    _breach("62 garbage", r"b'\x00\xff<garbage>'", "garbage"),
    _breach("63 a record too long", "b'{\"n\":1}' + b' ' * 65_536", "too long"),
    _breach("63 a record just too long", "b'{\"n\":1}'.ljust(65_537)", "too long"),
    Attack(
        name="63 a record of 8 MB",
        code="""
def attack(_):
    return tried(os.write, 3, bytes(8 << 20))
""",
        says="EMSGSIZE",
        by=("kernel",),
    ),
    _breach("64 an empty record", "b''", "empty frame"),
    _breach("64 empty records", "*[b''] * 100", "empty frame"),
    _breach("65 frames without an answer", "*[b'{\"n\":7}'] * 100", "answer 7 to call 1"),
    Attack(
        name="65 a stream of frames that never ends",
        code="""
import _socket
def attack(_):
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 3)
    while True: channel.send(b'{"n":7}')
""",
        fails=("protocol", "answer 7 to call 1"),
        status="SIGKILL",
        by=("worker",),
    ),
    _breach("66 an answer in two records", "b'{\"n\"', b':1}'", "truncated|malformed|Input"),
    _breach("67 an answer byte by byte", "*[bytes([octet]) for octet in b'{\"n\":1}']", "truncated|Input"),
    _breach("68 an answer to a later call", "b'{\"n\":2}'", "answer 2 to call 1"),
    _breach("68 an answer to no call", "b'{\"n\":7}'", "answer 7 to call 1"),
    _breach("69 a wrong type", 'b\'{"n":"1"}\'', "Expected `int`"),
    _breach("69 an unknown key", 'b\'{"n":1,"x":1}\'', "unknown field"),
    _breach("69 NaN", "b'{\"n\":NaN}'", "invalid character|malformed"),
    _breach("69 a huge number", "b'{\"n\":' + b'9' * 5000 + b'}'", "out of range|[Ii]nteger|int"),
    _breach("69 deep nesting", "b'{\"n\":1,\"verdict\":' + b'[' * 60_000", "Expected `object|recursion"),
    _breach("69 deep nesting in an unknown key", "b'{\"x\":' + b'[' * 60_000", "unknown field|recursion"),
    _breach("69 no UTF-8", r"b'{\"n\":1,\"error\":\"\xff\xfe\"}'", "UTF-8|utf-8|unicode"),
    _breach(
        "69 a lone surrogate", r"b'{\"n\":1,\"error\":\"\\ud800\"}'", "truncated|surrogate|malformed|invalid"
    ),
    _breach("69 an unknown verdict", 'b\'{"n":1,"verdict":{"do":"relay"}}\'', "Invalid enum"),
    _breach("69 an unknown edit", 'b\'{"n":1,"edits":[{"op":"delete"}]}\'', "Invalid value|tag"),
    _breach("69 two values", 'b\'{"n":1}{"n":1}\'', "trailing"),
)
