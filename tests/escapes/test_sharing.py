"""Attacks on what sessions share: used sandboxes (limits.reuse), the places there are, a scanner's health."""

from __future__ import annotations

import asyncio
import os

import pytest

from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox.host import Host, HostPlugin, Sandbox
from tests.support.sandboxes import MODES, Stage, as_mode, failure_of, greet, mail, stage, text_of

TELL = """
from forkd.sdk import Plugin, deny
def plugin_init(settings):
    def mail(session, sender):
        facts = [getattr(session, name, None) for name in ("id", "helo", "client_ip", "user", "client_name")]
        return deny("5.7.1", repr((facts, dict(getattr(session, "exports", {})))))
    def data(session, envelope):
        return deny("5.7.1", repr([str(r) for r in envelope.recipients]) + repr(str(envelope.sender)))
    return Plugin(mail=mail, data=data)
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_used_sandbox_tells_nothing_of_the_session_before(mode: str):
    """The first frame says `new`: facts, exports, sender and recipients of the old session are gone."""
    first = (
        b'{"n":1,"new":true,"hook":"data","session":{"id":"one","helo":"secret.example","client_ip":"192.0.2.66",'
        b'"user":"alice","client_name":"secret","exports":{"spf":"secret"}},'
        b'"sender":{"local":"secret","domain":"d"},"recipients":[{"local":"secret","domain":"d"}],"args":{}}'
    )
    second = b'{"n":1,"new":true,"hook":"data","session":{"id":"two"},"args":{}}'
    third = b'{"n":2,"hook":"mail","args":{"sender":{"local":"x","domain":"d"}}}'

    def body() -> None:
        with stage(mode) as st:
            st.start(TELL, whole=True, reuse=10, reads=("envelope",))

            async def scenario(st: Stage) -> None:
                old = await st.host.take("plugin", "one")
                assert "secret" in text_of(await old.call(first, 1, timeout_s=5))
                old.release()
                new = await st.host.take("plugin", "two")
                said = text_of(await new.call(second, 1, timeout_s=5))
                said += text_of(await new.call(third, 2, timeout_s=5))
                assert new.pid == old.pid, "else nothing was tried"
                assert "'two'" in said
                for of_old in ("secret", "192.0.2.66", "alice", "'one'"):
                    assert of_old not in said

            st.run(scenario, spare=0, reuse=10)

    as_mode(mode, body)


TALK = {
    "at once": """
def attack(_):
    os.write(3, b'{"n":1,"verdict":{"do":"deny","code":550,"enhanced":"5.7.1","text":"said"}}')
    os.write(3, b'{"n":1}')
    while True: time.sleep(1)
""",
    "while it rests": """
def attack(_):
    os.write(3, b'{"n":1,"verdict":{"do":"deny","code":550,"enhanced":"5.7.1","text":"said"}}')
    time.sleep(0.2)  # released by then; where it is not yet, it is the case above
    while True:
        os.write(3, b'{"n":1}')
""",
    "an empty record": """
def attack(_):
    os.write(3, b'{"n":1,"verdict":{"do":"deny","code":550,"enhanced":"5.7.1","text":"said"}}')
    time.sleep(0.2)  # released by then; where it is not yet, it is the case above
    while True:
        call("write", 3, 0, 0)
        import _socket
        _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 3).send(b"")
""",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TALK)
def test_a_released_sandbox_that_talks_is_thrown_away(name: str, mode: str):
    """An answer prepared for the next session's first call must never be taken for one."""

    def body() -> None:
        with stage(mode) as st:
            st.start(TALK[name], reuse=10)

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "one")
                assert text_of(await mail(sandbox)) == "said"
                if name == "at once":
                    await asyncio.sleep(0.05)  # its second answer is there; else it is another case
                sandbox.release()
                until = asyncio.get_running_loop().time() + 5
                while st.host.alive("plugin"):
                    assert asyncio.get_running_loop().time() < until, "it lives on"
                    await asyncio.sleep(0.01)
                again = await st.host.take("plugin", "two")
                await greet(again, 1)
                assert again.pid != sandbox.pid

            st.run(scenario, spare=0, reuse=10)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_used_sandboxes_never_cross_plugins(mode: str):
    """Each plugin's zygote forks its own; what was released to one is never handed out by another."""

    def body() -> None:
        with stage(mode) as one:
            one.start("def attack(_): return 'one'\n", reuse=10)
            with stage(mode) as other:
                other.start("def attack(_): return 'other'\n", reuse=10)
                one.run(lambda _: scenario(one, other), spare=0)

    async def scenario(one: Stage, other: Stage) -> None:
        plugins = [
            HostPlugin(name=name, socket_path=each.path, reuse=10, spare=0)
            for name, each in (("one", one), ("other", other))
        ]
        host = Host(asyncio.get_running_loop(), plugins)
        try:
            for _ in range(3):
                for name in ("one", "other"):
                    sandbox = await host.take(name, "s")
                    assert text_of(await mail(sandbox)) == name
                    sandbox.release()
        finally:
            await host.close()

    as_mode(mode, body)


