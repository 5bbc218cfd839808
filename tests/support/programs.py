"""Programs in their sandboxes for tests: shell scripts and C programs, through a real zygote and Host."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from forkd.sandbox.host import HostProgram
from forkd.sandbox.policy import compile_policy
from tests.support.sandboxes import Stage

SHELL = "#!/bin/sh\n"


def script(st: Stage, text: str, *, name: str = "program", interpreter: str = "/bin/sh") -> Path:
    """An executable script in the stage's folder."""
    path = st.folder / name
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)
    return path


@functools.cache
def _compiled(source: str) -> bytes:
    if shutil.which("cc") is None:
        pytest.skip("lack of the machine: no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        subprocess.run(["cc", "-x", "c", "-O1", "-w", "-o", made, "-"], input=source.encode(), check=True)
        return made.read_bytes()


def binary(st: Stage, source: str, *, name: str = "program") -> Path:
    """A C program in the stage's folder."""
    path = st.folder / name
    path.write_bytes(_compiled(source))
    path.chmod(0o755)
    return path


def start(st: Stage, *argv: str | Path, processes: bool = False, **spec: Any) -> None:
    """Start the zygote of a program."""
    given: dict[str, Any] = {"memory": 256 << 20, "cpu_s": 5.0, "sandboxes": 40} | spec
    st.launch(
        kind="program",
        argv=tuple(str(word) for word in argv),
        processes=processes,
        policy=compile_policy(profile="exec, processes" if processes else "exec"),
        **given,
    )


async def run(
    st: Stage,
    *,
    given: bytes = b"",
    timeout_s: float = 10.0,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Run it once: `given` on its descriptor 3, what it writes to descriptor 1; its waitpid status."""
    reader, writer = os.pipe()
    answer, answer_end = os.pipe()
    try:
        os.write(writer, given)
        os.close(writer)
        writer = -1
        status = await st.host.run_program(
            "program", fds={3: reader, 1: answer_end}, timeout_s=timeout_s, environment=environment
        )
        os.set_blocking(answer, False)
        try:
            return status, os.read(answer, 65_536)
        except BlockingIOError:
            return status, b""
    finally:
        for fd in (reader, answer, answer_end, writer):
            if fd >= 0:
                os.close(fd)


def host(st: Stage, scenario: Callable[[Stage], Awaitable[None]], *, at_once: int = 16) -> None:
    """Run a scenario with a Host that knows the program."""
    program = HostProgram(name="program", socket_path=st.path, at_once=at_once)
    st.run(scenario, spare=0, programs=(program,))


def once(st: Stage, **how: Any) -> tuple[int, str]:
    """Run it once in a Host of its own: exit code (negative: signal) and what it said."""
    seen: list[tuple[int, bytes]] = []

    async def scenario(st: Stage) -> None:
        seen.append(await run(st, **how))

    host(st, scenario)
    return os.waitstatus_to_exitcode(seen[0][0]), seen[0][1].decode("utf-8", "replace")


def gather(*runs: Awaitable[Any]) -> Awaitable[list[Any]]:
    """All of them at once."""
    return asyncio.gather(*runs)
