"""forkd/sandbox/{program,programs,executables}.py: a program, run once, behind its walls."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from forkd.exits import Exit
from forkd.master import zygotes
from forkd.master.errors import StartError
from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox import executables, profiles, program_runs, syscalls, wire
from forkd.sandbox.executables import ExecutableError
from forkd.sandbox.wire import Run, WireError
from tests.support import programs
from tests.support.sandboxes import MODES, Stage, StartFailed, as_mode, stage
from tests.support.waiting import wait_for

CHECK = """
read -r given <&3
case $given in
  userright) exec "$@" ;;
  *) exit 1 ;;
esac
"""


def in_stage(mode: str, act: Callable[[Stage], None]) -> None:
    """Run `act` with a stage, as root or as an ordinary user."""

    def body() -> None:
        with stage(mode) as st:
            act(st)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpassword_script_answers_by_its_status(mode: str):
    """cr.yp.to/checkpwd/interface: user, password on descriptor 3; exit 0 by the program it then starts."""

    def act(st: Stage) -> None:
        programs.start(st, programs.script(st, CHECK), "/bin/true")
        assert programs.once(st, given=b"user\0right\0\n") == (0, "")
        assert programs.once(st, given=b"user\0wrong\0\n") == (1, "")

    in_stage(mode, act)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("interpreter", "text"),
    [
        ("/usr/bin/env python3", "import os, json, hashlib\nos.write(1, os.read(3, 100))"),
        ("/usr/bin/perl", "use strict; use POSIX; open(my $f, '<&=3'); print <$f>;"),
    ],
)
def test_languages_start(mode: str, interpreter: str, text: str):
    """Interpreter, loader, libraries and the language's modules are found by master, without being listed."""
    if shutil.which(interpreter.rsplit(maxsplit=1)[-1], path="/usr/bin") is None:
        pytest.skip(f"lack of the machine: {interpreter} is not installed")

    def act(st: Stage) -> None:
        programs.start(st, programs.script(st, text, interpreter=interpreter))
        assert programs.once(st, given=b"user\0word\0") == (0, "user\0word\0")

    in_stage(mode, act)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_program_starts_with(mode: str):
    """A clean environment, default signals, null input, "/" as its folder, and its descriptors: no others."""
    source = r"""
#include <stdio.h>
#include <signal.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/resource.h>
extern char **environ;
int main(int argc, char **argv) {
    char folder[100];
    struct rlimit limit;
    sigset_t mask;
    for (char **e = environ; *e; e++) printf("%s;", *e);
    for (int fd = 0; fd < 1024; fd++) if (fcntl(fd, F_GETFL) >= 0 || fd == 200) printf("%d ", fd);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int s = 1; s < 65; s++) {
        struct sigaction now;
        if (sigismember(&mask, s) == 1) printf("blocked %d ", s);
        if (sigaction(s, NULL, &now) == 0 && now.sa_handler != SIG_DFL) printf("handled %d ", s);
    }
    printf("%s %d %d", getcwd(folder, sizeof folder), (int)read(0, folder, 1), getpgrp() == getpid());
    getrlimit(RLIMIT_FSIZE, &limit); printf(" %ld", (long)limit.rlim_max);
    getrlimit(RLIMIT_CORE, &limit); printf(" %ld", (long)limit.rlim_max);
    getrlimit(RLIMIT_NOFILE, &limit); printf(" %ld", (long)limit.rlim_max);
    getrlimit(RLIMIT_AS, &limit); printf(" %ld", (long)limit.rlim_max >> 20);
    getrlimit(RLIMIT_CPU, &limit); printf(" %ld", (long)limit.rlim_max);
    return 0;
}
"""

    def act(st: Stage) -> None:
        programs.start(st, programs.binary(st, source), open_files=24, memory=64 << 20, cpu_s=1.5)
        os.environ["FORKD_TEST_SECRET"] = "x"
        code, said = programs.once(st, environment={"TCPREMOTEIP": "192.0.2.1"})
        assert code == 0
        assert said == (
            "PATH=/usr/local/bin:/usr/bin:/bin;LC_ALL=C.UTF-8;TCPREMOTEIP=192.0.2.1;"
            "0 1 2 3 200 / 0 1 0 0 24 64 2"
        )

    in_stage(mode, act)