class Held:
    """A client that holds what it gets and does nothing with it."""

    def __init__(self, st: Stage, session: str, network: str) -> None:
        self.st, self.session, self.network = st, session, network
        self.sandbox: Sandbox | None = None

    async def take(self) -> Held:
        self.sandbox = await self.st.host.take("plugin", self.session, network=self.network, evict=self.evict)
        return self

    def evict(self) -> bool:
        assert self.sandbox is not None
        self.sandbox.close()
        return True


@pytest.mark.parametrize("mode", MODES)
def test_one_client_that_holds_all_it_can_starves_nobody(mode: str):
    """It gets an eighth; the others' sessions are served at once, without anybody giving way."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): return 'x'\n")

            async def scenario(st: Stage) -> None:
                greedy = [asyncio.ensure_future(Held(st, f"g{n}", "greedy").take()) for n in range(200)]
                await asyncio.sleep(0)
                for n in range(30):
                    sandbox = await st.host.take("plugin", f"c{n}", network=f"control {n}")
                    await greet(sandbox, 1)
                    sandbox.close()
                assert sum(task.done() and not task.exception() for task in greedy) == 2
                await asyncio.gather(*greedy, return_exceptions=True)

            st.run(scenario, sandboxes=16, spare=0, overload_wait_s=0.4)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_many_clients_that_hold_all_there_is_give_way(mode: str):
    """Each from a network of its own, all idle: who has something to do gets a place within overload_wait.

    Of strangers that is; the quarter that is kept for known networks they never had.
    """

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): return 'x'\n")

            async def scenario(st: Stage) -> None:
                held = [await Held(st, f"h{n}", f"n{n}").take() for n in range(12)]
                assert st.host.alive("plugin") == 12
                for n in range(4):
                    sandbox = await st.host.take("plugin", f"c{n}", network=f"control {n}")
                    await greet(sandbox, 1)
                    sandbox.close()
                assert sum(each.sandbox is not None and each.sandbox.closed for each in held) == 1

            st.run(scenario, sandboxes=16, spare=0, overload_wait_s=2.0)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_crashes_a_scanner_again_and_again(mode: str):
    """Forty crashes by one client, at once and in a row: its own calls fail, everybody else is scanned."""
    code = """
def attack(text):
    if text == "crash": ctypes.string_at(8)
    return "scanned " + text
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code)

            async def crash(n: int) -> str:
                try:
                    sandbox = await st.host.take("plugin", f"e{n}", network="evil")
                except Overloaded:
                    return "overload"
                failed: CallFailed = await failure_of(mail(sandbox, "crash"))
                sandbox.release()
                return failed.cause

            async def scenario(st: Stage) -> None:
                attacks = [asyncio.ensure_future(crash(n)) for n in range(40)]
                for n in range(40):
                    sandbox = await st.host.take("plugin", f"c{n}", network=f"n{n}")
                    assert text_of(await mail(sandbox, f"m{n}")) == f"scanned m{n}"
                    sandbox.release()
                causes = await asyncio.gather(*attacks)
                assert "crash" in causes
                assert set(causes) <= {"crash", "overload"}
                assert st.host.alive("plugin") == 0

            st.run(scenario, sandboxes=16, spare=0, overload_wait_s=0.5)
            assert os.path.exists(f"/proc/{st.zygote.pid}")  # noqa: PTH110 - the zygote is none the worse

    as_mode(mode, body)
