"""Real sandboxes that ask a real broker: the fourth descriptor, from the worker to the plugin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkd.config.schema import Capabilities, Dns, State
from forkd.rpc.calls import Answer
from tests.support.broker import Broker, broker
from tests.support.nameserver import NameServer
from tests.support.sandboxes import MODES, Stage, as_mode, mail, stage, text_of

SOURCE = """
from forkd.sdk import CapabilityError, NotGranted, Plugin, QuotaExceeded, StateError, Unavailable, deny
import os, time

def plugin_init(settings):
    def mail(session, sender):
        try:
            said = eval(sender.local, {**globals(), "s": session})
        except (CapabilityError, NotGranted, TimeoutError, ValueError, OSError) as error:
            said = f"{type(error).__name__}: {error}"
        return deny("5.7.1", str(said).replace("\\n", " ")[:900])
    return Plugin(mail=mail)

def fds():
    return sorted(int(name) for name in range(64) if _open(name))

def _open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

def many(count, ask):
    kinds = {}
    for n in range(count):
        try:
            ask(n)
            kind = "done"
        except Exception as error:
            kind = type(error).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
    return sorted(kinds.items())

def raw(data, count=1):
    import _socket
    end = _socket.socket(1, 5, 0, 5)
    for _ in range(count):
        end.send(data)
    end.detach()
    return "sent"

def descriptors():
    import _socket, array
    end = _socket.socket(1, 5, 0, 5)
    try:
        end.sendmsg([b"{}"], [(1, 1, array.array("i", [1]))])
    finally:
        end.detach()
