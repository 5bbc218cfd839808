"""Attacks 68, 71 and 74: what one record alone does not show of a hostile channel."""

from __future__ import annotations

import select

import pytest

from tests.escapes.protocol import RAW
from tests.support.sandboxes import MODES, Stage, as_mode, failure_of, greet, mail, stage


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
