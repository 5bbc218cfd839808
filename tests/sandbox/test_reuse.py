"""limits.reuse: one sandbox for several sessions, one after the other; group: one for several plugins."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from forkd.rpc.calls import CallFailed
from forkd.sandbox.launch import Member
from tests.support.pids import inner
from tests.support.sandboxes import (
    MODES,
    Stage,
    StartFailed,
    as_mode,
    failure_of,
    greet,
    mail,
    stage,
    text_of,
)

PID = "def attack(_): return os.getpid()\n"


async def pid_of(st: Stage, session: str, local: str = "a") -> int:
    """One session: take, one call, release; the pid that served it."""
    sandbox = await st.host.take("plugin", session)
    said = int(text_of(await mail(sandbox, local)))
    pid = sandbox.pid
    assert said == inner(pid)
    sandbox.release()
    return pid


@pytest.mark.parametrize("mode", MODES)
def test_a_sandbox_serves_so_many_sessions_and_no_more(mode: str):
    """plugins.md, "limits": `reuse` sessions, one after the other."""

    def body() -> None:
        with stage(mode) as st:
            st.start(PID, reuse=3)

            async def scenario(st: Stage) -> None:
                pids = [await pid_of(st, str(n)) for n in range(7)]
                assert pids[0] == pids[1] == pids[2] != pids[3]
                assert pids[3] == pids[4] == pids[5] != pids[6]

            st.run(scenario, spare=0, reuse=3)

    as_mode(mode, body)


def test_release_kills_where_reuse_is_one():
    """The default: a fresh process for each session."""
    with stage(MODES[0]) as st:
        st.start(PID)

        async def scenario(st: Stage) -> None:
            assert len({await pid_of(st, str(n)) for n in range(3)}) == 3

        st.run(scenario, spare=0)


def test_a_released_sandbox_is_out_of_its_sessions_reach():
    """Whoever still holds the old object can neither call nor kill what serves another session now."""
    with stage(MODES[0]) as st:
        st.start(PID, reuse=10)

        async def scenario(st: Stage) -> None:
            old = await st.host.take("plugin", "old")
            await mail(old)
            old.release()
            new = await st.host.take("plugin", "new")
            assert int(text_of(await mail(new))) == inner(old.pid)
            old.release()
            old.close()
            assert (await failure_of(mail(old, n=2))).cause == "unavailable"
            await greet(new, 2)
            assert st.host.alive("plugin") == 1

        st.run(scenario, spare=0, reuse=10)


def test_output_belongs_to_the_session_that_caused_it():
    """What the first session's call printed is told before the next one begins."""
    code = "def attack(text):\n    print(text)\n    if text == 'two': 1 / 0\n    return text\n"
    with stage(MODES[0]) as st:
        st.start(code, reuse=10)

        async def scenario(st: Stage) -> None:
            first = await st.host.take("plugin", "1")
            await mail(first, "first text")
            first.release()
            assert st.outputs == [("first text\n", 0)]
            assert first.last_output == "first text"
            second = await st.host.take("plugin", "2")
            await failure_of(mail(second, "two"))
            assert "first text" not in second.last_output
            assert "ZeroDivisionError" in second.last_output

        st.run(scenario, spare=0, reuse=10)


def test_who_failed_is_not_used_again():
    """A hook that raised may have left anything behind."""
    with stage(MODES[0]) as st:
        st.start("def attack(text):\n    return os.getpid() if text == 'a' else 1 / 0\n", reuse=10)

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take("plugin", "1")
            await mail(sandbox)
            pid = sandbox.pid
            await failure_of(mail(sandbox, "b", n=2))
            sandbox.release()
            assert await pid_of(st, "2") != pid

        st.run(scenario, spare=0, reuse=10)


def test_who_died_while_it_rested_is_not_used_again():
    """An admin's kill, the kernel's: the next session gets another one, and never hears of it."""
    with stage(MODES[0]) as st:
        st.start(PID, reuse=10)

        async def scenario(st: Stage) -> None:
            pid = await pid_of(st, "1")
            os.kill(pid, signal.SIGKILL)
            while not st.reports:
                await asyncio.sleep(0.005)
            assert not st.reports[0].ours
            assert await pid_of(st, "2") != pid
            assert st.host.alive("plugin") == 1

        st.run(scenario, spare=0, reuse=10)