"""
GRANTED = Capabilities(dns=("zen.example",), state=True)
TOLD: dict[str, Any] = {"dns": True, "state": True, "connect": [], "wait_s": 4.0}


async def say(st: Stage, *asked: str, session: str = "s", release: bool = False) -> list[str]:
    """One session that evaluates these; what it said."""
    sandbox = await st.host.take("plugin", session)
    said = []
    for n, text in enumerate(asked, start=1):
        frame = text.replace('"', '\\"')
        answer: Answer = await mail(sandbox, frame, n=n, session=session, timeout_s=20)
        said.append(text_of(answer))
    if release:
        sandbox.release()
    else:
        sandbox.close()
    return said


def staged(
    mode: str,
    scenario: Callable[[Stage, Broker], Any],
    *,
    granted: Capabilities = GRANTED,
    told: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    source: str = SOURCE,
    **host: Any,
) -> None:
    """Run a scenario with zygote, host and broker."""

    def body() -> None:
        with stage(mode) as st, broker(st.folder, {"plugin": granted}, **(settings or {})) as served:
            st.start(source, whole=True, broker=told or TOLD, reuse=host.get("reuse", 1))
            st.run(lambda st: scenario(st, served), broker=True, broker_path=str(served.path), **host)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_plugin_looks_up_and_keeps(mode: str):
    """The API of forkd.sdk.capabilities, from a real sandbox."""
    with NameServer() as server:
        server.add("a.zen.example", "A", "127.0.0.2")
        server.add("a.zen.example", "TXT", '"spam " "\\255"')
        server.add("a.zen.example", "MX", "10 mx.example.")

        async def scenario(st: Stage, served: Broker) -> None:
            assert await say(
                st,
                "s.dns.a('A.zen.example.'), bool(s.dns.a('no.zen.example')), "
                "s.dns.aaaa('a.zen.example').status",
                "s.dns.txt('a.zen.example').records + s.dns.mx('a.zen.example').records",
                "s.dns.a('a.other.example')",
                "s.state.set('k', 'v\\u00e9'), s.state.get('k') == 'v\\u00e9', s.state.get('none')",
                "s.state.incr('n'), s.state.incr('n', 5, ttl=60), s.state.add('n', 1), "
                "s.state.add('m', 2, ttl=0.5)",
                "s.state.delete('n'), s.state.delete('n')",
                "s.state.incr('k')",
                "s.state.set('k', 1.5)",
                "s.state.set('k' * 300, 1)",
                "s.state.set('k', 'x' * 5000)",
                "s.state.set('k', chr(0xd800))",
                "s.state.get('../../etc/passwd')",
                "s.dns.a('x' * 200_000).status",
                "s.connect('clamd')",
            ) == [
                "(<DnsAnswer a.zen.example: found ('127.0.0.2',)>, False, 'no_data')",
                "(b'spam \\xff', (10, 'mx.example'))",
                "NotGranted: the name a.other.example: grants.dns",
                "(None, True, None)",
                "(1, 6, False, True)",
                "(True, False)",
                "StateError: the value is a text",
                "StateError: a value is text or a whole number, not float",
                "StateError: a key has 1 to 255 octets",
                "StateError: a value has at most 4096 octets (state.max_value)",
                "StateError: text with a lone surrogate has no encoding",
                "None",
                "no_such_name",
                (
                    "NotGranted: a connection to 'clamd': needs `connect` below [wants.capabilities] of "
                    "plugin.toml, and the admin's grant"
                ),
            ]

        staged(mode, scenario, settings={"dns": Dns(servers=(server.address,))})


@pytest.mark.parametrize("mode", MODES)
def test_a_sandbox_has_six_descriptors_and_one_without_grants_five(mode: str):
    """PROTOCOL.md, part 1; a spare is nobody's, and the broker is not told of it."""

    async def with_broker(st: Stage, served: Broker) -> None:
        assert await say(st, "fds()") == ["[0, 1, 2, 3, 4, 5]"]
        held = [await st.host.take("plugin", str(n)) for n in range(3)]
        for sandbox in held:
            await mail(sandbox, "1")
        async with asyncio.timeout(20):
            while served.newest_beat().info["channels"] != "3":
                await asyncio.sleep(0.01)
            for sandbox in held:
                sandbox.close()
            while served.newest_beat().info["channels"] != "0":
                await asyncio.sleep(0.01)

    staged(mode, with_broker, spare=4)

    def without() -> None:
        with stage(mode) as st:
            st.start(SOURCE, whole=True)

            async def scenario(st: Stage) -> None:
                assert await say(st, "fds()", "s.state", "s.dns", "s.connect('x')") == [
                    "[0, 1, 2, 3, 4]",
                    *(
                        f"NotGranted: {what}: needs `{key}` below [wants.capabilities] of plugin.toml, "
                        f"and the admin's grant"
                        for what, key in (("the state store", "state"), ("DNS", "dns"))
                    ),
                    (
                        "NotGranted: a connection to 'x': needs `connect` below [wants.capabilities] of "
                        "plugin.toml, and the admin's grant"
                    ),
                ]

            st.run(scenario)

    as_mode(mode, without)


@pytest.mark.parametrize("mode", MODES)
def test_a_broker_that_is_killed_is_temporary_for_its_sessions_and_no_later_one(mode: str):
    """Sessions go on; who begins while it is away finds the next one."""

    async def scenario(st: Stage, served: Broker) -> None:
        running = await st.host.take("plugin", "running")
        assert text_of(await mail(running, "s.state.incr('n')")) == "1"
        served.kill()
        assert text_of(await mail(running, "s.state.incr('n')", n=2)).startswith("Unavailable: ")
        assert text_of(await mail(running, "s.dns.a('a.zen.example').status", n=3)) == "temporary"
        meanwhile = asyncio.ensure_future(say(st, "s.state.add('later', 1)", session="meanwhile"))
        async with asyncio.timeout(20):
            while not st.host.brokering._socket:
                await asyncio.sleep(0.01)
        served.start()
        assert await meanwhile == ["True"]
        assert text_of(await mail(running, "s.state.incr('n')", n=4)).startswith("Unavailable: there is no")
        running.close()
        assert (await say(st, "s.state.get('later')"))[0] == "1"

    staged(mode, scenario)


