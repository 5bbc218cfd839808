"""forkd/sandbox/{host,link}.py: taking, calling and killing sandboxes from a worker's loop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox import launch
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.host import SURVIVOR_S, Host, HostPlugin
from tests.support.pids import inner
from tests.support.sandboxes import MODES, Stage, as_mode, failure_of, greet, mail, stage, text_of
from tests.support.waiting import wait_for

ECHO = "def attack(said): return said\n"
SPIN = """
def attack(_):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True: pass
"""


async def _until(condition: Callable[[], bool]) -> None:
    """Poll while the loop goes on."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("mode", MODES)
def test_a_channel_is_used_before_its_sandbox_exists(mode: str):
    """sandbox.md, "Life": frames wait in the socket, so taking never waits; and spares come later."""

    def body() -> None:
        with stage(mode) as st:
            st.start(ECHO)

            async def scenario(st: Stage) -> None:
                sandboxes = [await st.host.take("plugin", str(n)) for n in range(12)]
                answers = await asyncio.gather(*[mail(s, str(n)) for n, s in enumerate(sandboxes)])
                assert [text_of(answer) for answer in answers] == [str(n) for n in range(12)]
                assert len({sandbox.pid for sandbox in sandboxes}) == 12
                for sandbox in sandboxes:
                    sandbox.close()
                # one spare is kept for the next session
                await _until(lambda: len(st.processes()) == 1)

            st.run(scenario)

    as_mode(mode, body)


def test_more_than_allowed_is_overload_not_failure():
    """plugins.md, "limits": what does not fit is 451 4.3.2, and a place is free as soon as one is let go."""
    with stage(MODES[0]) as st:
        st.start(ECHO)

        async def scenario(st: Stage) -> None:
            held = [await st.host.take("plugin", "s") for _ in range(3)]
            with pytest.raises(Overloaded):
                await st.host.take("plugin", "s")
            held[0].close()
            assert text_of(await mail(await st.host.take("plugin", "s"))) == "a"
            assert st.host.alive("plugin") == 3

        st.run(scenario, sandboxes=3, spare=0)


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_that_is_killed_takes_its_sandboxes_along(mode: str):
    """kill -9 of a worker leaves no sandbox 100 ms later (ten times slack), spinning or waiting."""

    def body() -> None:
        with stage(mode) as st:
            st.start(SPIN)
            pid = os.fork()
            if pid == 0:

                async def worker(st: Stage) -> None:
                    calls = [asyncio.ensure_future(mail(await st.host.take("plugin", "s"))) for _ in range(8)]
                    calls.append(asyncio.ensure_future(greet(await st.host.take("plugin", "s"), 1)))
                    await asyncio.gather(*calls)

                st.run(worker)
            assert wait_for(lambda: len(st.processes()) >= 9)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert wait_for(lambda: not st.processes(), timeout_s=1)

    as_mode(mode, body)


def test_many_leashes_at_once():
    """sandbox.md, "Life": gone within 100 ms when 200 go together (here 100, asserted with slack)."""
    with stage(MODES[0]) as st:
        st.start(ECHO, sandboxes=200)

        async def scenario(st: Stage) -> None:
            held = [await st.host.take("plugin", "s") for _ in range(100)]
            await asyncio.gather(*[mail(sandbox) for sandbox in held])
            for sandbox in held:
                sandbox.close()
            assert wait_for(lambda: not st.processes(), timeout_s=SURVIVOR_S)

        st.run(scenario, sandboxes=150, spare=0)


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_new_zygote_takes_over_the_waiting(namespaces: bool):
    """The listening socket is master's: what is asked for between two zygotes waits, and is served.

    A session that has its sandbox goes on without its zygote; in a PID namespace all ends with it.
    """
    with stage(MODES[0]) as st:
        st.start(ECHO, namespaces=namespaces)

        async def scenario(st: Stage) -> None:
            old = await st.host.take("plugin", "s")
            await greet(old, 1)
            os.kill(st.zygote.pid, signal.SIGKILL)
            os.waitpid(st.zygote.pid, 0)
            st.zygote.close()
            await asyncio.sleep(0)
            waiting = asyncio.ensure_future(mail(await st.host.take("plugin", "s")))
            if namespaces:
                assert (await failure_of(mail(old, n=2))).cause == "zygote ended"
            else:
                await greet(old, 2)
            st.start(ECHO, namespaces=namespaces)
            assert text_of(await waiting) == "a"

        st.run(scenario, spare=0)


