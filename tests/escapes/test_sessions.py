"""Attacks 81 to 91: between sessions, and a hostile plugin that runs first, in its zygote."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from forkd.sandbox import launch
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

REFUSED_AT_IMPORT = {
    "82 shared mapping": ("mmap.mmap(-1, 4096)", "PermissionError"),
    "82 memory file": ("os.memfd_create('x')", "PermissionError"),
    "82 SysV memory": ("call('shmget', 1, 4096, 0o666)", "died"),
    "83 socket pair": ("socket.socketpair()", "PermissionError"),
    "83 pipe": ("os.pipe()", "PermissionError"),
    "83 event": ("os.eventfd(0)", "PermissionError"),
    "83 thread": ("_thread.start_new_thread(time.sleep, (60,))", "can't start new thread"),
    "85 exception": ("raise ValueError('broken plugin')", "ValueError: broken plugin"),
    "85 exit": ("sys.exit(3)", "SystemExit: 3"),
    "85 crash": ("ctypes.string_at(8)", "died"),
    "85 too much memory": ("bytearray(10 << 30)", "MemoryError"),
    "85 files of others": ("open('/etc/passwd')", "PermissionError"),
    "85 network": ("socket.socket()", "PermissionError"),
    "85 a program": ("os.execv('/bin/true', ['true'])", "PermissionError"),
    "84 namespaces": ("call('unshare', 0x10000000)", "died"),
    "84 kill master": ("os.kill(os.getppid(), 9)", "PermissionError"),
    "84 a filter that lets go": ("call('seccomp', 1, 8, 0)", "died"),
    "84 Landlock anew": ("call('landlock_create_ruleset', 0, 0, 1)", "died"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REFUSED_AT_IMPORT)
def test_the_zygote_is_confined_before_the_plugin_is_loaded(name: str, mode: str):
    """Sandbox.md, "Life": whatever the zygote may do, a hostile plugin may do; the traceback is told."""
    act, told = REFUSED_AT_IMPORT[name]
    code = f"NR.update({_numbers()!r})\n{act}\ndef attack(_): pass\n"

    def body() -> None:
        with stage(mode) as st:
            with pytest.raises(StartFailed) as failed:
                st.start(code)
            assert told in str(failed.value)
            assert not st.processes()

    as_mode(mode, body)


def _numbers() -> dict[str, int]:
    from tests.support.sandboxes import NUMBERS

    return NUMBERS


@pytest.mark.parametrize("mode", MODES)
def test_a_plugin_that_hangs_at_import_is_late(mode: str):
    """Attack 85: master has a start deadline; killing the zygote leaves nothing."""

    def body() -> None:
        with stage(mode) as st, pytest.raises(StartFailed, match="late"):
            st.start("while True: pass\n", timeout_s=0.5)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_forged_ready_is_seen_through(mode: str):
    """Attack 84: a message out of protocol, or of another pid, is refused by master."""
    code = """
import _socket
control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 3)
control.send(b'{"t":"ready","api":1,"pid":1,"layers":{}}')
while True: time.sleep(1)
"""

    def body() -> None:
        with stage(mode) as st, pytest.raises(launch.LaunchError, match="pid 1"):
            st.start(code)

    as_mode(mode, body)


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


@pytest.mark.parametrize("mode", MODES)
def test_sessions_outlive_their_zygote(mode: str):
    """Attack 86: its sandboxes go on answering; the leash still ends them; new ones are an error at once."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_):\n    while True: pass\n")

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                await greet(sandbox, 1)
                os.kill(st.zygote.pid, signal.SIGKILL)
                os.waitpid(st.zygote.pid, 0)
                await greet(sandbox, 2)
                failed = await failure_of(mail(sandbox, n=3, timeout_s=0.2))
                assert failed.cause == "deadline"

            st.run(scenario)

    as_mode(mode, body)