@pytest.mark.parametrize("mode", MODES)
def test_a_pipeline_where_processes_are_granted(mode: str):
    """plugins.md, "Programs": `processes` is for pipelines; the group is one thing, and ends as one."""

    def act(st: Stage) -> None:
        text = "tr a-z A-Z <&3 | cat"
        programs.start(st, programs.script(st, text), "/usr/bin/tr", "/bin/cat", processes=True)
        assert programs.once(st, given=b"abc") == (0, "ABC")

    in_stage(mode, act)


@pytest.mark.parametrize("mode", MODES)
def test_the_deadline_ends_the_whole_group(mode: str):
    """A program and what it started, spinning, with signals ignored: all gone; the call has its cause."""

    def act(st: Stage) -> None:
        text = "trap '' TERM INT HUP\n(while :; do :; done) &\n(sleep 100) &\nwhile :; do :; done"
        programs.start(st, programs.script(st, text), "/bin/sleep", processes=True)

        async def scenario(st: Stage) -> None:
            going = asyncio.ensure_future(programs.run(st, timeout_s=0.5))
            while len(st.processes()) < 3:
                await asyncio.sleep(0.01)
            with pytest.raises(CallFailed) as failed:
                await going
            assert failed.value.cause == "deadline"
            assert wait_for(lambda: not st.processes(), timeout_s=1)

        programs.host(st, scenario)

    in_stage(mode, act)


@pytest.mark.parametrize("mode", MODES)
def test_what_a_program_left_behind_ends_with_it(mode: str):
    """Its first process has ended well; the ones in the background are killed then."""

    def act(st: Stage) -> None:
        programs.start(st, programs.script(st, "sleep 100 &\nexit 0"), "/bin/sleep", processes=True)
        assert programs.once(st)[0] == 0  # once() looks for processes left

    in_stage(mode, act)


def test_a_cancelled_run_is_killed():
    """The client went away while its password was checked."""

    def act(st: Stage) -> None:
        programs.start(st, programs.script(st, "while :; do :; done"))

        async def scenario(st: Stage) -> None:
            going = asyncio.ensure_future(programs.run(st))
            while not st.processes():
                await asyncio.sleep(0.005)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
            assert wait_for(lambda: not st.processes(), timeout_s=1)

        programs.host(st, scenario)

    in_stage(MODES[0], act)


def test_runs_that_do_not_fit_wait_for_their_turn():
    """Bounded at once, first come first served; who waits past his own deadline hears overload."""

    def act(st: Stage) -> None:
        programs.start(
            st, programs.script(st, "read -r a <&3\n[ $a = spin ] && while :; do :; done\necho $a")
        )

        async def scenario(st: Stage) -> None:
            said = await programs.gather(*[programs.run(st, given=b"%d\n" % n) for n in range(6)])
            assert [text for _, text in said] == [b"%d\n" % n for n in range(6)]
            spinning = asyncio.ensure_future(programs.run(st, given=b"spin\n"))
            spinning_too = asyncio.ensure_future(programs.run(st, given=b"spin\n"))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await programs.run(st, given=b"late\n", timeout_s=0.1)
            for each in (spinning, spinning_too):
                each.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await each
            assert (await programs.run(st, given=b"again\n"))[1] == b"again\n"

        programs.host(st, scenario, at_once=2)

    in_stage(MODES[0], act)