@pytest.mark.parametrize("pid_namespace", [True, False])
@pytest.mark.parametrize("served", [True, False])
def test_a_sandbox_that_ends_with_its_zygote_did_not_crash(pid_namespace: bool, served: bool):
    """In the middle of a call, its first one as well; the log is told the same, and the pid if known."""
    with stage(MODES[0]) as st:
        st.start(SPIN, namespaces=pid_namespace)

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take("plugin", "s")
            if served:
                await greet(sandbox, 1)
            call = asyncio.ensure_future(mail(sandbox, n=1 + served, timeout_s=30))
            await _until(lambda: bool(st.processes()))
            launch.end_all(st.zygote)
            assert (await failure_of(call)).cause == "zygote ended"
            sandbox.close()
            told = await sandbox.last_report()
            assert told is not None
            assert (told.pid, told.cause, told.status) == (sandbox.pid, "", "")
            assert bool(sandbox.pid) == served
            os.waitpid(st.zygote.pid, 0)

        st.run(scenario, spare=0)


@pytest.mark.parametrize("mode", MODES)
def test_a_pid_is_the_hosts_or_is_called_a_claim(mode: str):
    """The kernel tells it with the first answer. Before, there is only what the zygote calls it in there."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): os._exit(7)\n")

            async def scenario(st: Stage) -> None:
                for session in ("served", "not yet"):
                    sandbox = await st.host.take("plugin", session)
                    if session == "served":
                        await greet(sandbox, 1)
                    failed = await failure_of(mail(sandbox, n=1 + (session == "served")))
                    assert failed.cause == "crash"
                await _until(lambda: len(st.reports) == 2)
                first, second = st.reports
                assert first.pid != first.claimed_pid > 1
                assert second.pid == 0
                assert second.claimed_pid > 1

            st.run(scenario, spare=0)

    as_mode(mode, body)


def test_a_zygote_forks_nothing_before_it_was_looked_at():
    """In the middle of a fork it holds a pipe of each sandbox: taken for its plugin's, that would end it."""
    with stage(MODES[0]) as st:

        async def scenario(st: Stage) -> None:
            taken = [await st.host.take("plugin", "s") for _ in range(8)]
            waiting = [asyncio.ensure_future(mail(sandbox, timeout_s=30)) for sandbox in taken]
            await asyncio.sleep(0)
            st.start(ECHO, begin=False)
            state = Path(f"/proc/{st.zygote.pid}/stat")
            await _until(lambda: state.read_text().rpartition(")")[2].split()[0] == "S")
            assert launch.look(st.zygote, layers=LAYERS).problems == ()
            assert st.processes() == []
            launch.ask(st.zygote, 1)
            assert [text_of(answer) for answer in await asyncio.gather(*waiting)] == ["a"] * 8

        st.run(scenario, spare=0)


def test_no_zygote_is_unavailable_at_once():
    """Nobody listens: the call fails with a cause, not at its deadline, and the worker lives."""

    async def scenario() -> None:
        host = Host(
            asyncio.get_running_loop(), [HostPlugin(name="plugin", socket_path="/nonexistent/socket")]
        )
        sandbox = await host.take("plugin", "s")
        failed = await failure_of(mail(sandbox))
        assert failed.cause == "unavailable"
        await host.close()

    asyncio.run(scenario())


def test_a_failed_sandbox_stays_failed():
    """CallFailed says: dead from then on; the same cause again, no new process."""
    with stage(MODES[0]) as st:
        st.start("def attack(_): os._exit(3)\n")

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take("plugin", "s")
            first = await failure_of(mail(sandbox))
            again = await failure_of(mail(sandbox, n=2))
            assert (first.cause, first.detail) == (again.cause, again.detail)
            assert "exit 3" in first.detail

        st.run(scenario)


def test_a_cancelled_call_ends_the_sandbox():
    """A client that went away in the middle of a call leaves no process that still works for it."""
    with stage(MODES[0]) as st:
        st.start(SPIN)

        async def scenario(st: Stage) -> None:
            call = asyncio.ensure_future(mail(await st.host.take("plugin", "s")))
            await _until(lambda: bool(st.processes()))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert wait_for(lambda: not st.processes(), timeout_s=5)

        st.run(scenario, spare=0)


