"""A hostile plugin that rules its zygote (84, 87, 91, and the issue's own): only its own sessions feel it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable

import pytest

from forkd.rpc.calls import CallFailed
from forkd.sandbox.host import Host, HostPlugin
from forkd.sandbox.report import Report
from tests.support.sandboxes import MODES, Stage, as_mode, failure_of, greet, mail, stage, text_of
from tests.support.waiting import wait_for

Scenario = Callable[[Host], Awaitable[None]]

GOOD = "def attack(text): return 'scanned ' + text\n"
CALLS = 5


def beside(mode: str, hostile: str, scenario: Scenario, **spec: object) -> None:
    """Run `scenario` with the plugins "plugin" (hostile) and "good" in one worker, each in its zygote."""

    def body() -> None:
        with stage(mode) as evil:
            evil.start(hostile, **spec)
            with stage(mode) as good:
                good.start(GOOD)
                good.run(lambda _: both(evil, good), spare=0)

    async def both(evil: Stage, good: Stage) -> None:
        blamed: list[str] = []
        reports: list[Report] = []
        host = Host(
            asyncio.get_running_loop(),
            [
                HostPlugin(name="plugin", socket_path=evil.path, sandboxes=64, spare=0),
                HostPlugin(name="good", socket_path=good.path, sandboxes=64, spare=1),
            ],
            on_report=reports.append,
            on_blame=lambda plugin, *_: blamed.append(plugin),
        )
        try:
            await scenario(host)
            await _scanned(host)
        finally:
            await host.close()
        assert set(blamed) <= {"plugin"}
        assert not [report for report in reports if report.plugin == "good" and not report.ours]

    as_mode(mode, body)


async def _scanned(host: Host) -> None:
    for n in range(CALLS):
        sandbox = await host.take("good", f"control {n}")
        await greet(sandbox, 1)
        assert text_of(await mail(sandbox, f"m{n}", n=2)) == f"scanned m{n}"
        sandbox.release()


NO_FILTER = """
from forkd.sandbox import child
class Bare(child.Armour):
    def __init__(self, **given):
        super().__init__(**given)
        self.steps = ()
child.Armour = Bare
def attack(_):
    return " ".join((tried(os.close, 4), tried(socket.socket), tried(open, "/tmp/forkd-escape", "w"),
                     tried(os.kill, FACTS["worker"], 0), tried(mmap.mmap, -1, 4096), tried(os.pipe),
                     tried(os.execv, "/bin/true", ["x"]), tried(_thread.start_new_thread, print, ()),
                     call("unshare", 0x10000000)))
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_that_skips_the_sandboxes_filter(mode: str):
    """Its sandboxes lose their leash at will, and may do what the zygote may: nothing more."""

    async def scenario(host: Host) -> None:
        sandbox = await host.take("plugin", "s")
        failed: CallFailed = await failure_of(mail(sandbox))
        # All of the acts before were refused, or the last one would not have been reached.
        assert failed.cause == "syscall", failed

    beside(mode, NO_FILTER, scenario)

    async def told(host: Host) -> None:
        sandbox = await host.take("plugin", "s")
        said = text_of(await mail(sandbox))
        assert said == "done EACCES EACCES EPERM EACCES EPERM EACCES RuntimeError"

    beside(mode, NO_FILTER.replace(',\n                     call("unshare", 0x10000000)', ""), told)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_that_keeps_dead_sandboxes_alive(mode: str):
    """It never arms a leash: the worker holds a pidfd and blames it; its end ends them (sandbox.md)."""
    code = """
import _socket
from forkd.sandbox import child
def serve(own, **_):
    mine = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, own[0])
    mine.recv(65536)
    mine.send(b'{"n":1}')
    while True: time.sleep(0.01)
child.serve = serve
def attack(_): pass
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code)

            async def scenario(st: Stage) -> None:
                held = [await st.host.take("plugin", f"s{n}") for n in range(3)]
                pids = set()
                for sandbox in held:
                    await mail(sandbox)
                    pids.add(sandbox.pid)
                    sandbox.close()
                until = asyncio.get_running_loop().time() + 10
                while len(st.blames) < len(held):
                    assert asyncio.get_running_loop().time() < until, "nobody was blamed"
                    await asyncio.sleep(0.02)
                assert {int(re.findall(r"pid (\d+)", blame)[0]) for blame in st.blames} == pids
                st.blames.clear()
                st.end()

            st.run(scenario, spare=0)

    as_mode(mode, body)


FORGED = {
    "deaths of sandboxes that live": """
wire.pack_deaths = lambda deaths: pack([wire.Death(n, 1, 11, 0, 0, 0, 0) for n in range(1, 65)])
""",
    "deaths of sandboxes that never were": """
wire.pack_deaths = lambda deaths: pack([wire.Death(1 << 31 | n, 7, 0, 1 << 60, 0, 0, 0) for n in range(64)])
""",
    "nonsense": "wire.pack_deaths = lambda deaths: b'nonsense'\n",
    "an empty record": "wire.pack_deaths = lambda deaths: b''\n",
    "more than fits": "wire.pack_deaths = lambda deaths: bytes(100_000)\n",
    "a count that lies": "wire.pack_deaths = lambda deaths: b'D\\xff' + bytes(40)\n",
    "a flood": """
_tell = zygote.Zygote._tell
def flood(self, worker, deaths):
    for _ in range(2000): _tell(self, worker, deaths)
