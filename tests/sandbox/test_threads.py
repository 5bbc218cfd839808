"""The capability threads: a plugin that was granted some has them, up to a bound; others have none."""

from __future__ import annotations

import pytest

from forkd.sandbox.policy import compile_policy
from tests.support.sandboxes import MODES, Stage, StartFailed, as_mode, greet, mail, stage, text_of

POOL = """
import threading
from concurrent.futures import ThreadPoolExecutor
def attack(_):
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: (threading.current_thread().name, sum(range(n))), range(1000, 1008)))
    return f"{len({name for name, _ in done}) >= 1} {sum(total for _, total in done)} {tried(os.fork)}"
"""
BOMB = """
import threading
threading.stack_size(32768)
STOP = threading.Event()
def attack(_):
    started = 0
    try:
        while started < 5000:
            threading.Thread(target=STOP.wait, daemon=True).start()
            started += 1
    except RuntimeError as error:
        return f"{started} {error}"
    return f"{started} and no end"
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_plugin_with_threads_has_them(mode: str):
    """sandbox.md, "Layers": the profile threads = n; no process all the same."""

    def body() -> None:
        with stage(mode) as st:
            st.start(POOL, policy=compile_policy(threads=True), threads=4)

            async def scenario(st: Stage) -> None:
                said = text_of(await mail(await st.host.take("plugin", "s")))
                assert said == f"True {sum(sum(range(n)) for n in range(1000, 1008))} EPERM"

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_thread_bomb_stops(mode: str):
    """Attack 2 with threads granted: the plugin's bound stops it, and other sessions get sandboxes."""

    def body() -> None:
        with stage(mode) as st:
            st.start(BOMB, policy=compile_policy(threads=True), threads=4, sandboxes=10, memory=1 << 30)

            async def scenario(st: Stage) -> None:
                bomber = await st.host.take("plugin", "s")
                started, _, why = text_of(await mail(bomber)).partition(" ")
                assert why == "can't start new thread"
                assert 4 <= int(started) <= 10 * 5 + 8
                beside = await st.host.take("plugin", "t")
                await greet(beside, 1)
                bomber.close()

            st.run(scenario, spare=0)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_without_the_grant_there_is_no_thread(mode: str):
    """Attack 2: the filter of everybody else has no thread in it, in the zygote neither."""

    def body() -> None:
        with stage(mode) as st:
            st.start(BOMB)

            async def scenario(st: Stage) -> None:
                assert text_of(await mail(await st.host.take("plugin", "s"))) == "0 can't start new thread"

            st.run(scenario)

    as_mode(mode, body)


def test_a_zygote_that_has_a_thread_is_not_ready():
    """Fork in a process with threads breaks both: seen from outside, whatever the plugin says."""
    from forkd.sandbox import launch

    code = """
import threading
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def attack(_): pass
"""
    with stage(MODES[0]) as st:
        st.start(code, policy=compile_policy(threads=True), threads=4)
        assert "Threads is 2" in launch.look(st.zygote, layers=()).problems
    with stage(MODES[0]) as st, pytest.raises(StartFailed, match="can't start new thread"):
        st.start(code)
