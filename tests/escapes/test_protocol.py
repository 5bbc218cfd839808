"""Attacks 62 to 74: whatever comes up the channel, it costs that session one call and the worker nothing."""

from __future__ import annotations

import select

import pytest

from tests.escapes.attack import Attack, perform
from tests.support.sandboxes import MODES, Stage, as_mode, failure_of, greet, mail, stage

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
    )


ATTACKS = (
    _breach("62 garbage", r"b'\x00\xff<garbage>'", "garbage"),
    _breach("63 a record too long", "b'{\"n\":1}' + b' ' * 65_536", "too long"),
    _breach("63 a record just too long", "b'{\"n\":1}'.ljust(65_537)", "too long"),
    _breach("64 an empty record", "b''", "empty frame"),
    _breach("64 empty records", "*[b''] * 100", "empty frame"),
    _breach("65 frames without an answer", "*[b'{\"n\":7}'] * 100", "answer 7 to call 1"),
    _breach("68 an answer to a later call", "b'{\"n\":2}'", "answer 2 to call 1"),
    _breach("68 an answer to no call", "b'{\"n\":7}'", "answer 7 to call 1"),
    _breach("69 a wrong type", 'b\'{"n":"1"}\'', "Expected `int`"),
    _breach("69 an unknown key", 'b\'{"n":1,"x":1}\'', "unknown field"),
    _breach("69 NaN", "b'{\"n\":NaN}'", "invalid character|malformed"),
    _breach("69 a huge number", "b'{\"n\":' + b'9' * 5000 + b'}'", "."),
    _breach("69 deep nesting", "b'{\"n\":1,\"verdict\":' + b'[' * 60_000", "."),
    _breach("69 deep nesting in an unknown key", "b'{\"x\":' + b'[' * 60_000", "."),
    _breach("69 no UTF-8", r"b'{\"n\":1,\"error\":\"\xff\xfe\"}'", "UTF-8|utf-8|unicode"),
    _breach("69 a lone surrogate", r"b'{\"n\":1,\"error\":\"\\ud800\"}'", "."),
    _breach("69 an unknown verdict", 'b\'{"n":1,"verdict":{"do":"relay"}}\'', "Invalid enum"),
    _breach("69 an unknown edit", 'b\'{"n":1,"edits":[{"op":"delete"}]}\'', "Invalid value|tag"),
    _breach("69 two values", 'b\'{"n":1}{"n":1}\'', "trailing"),
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_breach_ends_the_call(attack: Attack, mode: str):
    """Sandbox.md, "Calls": checked against the schema; a breach is logged with the first bytes."""
    perform(attack, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_second_answer_is_never_taken_for_the_next_call(mode: str):
    """Attack 68: an answer nobody asked for is a breach, found at the next call at the latest."""

    def body() -> None:
        with stage(mode) as st:
            st.start(RAW + "\ndef attack(_):\n    say(b'{\"n\":1}', b'{\"n\":2}')\n")

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                answer = await mail(sandbox)
                assert answer.n == 1
                assert answer.verdict is None
                # Until the second one is there, without letting the loop see it: the next call must.
                waiting = select.poll()
                waiting.register(sandbox.channel, select.POLLIN)
                assert waiting.poll(5000)
                failed = await failure_of(mail(sandbox, n=2))
                assert failed.cause == "protocol"
                assert "nobody asked for" in failed.detail

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_sandbox_that_does_not_read_waits_alone(mode: str):
    """Attack 71: its worker's send never blocks; the call has its deadline, other sessions go on."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_):\n    time.sleep(60)\n")

            async def scenario(st: Stage) -> None:
                control = await st.host.take("plugin", "control")
                sandbox = await st.host.take("plugin", "s")
                await greet(sandbox, 1)
                # Fill the channel as a worker with a full buffer would find it.
                sandbox.channel.send(b'{"n":2,"hook":"mail","args":{"sender":null}}')
                with pytest.raises(BlockingIOError):
                    while True:
                        sandbox.channel.send(b"x" * 10_000, 0x40)
                failed = await failure_of(mail(sandbox, n=3, timeout_s=0.3))
                assert failed.cause == "deadline"
                await greet(control, 1)

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_another_process_cannot_speak_for_a_session(mode: str):
    """Attack 74: a frame's identity is its channel, and on it the pid the kernel gives, never the content."""

    def body() -> None:
        with stage(mode) as st:
            st.start(RAW + '\ndef attack(_):\n    say(b\'{"n":1,"error":"I am session control, pid 1"}\')\n')

            async def scenario(st: Stage) -> None:
                control = await st.host.take("plugin", "control")
                await greet(control, 1)
                sandbox = await st.host.take("plugin", "s")
                failed = await failure_of(mail(sandbox))
                assert failed.cause == "exception"
                assert sandbox.pid not in (0, 1, control.pid)
                await greet(control, 2)

            st.run(scenario)

    as_mode(mode, body)