def test_a_broker_that_does_not_answer_is_late_not_for_ever():
    """The plugin waits so long as it was told; an answer that comes later is nobody's."""

    async def scenario(st: Stage, served: Broker) -> None:
        sandbox = await st.host.take("plugin", "s")
        assert text_of(await mail(sandbox, "s.state.set('k', 'late')")) == "None"
        os.kill(served.pid, signal.SIGSTOP)
        try:
            said = [text_of(await mail(sandbox, "s.state.get('k')", n=n)) for n in (2, 3)]
            assert said == ["Unavailable: the broker did not answer within 0.3 s"] * 2
            assert text_of(await mail(sandbox, "s.dns.a('a.zen.example').status", n=4)) == "temporary"
        finally:
            os.kill(served.pid, signal.SIGCONT)
        for n in range(5, 100):
            said = [text_of(await mail(sandbox, "s.state.incr('n')", n=n))]
            if said == ["1"]:
                break
        assert said == ["1"]  # the number itself, not the text that came late
        sandbox.close()

    staged(MODES[0], scenario, told=TOLD | {"wait_s": 0.3}, settings={"state": State(per_session=1000)})


def test_a_reused_sandbox_is_another_session_for_the_broker():
    """limits.reuse: quotas are the new session's; behind a broker that died it serves nobody any more."""

    async def scenario(st: Stage, served: Broker) -> None:
        asked = "many(4, lambda n: s.state.incr('n'))"
        pid = ""
        for n in range(3):
            said = await say(st, asked, "os.getpid()", session=f"s{n}", release=True)
            assert said[0] == "[('QuotaExceeded', 1), ('done', 3)]"
            assert said[1] == (pid or said[1])
            pid = said[1]
        served.kill()
        served.start()
        async with asyncio.timeout(20):
            while st.host.brokering._socket:
                await asyncio.sleep(0.01)
        said = await say(st, asked, "os.getpid()", session="after", release=True)
        assert said[0] == "[('QuotaExceeded', 1), ('done', 3)]"
        assert said[1] != pid
        refusals = [line.split("session=")[1].split()[0] for line in served.lines("broker_refusal")]
        assert refusals == ["s0", "s1", "s2", "after"]

    staged(MODES[0], scenario, settings={"state": State(per_session=3)}, reuse=100, spare=0)


def test_a_sandbox_whose_new_session_the_broker_cannot_be_told_of_asks_for_nobody():
    """limits.reuse, and a broker that does not read: never under the name of the session before."""

    async def scenario(st: Stage, served: Broker) -> None:
        brokering = st.host.brokering
        (pid, _) = await say(st, "os.getpid()", "s.state.incr('n')", session="before", release=True)
        os.kill(served.pid, signal.SIGSTOP)
        try:
            while brokering.renew((brokering._age, 999), "plugin", "nobody"):
                pass
            sandbox = await st.host.take("plugin", "untold")
        finally:
            os.kill(served.pid, signal.SIGCONT)
        assert text_of(await mail(sandbox, "os.getpid()")) == pid
        assert text_of(await mail(sandbox, "s.state.incr('n')", n=2)).startswith("Unavailable: ")
        sandbox.release()
        async with asyncio.timeout(20):
            while not brokering.renew((brokering._age, 999), "plugin", "nobody"):
                await asyncio.sleep(0.01)
        assert (await say(st, "os.getpid()", "s.state.incr('n')", session="after"))[1] == "2"

    staged(MODES[0], scenario, reuse=100, spare=0)


def test_no_channel_outlives_its_sandbox_whoever_has_a_copy():
    """A hostile zygote keeps each end that it is handed: a session that is over asks for nothing more."""

    async def scenario(st: Stage, served: Broker) -> None:
        for n in range(3):
            assert await say(st, f"s.state.set('k', {n})", session=f"s{n}") == ["None"]
        async with asyncio.timeout(20):
            while served.newest_beat().info["channels"] != "0":
                await asyncio.sleep(0.01)

    staged(MODES[0], scenario, source=SOURCE + "\nos.close = lambda fd: None\n", spare=0)


