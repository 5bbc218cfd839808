"""forkd/sandbox/crowd.py, child.py: who gets the processor, and who goes first when memory runs out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from forkd.sandbox import namespaces
from forkd.sandbox.child import NICE
from forkd.sandbox.crowd import CROWD, LAST
from tests.support.sandboxes import MODES, ROOT, Stage, as_mode, greet, mail, stage, text_of
from tests.support.waiting import wait_for

ACT = """
def attack(said):
    while said == "spin":
        pass
    return " ".join((said, tried(os.setpriority, 0, 0, 19), tried(os.setpriority, 0, os.getppid(), 19)))
"""


def nice_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[16])


@pytest.mark.parametrize("mode", MODES)
def test_a_sandbox_comes_after_its_zygote_and_stays_there(mode: str):
    """THREATS.md: nice from its first moment, and the filter refuses to change its own or another's."""

    def body() -> None:
        with stage(mode) as st:
            st.start(ACT)

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                assert text_of(await mail(sandbox)) == "a EPERM EPERM"
                zygote = nice_of(st.zygote.pid)
                assert nice_of(sandbox.pid) == max(zygote, NICE)

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_who_is_lower_already_stays_there(mode: str):
    """`nice -n 15 forkd run`, or a crowd's sandbox lowered before it has armed itself: no reason to fail."""

    def body() -> None:
        with stage(mode) as st:
            st.start(ACT)
            os.setpriority(os.PRIO_PROCESS, st.zygote.pid, 15)

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                assert text_of(await mail(sandbox)) == "a EPERM EPERM"
                assert nice_of(sandbox.pid) == 15

            st.run(scenario, spare=0)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_when_memory_runs_out_sandboxes_go_first(mode: str):
    """Many of them within their limits can be more than the machine has (proc(5), oom_score_adj)."""

    def body() -> None:
        with stage(mode) as st:
            st.start(ACT)

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                await greet(sandbox, 1)
                for pid in (sandbox.pid, st.zygote.pid):
                    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_in_a_crowd_who_uses_much_comes_last(mode: str):
    """With a uid or a PID namespace of its own the zygote lowers those that loop alone; else it may not."""

    def body() -> None:
        may = mode == ROOT or "pid" in namespaces.possible().names
        with stage(mode) as st:
            st.start(ACT, sandboxes=2 * CROWD + 8)

            async def scenario(st: Stage) -> None:
                quiet = [await st.host.take("plugin", f"q{number}") for number in range(CROWD)]
                loops = [await st.host.take("plugin", f"l{number}") for number in range(4)]
                for sandbox in (*quiet, *loops):
                    await greet(sandbox, 1)
                calls = [asyncio.ensure_future(mail(sandbox, "spin", n=2, timeout_s=60)) for sandbox in loops]
                await asyncio.sleep(0)  # each call is sent
                before = min(nice_of(sandbox.pid) for sandbox in quiet)
                if may:
                    wait_for(lambda: all(nice_of(sandbox.pid) == LAST for sandbox in loops), timeout_s=30)
                    assert min(nice_of(sandbox.pid) for sandbox in quiet) == before
                for sandbox in loops:
                    if not may:
                        assert nice_of(sandbox.pid) == before
                    sandbox.close()
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                assert text_of(await mail(quiet[0], n=2)).startswith("a "), "it is served as ever"

            st.run(scenario, sandboxes=2 * CROWD + 8, spare=0)

    as_mode(mode, body)
