"""Attack 93 and its kin: a hostile program, or one taken over by its input, behind the exec profile."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from forkd.rpc.calls import CallFailed
from tests.support import programs
from tests.support.sandboxes import MODES, Stage, as_mode, stage
from tests.support.waiting import wait_for

HEAD = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#define LEASH 200
static void say(const char *what, long result) {
    printf("%s:%s ", what, result < 0 ? strerrorname_np(errno) : "done");
    fflush(stdout);
}
static int main2(int argc, char **argv);
int main(int argc, char **argv) { int r = main2(argc, argv); return r; }
"""

ACTS = {
    "fork": (
        r"""
    say("fork", syscall(SYS_fork)); say("vfork", vfork() == 0 ? (_exit(0), 0) : -1);
    say("clone", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    say("thread", syscall(SYS_clone, CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD, 0, 0, 0, 0));
""",
        "fork:EPERM vfork:EPERM clone:EPERM thread:(ENOSYS|EPERM)",
    ),
    "leave the group": (
        r"""say("setsid", setsid()); say("setpgid", setpgid(0, 0));""",
        "setsid:EPERM setpgid:EPERM",
    ),
    "other programs": (
        r"""
    char *a[] = {"x", NULL};
    say("ls", execv("/bin/ls", a)); say("own", execv("/proc/self/fd/3", a));
    say("execveat", syscall(SYS_execveat, 3, "", a, NULL, AT_EMPTY_PATH));
    say("memory file", memfd_create("x", 0));
""",
        "ls:(EACCES|ENOENT) own:EACCES execveat:EACCES memory file:EPERM",
    ),
    "files": (
        r"""
    say("passwd", open("/etc/passwd", 0)); say("shadow", open("/etc/shadow", 0));
    say("proc", open("/proc/1/environ", 0));
    say("own proc", open("/proc/self/mem", O_RDWR));
    say("create", open("/tmp/forkd-escape", O_CREAT|O_WRONLY, 0600));
    say("folder", open("/", O_RDONLY|O_DIRECTORY)); say("program", open(argv[0], O_WRONLY));
    say("temporary", open("/tmp", O_TMPFILE|O_RDWR, 0600)); say("unlink", unlink(argv[0]));
    say("mkdir", mkdir("/tmp/forkd-escape", 0700)); say("link", symlink("/etc/passwd", "/tmp/forkd-escape"));
    say("null", open("/dev/null", O_RDWR));
""",
        (
            "passwd:(EACCES|ENOENT) shadow:(EACCES|ENOENT) proc:(EACCES|ENOENT) "
            "own proc:(EACCES|EROFS|ENOENT) create:(EACCES|EROFS) folder:EACCES "
            "program:(EACCES|ETXTBSY|EROFS) temporary:(EACCES|EROFS) unlink:EACCES "
            "mkdir:EACCES link:EACCES null:done"
        ),
    ),
    "network": (
        r"""
    say("tcp", socket(AF_INET, SOCK_STREAM, 0)); say("udp", socket(AF_INET, SOCK_DGRAM, 0));
    say("unix", socket(AF_UNIX, SOCK_STREAM, 0)); say("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    int p[2]; say("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, p));
""",
        "tcp:EACCES udp:EACCES unix:EACCES netlink:EACCES pair:EACCES",
    ),
    "other processes": (
        r"""
    say("parent", kill(getppid(), SIGKILL)); say("all", kill(-1, SIGKILL)); say("init", kill(1, 0));
    say("tgkill", syscall(SYS_tgkill, getppid(), getppid(), 9));
    say("pidfd", syscall(SYS_pidfd_open, getppid(), 0));
    say("owner", fcntl(0, F_SETOWN, getppid())); say("priority", setpriority(PRIO_PROCESS, getppid(), 19));
""",
        "parent:EPERM all:EPERM init:EPERM tgkill:EPERM pidfd:EPERM owner:EPERM priority:EPERM",
    ),
    "limits": (
        r"""
    struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
    say("memory", setrlimit(RLIMIT_AS, &more)); say("cpu", setrlimit(RLIMIT_CPU, &more));
    say("too much", malloc(300 << 20) ? 0 : -1); say("code", (long)mmap(0, 4096, 7, 0x22, -1, 0));
    void *page = mmap(0, 4096, 3, 0x22, -1, 0); say("turned", mprotect(page, 4096, 5));
    say("shared", (long)mmap(0, 4096, 3, MAP_SHARED|MAP_ANONYMOUS, -1, 0));
""",
        "memory:EPERM cpu:EPERM too much:ENOMEM code:EACCES turned:EACCES shared:EACCES",
    ),
    "identity": (
        r"""
    uid_t before = getuid();
    say("setuid", setuid(0)); say("setgroups", syscall(SYS_setgroups, 0, 0));
    printf("%s ", getuid() == before ? "same" : "changed");
""",
        "setuid:done setgroups:done same",
    ),
}