HOSTILE = {
    "closes it": ("os.close(5)", "s.state.get('k')", "Unavailable: "),
    "garbage": ("raw(b'no json')", "s.state.get('k')", "Unavailable: "),
    "empty record": ("raw(b'')", "s.state.get('k')", "Unavailable: "),
    "forged names": (
        'raw(b\'{"n":1,"do":"get","key":"k","plugin":"other"}\')',
        "s.state.get('k')",
        "Unavailable: ",
    ),
    "an answer that nobody asked for": (
        'raw(b\'{"n":999,"do":"dns","kind":"a","name":"a b"}\')',
        "s.state.add('new', 1)",
        "True",
    ),
    "a flood": ("many(100_000, lambda n: s.state.get('k'))", "s.state.get('k')", "Unavailable: "),
    "descriptors": ("descriptors()", "s.state.set('k', 1)", "None"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_plugin_hurts_its_own_channel_alone(mode: str, name: str):
    """Beside it, another session of the same plugin asks before and after; the worker notices nothing."""
    act, then, expected = HOSTILE[name]

    async def scenario(st: Stage, served: Broker) -> None:
        control = await st.host.take("plugin", "control")
        assert text_of(await mail(control, "s.state.incr('control')", n=1)) == "1"
        said = await say(st, act, then, session="hostile")
        assert said[1].startswith(expected), said
        if name == "descriptors":
            assert said[0].startswith("PermissionError"), said
        assert text_of(await mail(control, "s.state.incr('control')", n=2)) == "2"
        control.close()

    staged(mode, scenario)


@pytest.mark.parametrize("mode", MODES)
def test_a_plugin_talks_to_a_granted_target(mode: str, tmp_path: Path):
    """Connection: everything it can do, without ioctl, setsockopt or a socket of its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(ConnectionError):
                    while piece := client.recv(65_536):
                        client.sendall(piece.upper())
                    client.sendall(b"END")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    where = f"127.0.0.1:{listener.getsockname()[1]}"

    async def scenario(st: Stage, served: Broker) -> None:
        assert await say(
            st,
            "s.notes.update(c=s.connect('echo'))",
            "s.notes['c'].sendall(b'one|two'), s.notes['c'].recv_until(b'|', 100)",
            "s.notes['c'].recv(100)",
            "setattr(s.notes['c'], 'timeout', 0.2), s.notes['c'].recv(1)",
            "s.notes['c'].sendall(b'x' * 300), s.notes['c'].recv_until(b'Y', 200)",
            "s.notes.update(c=s.connect('echo')), s.notes['c'].sendall(b'abc'), "
            "s.notes['c'].shutdown_write()",
            "s.notes['c'].recv_until(b'!', 100), s.notes['c'].recv(10), s.notes['c'].close(), "
            "s.notes['c'].close()",
            "len(fds())",
            "s.connect('other')",
            "s.connect('gone')",
        ) == [
            "None",
            "(None, b'ONE|')",
            "b'TWO'",
            "TimeoutError: nothing within 0.2 s",
            "ValueError: no b'Y' within 200 octets",
            "(None, None, None)",
            "(b'ABCEND', b'', None, None)",
            "6",
            (
                "NotGranted: a connection to 'other': needs `connect` below [wants.capabilities] of "
                "plugin.toml, and the admin's grant"
            ),
            "Unavailable: target gone: No such file or directory",
        ]

    try:
        targets = {"echo": where, "gone": "unix:/nonexistent/socket"}
        staged(
            mode,
            scenario,
            granted=Capabilities(connect=targets),
            told={"connect": [*targets], "wait_s": 4.0},
        )
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_what_a_hook_logs_and_counts_is_in_its_answer():
    """session.log() and session.count(): bounded in the sandbox already."""

    async def scenario(st: Stage, served: Broker) -> None:
        sandbox = await st.host.take("plugin", "s")
        answer = await mail(
            sandbox, "[s.log('x' * 600) for _ in range(20)], s.count('seen', 3), s.count('seen')"
        )
        assert [len(line) for line in answer.log] == [500] * 7 + [27]
        assert answer.log[-1] == "(13 more lines in one call)"
        assert answer.count == {"seen": 4}
        answer = await mail(sandbox, "s.count('Not a name')", n=2)
        assert text_of(answer).startswith("ValueError")
        assert (answer.log, answer.count) == ((), {})
        sandbox.close()

    staged(MODES[0], scenario)
