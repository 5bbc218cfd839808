"""Attack 105: one run of a program, or one sandbox, reaches for another: its message, its password."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from forkd.rpc.calls import CallFailed
from forkd.worker.copies import CopyBudget, MessageCopies
from tests.escapes.mutations import Patch, patched_tree
from tests.support import programs
from tests.support.sandboxes import FURTHER_MODES, MODES, Stage, as_mode, greet, mail, stage, text_of

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
int main(void) {
    char path[96], own[16] = "";
    const char *victim = getenv("VICTIM");
    if (!victim) {
        if (readlink("/proc/self", own, sizeof own - 1) < 0) sprintf(own, "%d", getpid());
        printf("%s\n", own); fflush(stdout);
        for (;;) pause();
    }
    const char *at[] = {"fd/0", "fd/1", "fd/3", "fd/4", "fd/200", "task/%s/fd/0",
                        "mem", "environ", "maps", "auxv"};
    const int how[] = {O_RDONLY, O_WRONLY, O_RDWR};
    const char *names[] = {"r", "w", "rw"};
    for (int i = 0; i < sizeof at / sizeof *at; i++)
        for (int h = 0; h < 3; h++) {
            char last[48];
            snprintf(last, sizeof last, at[i], victim);
            snprintf(path, sizeof path, "/proc/%s/%s", victim, last);
            int fd = open(path, how[h] | O_NONBLOCK);
            printf("%s %s:%s\n", at[i], names[h], fd < 0 ? strerrorname_np(errno) : "done");
            if (fd >= 0) close(fd);
        }
    for (int fd = 0; fd < 5; fd++) {
        char to[64];
        snprintf(path, sizeof path, "/proc/%s/fd/%d", victim, fd);
        printf("link %d:%s\n", fd, readlink(path, to, sizeof to) < 0 ? strerrorname_np(errno) : "done");
    }
    for (int i = 0; i < 2; i++) {
        const char *inner[] = {"root/dev/null", "cwd/dev/null"};
        snprintf(path, sizeof path, "/proc/%s/%s", victim, inner[i]);
        printf("%s:%s\n", inner[i], open(path, O_RDONLY) < 0 ? strerrorname_np(errno) : "done");
    }
    printf("domain:%s\n", syscall(444, NULL, 0, 1) < 0 ? strerrorname_np(errno) : "done");
    printf("leave:%s\n", syscall(446, 0, 0) < 0 ? strerrorname_np(errno) : "done");
    printf("own:%s\n", open("/proc/self/fd/4", O_RDONLY) < 0 ? strerrorname_np(errno) : "done");
    printf("end\n");
    return 0;
}
"""
"""Without VICTIM in its environment it is the one reached for: it says what /proc calls it, and waits."""

UNBOUNDED = "user, no namespaces, no Landlock"
"""Nothing of ours is between two runs there (THREATS.md); forkd does not start so, unless told to."""
EVERY_MODE = [mode for mode in (*MODES, *FURTHER_MODES) if mode != UNBOUNDED]


class _Mail:
    """As much of a transaction as a copy is made of."""

    edited_header_size = 0

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.edited_size = len(octets)

    def read(self) -> list[bytes]:
        return [self._octets]


def copies_of(octets: bytes) -> MessageCopies:
    """The copies that a worker makes of such a message."""
    return MessageCopies(CopyBudget(10_000), _Mail(octets), limit=1000)  # type: ignore[arg-type]


def reached(st: Stage) -> dict[str, str]:
    """How one run's attempts on another went."""
    programs.start(st, programs.binary(st, SOURCE))
    found: dict[str, str] = {}

    async def scenario(st: Stage) -> None:
        with contextlib.ExitStack() as stack:

            def pipe() -> tuple[int, int]:
                ends = os.pipe()
                for fd in ends:
                    stack.callback(os.close, fd)
                    os.fchmod(fd, 0o666)  # no mode of a descriptor's is to be what refuses
                os.set_blocking(ends[0], False)
                return ends

            def given(writer: int) -> dict[int, int]:
                copies = copies_of(b"Subject: secret\r\n\r\nfor one alone\r\n")
                stack.callback(copies.close)
                memory = os.memfd_create("password")
                stack.callback(os.close, memory)
                password = pipe()
                os.write(password[1], b"alice\0secret\0")
                return {0: copies.program_fd(()), 1: writer, 3: password[0], 4: memory}

            said, writer = pipe()
            victim = asyncio.ensure_future(st.host.run_program("program", fds=given(writer), timeout_s=20))
            pid = (await _line(said)).strip()
            told, writer = pipe()
            await st.host.run_program("program", fds=given(writer), timeout_s=10, environment={"VICTIM": pid})
            lines = os.read(told, 65_536).decode().splitlines()
            assert lines.pop() == "end"
            found.update(line.rsplit(":", 1) for line in lines)
            assert not victim.done()
            victim.cancel()
            with contextlib.suppress(asyncio.CancelledError, CallFailed):
                await victim

    programs.host(st, scenario)
    return found