def test_a_zygote_that_dies_takes_its_runs_along_and_its_successor_serves():
    """How a run ends nobody would know any more: it fails, and its process goes; the next one works."""

    def act(st: Stage) -> None:
        path = programs.script(st, "read -r a <&3\n[ $a = spin ] && while :; do :; done\necho $a")
        programs.start(st, path)

        async def scenario(st: Stage) -> None:
            going = asyncio.ensure_future(programs.run(st, given=b"spin\n"))
            while not st.processes():
                await asyncio.sleep(0.005)
            os.kill(st.zygote.pid, signal.SIGKILL)
            os.waitpid(st.zygote.pid, 0)
            with pytest.raises(CallFailed) as failed:
                await going
            assert failed.value.cause == "unavailable"
            assert wait_for(lambda: not st.processes(), timeout_s=1)
            st.zygote.close()
            programs.start(st, path)
            assert (await programs.run(st, given=b"hello\n"))[1] == b"hello\n"

        programs.host(st, scenario)

    in_stage(MODES[0], act)


def test_what_it_prints_elsewhere_goes_to_the_log():
    """Descriptor 2, and 1 where not given: bounded, escaped, with the program's name."""

    def act(st: Stage) -> None:
        programs.start(st, programs.script(st, "printf 'help\\033[1m\\n' >&2; exit 111"))
        assert programs.once(st)[0] == 111
        assert st.outputs == [("help\\x1b[1m\n", 0)]

    in_stage(MODES[0], act)


def test_a_program_that_cannot_be_started_says_so():
    """The exec failed: 127 as from a shell, and why in the log."""

    def act(st: Stage) -> None:
        path = programs.script(st, "exit 0")
        programs.start(st, path)
        path.write_text("#!/nonexistent\n")
        assert programs.once(st)[0] == 127
        assert "No such file" in st.outputs[0][0]

    in_stage(MODES[0], act)


def test_a_plugins_zygote_runs_no_program_and_the_reverse():
    """PROTOCOL.md, part 1: each kind of zygote has its own request; another one ends the connection."""

    def act(st: Stage) -> None:
        st.start("def attack(_): pass\n")

        async def scenario(st: Stage) -> None:
            with pytest.raises(CallFailed) as failed:
                await programs.run(st, timeout_s=5)
            assert failed.value.cause == "unavailable"

        programs.host(st, scenario)

    in_stage(MODES[0], act)


# --- the parts --------------------------------------------------------------------------------------------


def test_which_files_a_program_needs(tmp_path: Path):
    """Itself, its interpreter, what `env` finds, the loader; links and what they point at; granted ones."""
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o755)
    found = executables.needed((str(plain), "/bin/true", "a word", "/etc/passwd"), [Path("/bin/cat")])
    names = {path.name for path in found}
    assert {"plain", "sh", "true", "cat"} <= names
    assert any(name.startswith("ld-") for name in names)
    assert "passwd" not in names
    by_env = tmp_path / "by_env"
    by_env.write_text("#!/usr/bin/env -S perl -w\n#!/usr/bin/env sh\n")
    assert "env" in {path.name for path in executables.needed((str(by_env),))}


@pytest.mark.parametrize("argv", [(), ("true",), ("/nonexistent/program",), ("./x", "/bin/true")])
def test_a_program_is_named_by_a_path_that_exists(argv: tuple[str, ...]):
    """No search: what runs is what the admin wrote."""
    with pytest.raises(ExecutableError):
        executables.needed(argv)


RUNS = [Run(1, ()), Run(2**32 - 1, (3,)), Run(7, (0, 1, 31))]


@pytest.mark.parametrize("run", RUNS)
def test_a_request_comes_back_as_it_was(run: Run):
    """PROTOCOL.md, part 1."""
    assert wire.unpack_run(wire.pack_run(run)) == run


@pytest.mark.parametrize("run", [Run(1, (32,)), Run(1, (3, 3)), Run(1, tuple(range(9)))])
def test_a_request_that_cannot_be_is_never_sent(run: Run):
    """Descriptors out of bounds or twice."""
    with pytest.raises(WireError):
        wire.pack_run(run)