@pytest.mark.parametrize("mode", MODES)
def test_who_has_used_a_sessions_processor_time_serves_no_further_one(mode: str):
    """Sandbox.release(): a session begins with its whole allowance; the kernel's timer has two of them."""
    code = """
def attack(text):
    until = time.process_time() + float(text)
    while time.process_time() < until: pass
    return os.getpid()
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code, reuse=1000, cpu_s=0.5)

            async def scenario(st: Stage) -> None:
                first = await pid_of(st, "1", "0.3")
                assert await pid_of(st, "2", "0.3") == first
                second = await pid_of(st, "3", "0.01")
                assert second != first
                sandbox = await st.host.take("plugin", "4")
                with pytest.raises(CallFailed) as failed:
                    await mail(sandbox, "10", timeout_s=30)
                assert failed.value.cause == "cpu"

            st.run(scenario, spare=0, reuse=1000, cpu_s=0.5)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_who_has_used_half_its_memory_serves_no_further_session(mode: str):
    """A plugin that leaks is replaced before a session meets its MemoryError."""
    code = (
        "KEPT = []\ndef attack(text):\n    KEPT.append(bytearray(int(text) << 20))\n    return os.getpid()\n"
    )

    def body() -> None:
        with stage(mode) as st:
            st.start(code, reuse=1000, memory=64 << 20)

            async def scenario(st: Stage) -> None:
                pids = [await pid_of(st, str(n), "10") for n in range(12)]
                assert 2 <= len(set(pids)) <= 6

            st.run(scenario, spare=0, reuse=1000, memory=64 << 20)

    as_mode(mode, body)


def test_a_rested_sandbox_makes_room():
    """What rests holds no session's place, and is taken before anything new is forked."""
    with stage(MODES[0]) as st:
        st.start(PID, reuse=100)

        async def scenario(st: Stage) -> None:
            held = [await st.host.take("plugin", str(n)) for n in range(4)]
            pids = {int(text_of(await mail(sandbox))) for sandbox in held}
            for sandbox in held:
                sandbox.release()
            again = [await st.host.take("plugin", str(n)) for n in range(4)]
            assert {int(text_of(await mail(sandbox))) for sandbox in again} == pids
            assert st.host.alive("plugin") == 4

        st.run(scenario, spare=0, sandboxes=4, reuse=100)


# --- groups -------------------------------------------------------------------------------------------

MEMBER = """
from forkd.sdk import Plugin, deny
import helper_of_{name} as helper
def plugin_init(settings):
    def mail(session, sender):
        if sender.local == settings["name"]:
            return deny("5.7.1", f"{settings['name']} of {helper.WHOSE}")
    return Plugin(mail=mail)
"""


def members(st: Stage, sources: dict[str, str], *, helper: str = "helper_of_{name}") -> tuple[Member, ...]:
    """A folder for each, with a module check.py and a helper beside it."""
    made = []
    for name, source in sources.items():
        folder = st.folder / name
        folder.mkdir()
        (folder / "check.py").write_text(source.replace("{name}", name))
        (folder / (helper.replace("{name}", name) + ".py")).write_text(f"WHOSE = {name!r}\n")
        made.append(
            Member(name=name, folder=folder, module="check.py", hooks=("mail",), settings={"name": name})
        )
    return tuple(made)


@pytest.mark.parametrize("mode", MODES)
def test_one_sandbox_for_a_group(mode: str):
    """plugins.md, "limits", `group`: one zygote, one fork, one call for all of them, in order."""

    def body() -> None:
        with stage(mode) as st:
            st.launch(members=members(st, {"first": MEMBER, "second": MEMBER}))

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                for n, name in enumerate(("first", "second"), start=1):
                    answer = await mail(sandbox, name, n=n)
                    assert text_of(answer) == f"{name} of {name}"
                    assert answer.by == name
                assert (await mail(sandbox, "nobody", n=3)).verdict is None

            st.run(scenario, spare=0)

    as_mode(mode, body)


def test_members_whose_modules_would_be_mixed_up_are_refused():
    """One table of modules for all: the second `lists` would never be loaded, so the group does not start."""
    sources = {"first": MEMBER, "second": MEMBER}
    told = "member second: .* it has a module lists, and so has member first"
    with stage(MODES[0]) as st, pytest.raises(StartFailed, match=told):
        st.launch(
            members=members(
                st,
                {name: text.replace("helper_of_{name}", "lists") for name, text in sources.items()},
                helper="lists",
            )
        )


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise ValueError('broken')", "member second: ValueError: broken"),
        ("def plugin_init(settings): return None", "member second: PluginError"),
        (
            "def plugin_init(settings): raise ValueError('setting x: bad')",
            "^settings: member second: setting x: bad$",
        ),
        ("import sys; sys.exit(3)", "member second: SystemExit: 3"),
        (MEMBER.replace("mail=", "helo="), "member second: PluginError: .*plugin.toml declares hook mail"),
    ],
)
def test_a_failing_member_names_itself(source: str, told: str):
    """The admin reads which of the group's plugins is broken; the group does not start."""
    with stage(MODES[0]) as st, pytest.raises(StartFailed, match=told):
        st.launch(members=members(st, {"first": MEMBER, "second": source}))