async def _line(fd: int) -> str:
    text = b""
    while not text.endswith(b"\n"):
        with contextlib.suppress(BlockingIOError):
            text += os.read(fd, 100)
        await asyncio.sleep(0.01)
    return text.decode()


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_one_run_of_a_program_does_not_reach_another(mode: str):
    """Descriptors, memory, environment, folders of the other: refused, whichever wall is missing."""

    def body() -> None:
        with stage(mode) as st:
            found = reached(st)
            assert found.pop("domain") == found.pop("leave") == "EPERM"
            # Its own can be opened where there is a /proc: so the way there is no other's fault.
            landlocked = not st.off & {"files"}
            assert found.pop("own") == ("done" if landlocked else "ENOENT")
            assert len(found) == 37
            assert set(found.values()) <= {"EACCES", "ENOENT"}, found

    as_mode(mode, body)


@pytest.mark.parametrize("mode", [mode for mode in FURTHER_MODES if mode == UNBOUNDED])
def test_with_neither_wall_it_does(mode: str):
    """What THREATS.md says of it; and so the test above can fail."""

    def body() -> None:
        with stage(mode) as st:
            found = reached(st)
            for way in ("fd/0 r", "fd/1 w", "fd/3 r", "fd/4 rw", "mem rw", "environ r", "link 0"):
                assert found[way] == "done", (way, found)

    as_mode(mode, body)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_without_a_domain_for_each_run_it_does(mode: str):
    """Taken out of a copy of the source: that is what stops it, whatever else is up."""
    patch = Patch("forkd/sandbox/program.py", "landlock.stand_apart(moving=self._writes)", "pass")
    with tempfile.TemporaryDirectory(prefix="forkd-test-") as folder:
        tree = patched_tree(Path(folder), (patch,))
        name = test_one_run_of_a_program_does_not_reach_another.__name__
        test = f"tests/escapes/{Path(__file__).name}::{name}[{mode}]"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", test]
        ran = subprocess.run(command, cwd=tree, text=True, capture_output=True, timeout=120, check=False)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert "'fd/0 r': 'done'" in ran.stdout, ran.stdout


_SIBLINGS = """
def attack(pid):
    return " ".join(tried(os.stat, f"/proc/{pid}/fd/{fd}") for fd in (0, 3, 4))
"""


def _looked_at(mode: str, off: frozenset[str] = frozenset()) -> str:
    """What a sandbox sees of the descriptors of another of the same zygote."""
    with stage(mode, off=off) as st:
        st.start(_SIBLINGS)
        seen: list[str] = []

        async def scenario(st: Stage) -> None:
            sibling = await st.host.take("plugin", "sibling")
            await greet(sibling, 1)
            sandbox = await st.host.take("plugin", "s")
            seen.append(text_of(await mail(sandbox, str(sibling.pid))))
            await greet(sibling, 2)

        st.run(scenario)
        return seen[0]


@pytest.mark.parametrize("mode", [*MODES, *FURTHER_MODES])
def test_nor_does_one_sandbox(mode: str):
    """Sandboxes of one zygote share a Landlock domain; they are never executed anew, so never dumpable."""
    refusal = "EACCES" if "no namespaces" in mode else "ENOENT"
    assert as_mode(mode, lambda: _looked_at(mode)) == " ".join([refusal] * 3)


@pytest.mark.parametrize("mode", [mode for mode in FURTHER_MODES if mode.endswith(", no namespaces")])
def test_a_dumpable_sandbox_would(mode: str):
    """Without that flag it is seen, so the test above can fail."""
    assert as_mode(mode, lambda: _looked_at(mode, frozenset({"non_dumpable"}))) == "done done done"


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (6, 3),
    reason="lack of the machine: memory files can be sealed against execution from Linux 6.3 on",
)
@pytest.mark.parametrize("mode", MODES)
def test_mail_is_not_executed(mode: str):
    """Landlock says what a program may execute, and sees no memory file: the message's says no itself."""

    def body() -> None:
        with stage(mode) as st:
            copies = copies_of(b"#!/bin/sh\r\necho executed\r\n")
            with contextlib.closing(copies):
                programs.start(st, programs.script(st, "exec /proc/self/fd/0"))
                said: list[tuple[int, str]] = []

                async def scenario(st: Stage) -> None:
                    reader, writer = os.pipe()
                    fds = {0: copies.program_fd(()), 1: writer, 2: writer}
                    status = await st.host.run_program("program", fds=fds, timeout_s=10)
                    os.close(writer)
                    with os.fdopen(reader) as pipe:
                        said.append((os.waitstatus_to_exitcode(status), pipe.read()))

                programs.host(st, scenario)
                ((code, text),) = said
                assert code == 126
                assert "ermission denied" in text

    as_mode(mode, body)