LEASH_ACTS = r"""
    char path[64];
    close(LEASH); say("close", fcntl(LEASH, F_GETFD));
    say("disarm", fcntl(LEASH, F_SETFL, 0)); say("signal", fcntl(LEASH, F_SETSIG, SIGCHLD));
    say("owner", fcntl(LEASH, F_SETOWN, 0)); say("on exec", fcntl(LEASH, F_SETFD, FD_CLOEXEC));
    say("copy", dup(LEASH)); say("copy 2", dup2(LEASH, 9)); say("copy 3", dup3(LEASH, 9, 0));
    say("copy 4", fcntl(LEASH, F_DUPFD, 0)); say("replace", dup2(0, LEASH));
    say("replace 2", dup3(0, LEASH, 0));
    say("range", syscall(SYS_close_range, 3, ~0U, 0)); say("high", syscall(SYS_close, LEASH | 1L << 32));
    sprintf(path, "/proc/self/fd/%d", LEASH);
    say("write end", open(path, O_WRONLY)); say("both ends", open(path, O_RDWR));
    say("mode", chmod(path, 0777));
    say("mode 2", fchmod(LEASH, 0777)); say("ioctl", syscall(SYS_ioctl, LEASH, 0x5452, &(int){0}));
    say("timer", syscall(SYS_timer_create, 0, 0, 0));
    sigset_t all; sigfillset(&all); sigprocmask(SIG_SETMASK, &all, NULL);
    printf("free"); fflush(stdout);
    for (;;) ;
"""
LEASH_SAYS = (
    "close:EPERM disarm:EPERM signal:EPERM owner:EPERM on exec:EPERM copy:EPERM copy 2:EPERM copy 3:EPERM "
    "copy 4:EPERM replace:EPERM replace 2:EPERM range:EPERM high:EPERM write end:EACCES both ends:EACCES "
    "mode:EACCES mode 2:EACCES ioctl:ENOTTY timer:EPERM free"
)


ESCAPE = Path(f"/tmp/forkd-escape-{os.getpid()}")


def source(acts: str) -> str:
    acts = acts.replace("/tmp/forkd-escape", str(ESCAPE))
    return HEAD + "static int main2(int argc, char **argv) {\n" + acts + "\nreturn 0; }\n"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ACTS)
