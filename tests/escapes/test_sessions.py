"""Attacks 81 to 91: between sessions, and a hostile plugin that runs first, in its zygote."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.sandboxes import (
    FURTHER_MODES,
    MODES,
    Stage,
    as_mode,
    failure_of,
    greet,
    mail,
    stage,
    text_of,
)


@pytest.mark.parametrize("mode", MODES)
def test_children_forked_at_import_are_seen(mode: str):
    """Attack 84: the zygote may fork, so a hostile plugin may; each is confined, can be found and ended."""
    code = """
if os.fork() == 0:
    while True: time.sleep(1)
def attack(_): return "x"
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code)
            extra = st.processes()
            assert len(extra) == 1
            status = Path(f"/proc/{extra[0]}/status").read_text()
            assert "NoNewPrivs:\t1" in status
            assert "Seccomp:\t2" in status
            os.kill(extra[0], signal.SIGKILL)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_what_one_session_stores_the_next_does_not_see(mode: str):
    """Attack 81: a fresh fork for each session: globals, C statics and random numbers are its own."""
    code = """
STORE = []
static = ctypes.create_string_buffer(8)
def attack(text):
    STORE.append(text)
    seen = f"{STORE} {static.value} {random.random()} {secrets.token_hex(4)}"
    static.value = b"mine"
    return seen
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code)

            async def scenario(st: Stage) -> None:
                seen = []
                for session in ("a", "b", "c"):
                    sandbox = await st.host.take("plugin", session)
                    seen.append(text_of(await mail(sandbox, session)).split())
                    sandbox.close()
                assert [one[0] for one in seen] == ["['a']", "['b']", "['c']"]
                assert {one[1] for one in seen} == {"b''"}
                assert len({one[2] for one in seen}) == 3  # attack 90
                assert len({one[3] for one in seen}) == 3

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_sibling_cannot_be_touched(mode: str):
    """Attack 88: two sandboxes of one plugin share uid and Landlock domain; seccomp keeps them apart."""
    code = """
def attack(pid):
    pid = int(pid)
    return " ".join((tried(os.kill, pid, 9), call("tgkill", pid, pid, 9), tried(os.setpriority, 0, pid, 19),
                     tried(open, f"/proc/{pid}/mem", "r+b")))
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code)

            async def scenario(st: Stage) -> None:
                sibling = await st.host.take("plugin", "sibling")
                await greet(sibling, 1)
                sandbox = await st.host.take("plugin", "s")
                assert text_of(await mail(sandbox, str(sibling.pid))) == "EPERM EPERM EPERM EACCES"
                await greet(sibling, 2)

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize(
    "mode", [*MODES, *(mode for mode in FURTHER_MODES if mode.endswith("no namespaces"))]
)
def test_when_their_zygote_dies(mode: str):
    """Attack 86: in a PID namespace they end with it, and are told apart from a deadline; else they go on
    answering, and the leash still ends them."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_):\n    while True: pass\n")

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                await greet(sandbox, 1)
                os.kill(st.zygote.pid, signal.SIGKILL)
                os.waitpid(st.zygote.pid, 0)
                if "pid" in st.zygote.namespaces:
                    failed = await failure_of(mail(sandbox, n=2))
                    assert failed.cause == "zygote ended"
                    return
                await greet(sandbox, 2)
                failed = await failure_of(mail(sandbox, n=3, timeout_s=0.2))
                assert failed.cause == "deadline"

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_no_two_forks_draw_the_same(mode: str):
    """Attack 90: every source of randomness that a plugin may have loaded before the fork."""
    code = """
import hashlib, ssl, tempfile, uuid
first = random.random(), uuid.uuid4(), ssl.RAND_bytes(8)  # so that each has a state to copy
own = random.Random()
def attack(_):
    draws = (random.random(), random.getrandbits(64), secrets.token_hex(8), uuid.uuid4().hex,
             uuid.uuid1().hex, ssl.RAND_bytes(8).hex(), os.urandom(8).hex(), random.SystemRandom().random(),
             next(tempfile._RandomNameSequence()))
    return " ".join(str(draw) for draw in draws)
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code)

            async def scenario(st: Stage) -> None:
                seen = []
                for n in range(5):
                    sandbox = await st.host.take("plugin", f"s{n}")
                    seen.append(text_of(await mail(sandbox)).split())
                    sandbox.close()
                for draws in zip(*seen, strict=True):
                    assert len(set(draws)) == len(seen), draws

            st.run(scenario)

    as_mode(mode, body)