zygote.Zygote._tell = flood
""",
    "nothing": "zygote.Zygote._tell = lambda *_: None\n",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FORGED)
def test_a_zygote_that_forges_reports(name: str, mode: str):
    """Reports are claims: they end or misname its own sessions, never hurt the worker or another plugin."""
    code = (
        "from forkd.sandbox import wire, zygote\nimport sys\n"
        "zygote = sys.modules.get('__main__') if not hasattr(zygote, 'Zygote') else zygote\n"
        "pack = wire.pack_deaths\n" + FORGED[name] + "def attack(_): ctypes.string_at(8)\n"
    )

    async def scenario(host: Host) -> None:
        for n in range(4):
            living = await host.take("plugin", f"living {n}")
            dying = await host.take("plugin", f"dying {n}")
            failed: CallFailed = await failure_of(mail(dying, timeout_s=1))
            assert failed.cause in ("crash", "deadline", "unavailable", "zygote ended"), failed
            try:
                await greet(living, 1)
            except CallFailed as harmed:
                assert harmed.cause in ("crash", "unavailable", "zygote ended"), harmed
            await _scanned(host)

    beside(mode, code, scenario)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_that_never_forks(mode: str):
    """A call has its deadline whatever the zygote does; others do not wait for it."""
    code = """
from forkd.sandbox import child
child.Forker.fork = lambda self, record, descriptors: time.sleep(60)
def attack(_): pass
"""

    async def scenario(host: Host) -> None:
        sandbox = await host.take("plugin", "s")
        calling = asyncio.ensure_future(mail(sandbox, timeout_s=0.3))
        await _scanned(host)
        failed: CallFailed = await failure_of(calling)
        assert failed.cause == "unavailable"
        assert "made no sandbox within 0.3 s" in failed.detail

    beside(mode, code, scenario)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_that_is_busy_at_each_fork(mode: str):
    """Attack 91: the refill is slow for that plugin alone, and each of its calls has its deadline."""
    code = """
from forkd.sandbox import child
_fork = child.Forker.fork
def slow(self, record, descriptors):
    until = time.monotonic() + 0.3
    while time.monotonic() < until: pass
    return _fork(self, record, descriptors)
child.Forker.fork = slow
def attack(text): return text
"""

    async def scenario(host: Host) -> None:
        calls = [mail(await host.take("plugin", f"s{n}"), timeout_s=0.1) for n in range(3)]
        failing = [asyncio.ensure_future(failure_of(call)) for call in calls]
        await _scanned(host)
        assert {(await failed).cause for failed in failing} == {"unavailable"}

    beside(mode, code, scenario)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_that_grows_with_each_fork(mode: str):
    """Attack 87: it has the address space of one sandbox to grow in; then it fails, and fails alone."""
    code = """
from forkd.sandbox import child
HOARD = []
_fork = child.Forker.fork
def growing(self, record, descriptors):
    HOARD.append(bytearray(16 << 20))
    return _fork(self, record, descriptors)
child.Forker.fork = growing
def attack(text): return text
"""

    async def scenario(host: Host) -> None:
        for served in range(20):
            sandbox = await host.take("plugin", f"s{served}")
            try:
                assert text_of(await mail(sandbox, timeout_s=0.5)) == "a"
            except CallFailed as failed:
                assert failed.cause in ("unavailable", "zygote ended"), failed
                break
            sandbox.close()
            await _scanned(host)
        assert 0 < served <= 64 // 16, "it grew past its limit, or never began"

    beside(mode, code, scenario, memory=64 << 20)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_that_passes_descriptors_down(mode: str):
    """Attack 61, from the zygote: it cannot send any, and the worker would not take them."""
    code = """
from forkd.sandbox import zygote
_tell = zygote.Zygote._tell
def tell(self, worker, deaths):
    connection = self._workers.pop(worker)
    os.write(2, f"sent: {tried(socket.send_fds, connection, [b'D'], [0] * 10)} ".encode())
    self._workers[worker] = connection
    _tell(self, worker, deaths)
    zygote.Zygote._tell = _tell
zygote.Zygote._tell = tell
def attack(_): ctypes.string_at(8)
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code)

            async def scenario(st: Stage) -> None:
                failed: CallFailed = await failure_of(mail(await st.host.take("plugin", "s")))
                assert failed.cause == "crash"

            st.run(scenario)
            assert st.said() == "sent: EPERM "

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_leash_that_is_armed_after_its_worker_died(mode: str):
    """Nothing would fire: so the sandbox looks at it once it is armed, and ends by itself."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_):\n    while True: pass\n")
            os.kill(st.zygote.pid, signal.SIGSTOP)
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:

                async def worker(st: Stage) -> None:
                    calls = [
                        asyncio.ensure_future(mail(await st.host.take("plugin", f"s{n}"))) for n in range(5)
                    ]
                    await asyncio.sleep(0)  # the requests leave at the end of this turn of the loop
                    await asyncio.sleep(0)
                    os.write(writer, b"x")
                    await asyncio.gather(*calls)

                st.run(worker, spare=0)
            assert os.read(reader, 1) == b"x"
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reader)
            os.close(writer)
            os.kill(st.zygote.pid, signal.SIGCONT)

            async def scenario(st: Stage) -> None:
                await greet(await st.host.take("plugin", "s"), 1)

            st.run(scenario, spare=0)
            assert wait_for(lambda: not st.processes(), timeout_s=1)

    as_mode(mode, body)