@pytest.mark.parametrize(
    "record", [b"", b"R", b"F\x01\x00\x00\x00\x00", b"R\x02\0\0\0\0\x03", b"R\0\0\0\0\0A=b"]
)
def test_a_request_out_of_form_is_refused(record: bytes):
    """Hostile or broken: never half understood."""
    with pytest.raises(WireError):
        wire.unpack_run(record)


def test_an_environment_comes_back_as_it_was():
    """PROTOCOL.md, part 1; a value may hold an equals sign; arguments may be empty, and there may be none."""
    packed = program_runs.pack_environment({"A": "b=c", "B": "", "C": "x" * 100_000})
    given = {b"A": b"b=c", b"B": b"", b"C": b"x" * 100_000}
    assert wire.unpack_environment(packed) == (given, None)
    assert wire.unpack_environment(b"") == ({}, None)
    assert wire.unpack_environment(packed + b"\0") == (given, [])
    assert wire.unpack_environment(packed + b"\0-x\0\0a b\0") == (given, [b"-x", b"", b"a b"])
    assert wire.unpack_environment(b"\0a=b\0") == ({}, [b"a=b"])
    # What comes with a mail ends no entry, and so begins no argument.
    packed = program_runs.pack_environment({"A": "b\0\0-x\0", "B": "\udcff"})
    assert wire.unpack_environment(packed) == ({b"A": b"b??-x?", b"B": b"\xff"}, None)


@pytest.mark.parametrize(
    "text", [b"A=b", b"no equals sign\0", b"=x\0", b"A=b\0\0a", b"A=" + b"x" * (1 << 20) + b"\0"]
)
def test_an_environment_out_of_form_is_refused(text: bytes):
    """What would be read differently, or is cut off."""
    with pytest.raises(WireError):
        wire.unpack_environment(text)


def test_the_leash_has_one_number():
    """profiles.py and wire.py must agree: the filter guards that descriptor."""
    assert profiles.PROGRAM_LEASH_FD == wire.PROGRAM_LEASH_FD
    assert syscalls.LEASH_FD == wire.LEASH_FD


class _Auth:
    backend = "checkpassword"
    checkpassword: tuple[str, ...] = ("/bin/sh", "/bin/true")
    files: tuple[Path, ...] = ()


def test_masters_zygote_for_checkpassword(tmp_path: Path):
    """[auth] backend "checkpassword": a zygote of that name; none for other backends; clear errors."""
    auth = _Auth()
    spec = zygotes.checkpassword(auth, uid_base=1_900_000_000)
    assert spec is not None
    assert (spec.name, spec.argv, spec.kind) == ("@checkpassword", ("/bin/sh", "/bin/true"), "program")
    assert spec.uid == (1_900_065_535 if os.geteuid() == 0 else None)
    auth.checkpassword = ("/nonexistent",)
    with pytest.raises(StartError) as failed:
        zygotes.checkpassword(auth, uid_base=1_900_000_000)
    assert failed.value.status is Exit.CONFIG
    auth.checkpassword = ("/bin/sh",)
    auth.files = (tmp_path / "users",)
    auth.files[0].write_text("alice:secret")
    auth.files[0].chmod(0o600)
    if os.geteuid() == 0:
        with pytest.raises(StartError, match=r"uid 1900065535, as which it runs, cannot read .*users"):
            zygotes.checkpassword(auth, uid_base=1_900_000_000)
    auth.backend = "none"
    assert zygotes.checkpassword(auth, uid_base=1_900_000_000) is None


def test_a_zygote_whose_program_the_uid_may_not_execute_says_so():
    """Found before the first client asks for it."""

    def act(st: Stage) -> None:
        path = programs.script(st, "exit 0")
        path.chmod(0o644)
        with pytest.raises(StartFailed, match="may not execute"):
            programs.start(st, path)

    in_stage("user", act)