def test_a_hostile_program_gets_nowhere(name: str, mode: str):
    """Each act fails as its row says, and nothing is left behind."""
    acts, says = ACTS[name]

    def body() -> None:
        with stage(mode) as st:
            programs.start(st, programs.binary(st, source(acts)))
            code, said = programs.once(st)
            assert code == 0
            assert re.fullmatch(says, said.strip()), said
        assert not ESCAPE.exists()

    as_mode(mode, body)


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_program_cannot_slip_its_leash(mode: str, processes: bool):
    """Every way to disarm it, then a loop with all signals blocked: dead with its deadline all the same."""

    def body() -> None:
        with stage(mode) as st:
            acts = ("if (fork()) for (;;) ;\n" if processes else "") + LEASH_ACTS
            programs.start(st, programs.binary(st, source(acts)), processes=processes)

            async def scenario(st: Stage) -> None:
                reader, writer = _pipe()
                going = asyncio.ensure_future(st.host.run_program("program", fds={1: writer}, timeout_s=2))
                said = ""
                while not said.endswith("free"):
                    assert not going.done(), said
                    await asyncio.sleep(0.01)
                    said += _read(reader)
                assert said == LEASH_SAYS
                with pytest.raises(CallFailed) as failed:
                    await going
                assert failed.value.cause == "deadline"
                assert wait_for(lambda: not st.processes(), timeout_s=1)
                _close(reader, writer)

            programs.host(st, scenario)

    as_mode(mode, body)


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return reader, writer


def _read(fd: int) -> str:
    try:
        return os.read(fd, 65_536).decode()
    except BlockingIOError:
        return ""


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    [
        "ptrace",
        "process_vm_readv",
        "unshare",
        "mount",
        "keyctl",
        "bpf",
        "io_uring_setup",
        "userfaultfd",
        "chroot",
    ],
)
def test_an_exploit_kills_the_program(name: str, mode: str):
    """Calls that no innocent program makes."""

    def body() -> None:
        with stage(mode) as st:
            programs.start(st, programs.binary(st, source(f"syscall(SYS_{name}, 0, 0, 0, 0, 0, 0);")))
            assert programs.once(st)[0] == -31  # SIGSYS

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_fork_bomb_ends_with_its_deadline(mode: str):
    """Where processes are granted: whatever it started is one group, and master is not in it."""

    def body() -> None:
        with stage(mode) as st:
            acts = "for (int i = 0; i < 60; i++) if (fork() == 0) for (;;) pause(); for (;;) pause();"
            programs.start(st, programs.binary(st, source(acts)), processes=True)

            async def scenario(st: Stage) -> None:
                with pytest.raises(CallFailed):
                    await programs.run(st, timeout_s=0.5)
                assert wait_for(lambda: not st.processes(), timeout_s=1)

            programs.host(st, scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_processor_time_is_bounded_behind_the_exec(mode: str):
    """The exec drops the CPU timer: RLIMIT_CPU holds, in whole seconds, and the status tells it."""

    def body() -> None:
        with stage(mode) as st:
            programs.start(st, programs.script(st, "while :; do :; done"), cpu_s=0.1)
            assert programs.once(st)[0] == -9

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_flood_on_standard_error_is_bounded(mode: str):
    """Nobody waits for it, and what it prints past the pipe is lost."""

    def body() -> None:
        with stage(mode) as st:
            text = "i=0; while [ $i -lt 3000 ]; do echo 012345678901234567890123456789 >&2; i=$((i+1)); done"
            programs.start(st, programs.script(st, text))
            programs.once(st)
            assert sum(len(text) for text, _ in st.outputs) <= 65_536

    as_mode(mode, body)


def test_without_its_filter_the_program_does_fork():
    """Honesty: with seccomp switched off the same program succeeds, so the tests above can fail."""
    with stage(MODES[0]) as st:
        layers = ("rlimits", "no_new_privs", "non_dumpable", "files", "network", "signals")
        acts = 'int p[2]; say("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, p)); say("setpgid", setpgid(0, 0));'
        programs.start(st, programs.binary(st, source(acts)), layers=layers)
        assert programs.once(st)[1].strip() == "pair:done setpgid:done"


def test_without_landlock_the_program_reads_on():
    """Honesty: without the files layer /etc/passwd opens, so it is Landlock that refuses it above."""
    with stage(MODES[0]) as st:
        layers = ("rlimits", "no_new_privs", "non_dumpable", "network", "signals", "seccomp")
        programs.start(st, programs.binary(st, source(ACTS["files"][0])), layers=layers)
        said = programs.once(st)[1]
        ESCAPE.unlink(missing_ok=True)
        assert "passwd:done" in said