def test_a_sandbox_that_dies_idle_is_known_at_the_next_call():
    """Between two calls nobody waits; the death is reported, and the next call has its cause."""
    with stage(MODES[0]) as st:
        st.start("def attack(_): return os.getpid()\n")

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take("plugin", "s")
            assert int(text_of(await mail(sandbox))) == inner(sandbox.pid)
            os.kill(sandbox.pid, signal.SIGTERM)
            await _until(lambda: bool(st.reports))
            assert not st.reports[0].ours
            failed = await failure_of(mail(sandbox, n=2))
            assert failed.cause == "crash"
            assert "SIGTERM" in failed.detail

        st.run(scenario, spare=0)


def test_a_dead_spare_is_no_sessions_problem():
    """A warm sandbox that died (out of memory, an admin's kill) is replaced, not handed out."""
    with stage(MODES[0]) as st:
        st.start(ECHO)

        async def scenario(st: Stage) -> None:
            first = await st.host.take("plugin", "s")
            await greet(first, 1)
            await _until(lambda: len(st.processes()) == 2)
            (spare,) = set(st.processes()) - {first.pid}
            os.kill(spare, signal.SIGKILL)
            await _until(lambda: bool(st.reports))
            assert text_of(await mail(await st.host.take("plugin", "s"))) == "a"

        st.run(scenario, spare=1)


def test_output_is_kept_bounded_and_attributed():
    """sandbox.md, "Calls": the last lines go into the crash report; a flood is dropped, nobody waits."""
    with stage(MODES[0]) as st:
        st.start("def attack(n):\n    for i in range(int(n)): print(i, 'x' * 100)\n    1 / 0\n")

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take("plugin", "few")
            failed = await failure_of(mail(sandbox, "3"))
            assert failed.cause == "exception"
            assert "ZeroDivisionError" in sandbox.last_output
            assert st.outputs[0][0].startswith("0 xxx")
            flood = await st.host.take("plugin", "many")
            await failure_of(mail(flood, "100000"))
            assert len(flood.last_output) <= 2000
            assert sum(len(text) for text, _ in st.outputs) <= 2 * 65_536

        st.run(scenario, spare=0)


def test_a_sandbox_that_outlives_its_leash_is_blamed_on_its_zygote():
    """sandbox.md, "Life" 5: a pidfd not dead 1 s after the leash was dropped makes master end the zygote."""
    code = """
import _socket
# A hostile author: his sandbox never arms its leash.
from forkd.sandbox import child
def serve(own, *, armour, channel, handle, reseed):
    mine = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, own[0])
    mine.recv(65536)
    mine.send(b'{"n":1}')
    while True: time.sleep(0.01)
child.serve = serve
def attack(_): pass
"""
    with stage(MODES[0]) as st:
        st.start(code)

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take("plugin", "s")
            await mail(sandbox)
            pid = sandbox.pid
            sandbox.close()
            await _until(lambda: bool(st.blames))
            assert f"pid {pid} lived" in st.blames.pop()
            os.kill(pid, signal.SIGKILL)

        st.run(scenario, spare=0)


def test_the_deadline_is_for_the_whole_call():
    """A deadline per call, never per read; the log's line has the time."""
    with stage(MODES[0]) as st:
        st.start("def attack(_): time.sleep(30)\n")

        async def scenario(st: Stage) -> None:
            started = time.monotonic()
            with pytest.raises(CallFailed) as failed:
                await mail(await st.host.take("plugin", "s"), timeout_s=0.2)
            assert failed.value.cause == "deadline"
            assert 0.19 < time.monotonic() - started < 2

        st.run(scenario)


def test_nothing_of_the_worker_is_open_in_a_sandbox():
    """Only the five descriptors of PROTOCOL.md, part 1, seen from outside by root."""
    if os.geteuid() != 0:
        pytest.skip("only root may do that")
    with stage(MODES[0]) as st:
        st.start(ECHO)

        async def scenario(st: Stage) -> None:
            held = [await st.host.take("plugin", "s") for _ in range(4)]
            await asyncio.gather(*[mail(sandbox) for sandbox in held])
            for sandbox in held:
                fds = {e.name: str(e.readlink()) for e in Path(f"/proc/{sandbox.pid}/fd").iterdir()}
                assert sorted(fds) == ["0", "1", "2", "3", "4"]
                assert fds["0"] == "/dev/null"
                assert fds["1"] == fds["2"]
                status = Path(f"/proc/{sandbox.pid}/status").read_text()
                assert "Seccomp_filters:\t2" in status

        st.run(scenario)
