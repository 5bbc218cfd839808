"""How does master start a zygote, and judge it from outside?

A zygote is exec'd, never forked from us: nothing of master's memory is in it. It gets an empty
environment and its own descriptors (wire.py names the numbers); ids are dropped and the capability
bounding set is emptied before the exec, so that the plugin's interpreter never runs with ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from forkd.sandbox import executables, linux, wire
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.spec import Member, ZygoteSpec

__all__ = ["EXIT_LAUNCH", "Failed", "LaunchError", "Member", "Ready", "Verification", "ZygoteProcess"]
__all__ += ["ZygoteSpec", "check_program", "drop_ids", "inspect", "launch", "read_control"]
__all__ += ["unreachable", "verify"]

EXIT_LAUNCH = 120
"""The process ended before the exec; why stands in its output."""

_PACKAGE = Path(__file__).resolve().parent.parent
_BOOT = _PACKAGE / "sandbox" / "boot.py"
_PR_CAPBSET_DROP = 24


class LaunchError(Exception):
    """No zygote could be started; the text is for the admin."""


@dataclasses.dataclass(frozen=True, slots=True)
class ZygoteProcess:
    """A started zygote, not ready yet.

    control   non-blocking SEQPACKET; read_control() reads it. Closing it ends the zygote (exit 0) but not
              its sandboxes; SIGKILL to `pid` likewise. End of file: it died.
    output    non-blocking end of the pipe that is its stdout and stderr; read it to the log, bounded.
    """

    pid: int
    control: socket.socket
    output: int

    def close(self) -> None:
        """Let go of it; the caller reaps `pid`."""
        self.control.close()
        os.close(self.output)


class Ready(msgspec.Struct, frozen=True, tag_field="t", tag="ready"):
    """The plugin is loaded behind its walls. A claim: verify() looks."""

    api: int
    pid: int
    layers: dict[str, str]
    """Wall -> on | absent | off, as confine() set them up."""


class Failed(msgspec.Struct, frozen=True, tag_field="t", tag="failed"):
    """The zygote gives up and exits; `error` ends with its traceback's last lines.

    phase "settings": plugin_init refuses what the admin wrote, and `error` is its text alone.
    """

    phase: Literal["confine", "load", "settings", "prepare"]
    error: str


_decoder = msgspec.json.Decoder(Ready | Failed)
_MAX_CONTROL_BYTES = 65_536


def read_control(process: ZygoteProcess) -> Ready | Failed | None:
    """The next message of a zygote; None: nothing there now.

    Raises EOFError when it is dead, and LaunchError for anything out of protocol: it is hostile input
    as soon as the plugin has been loaded.
    """
    try:
        record = process.control.recv(_MAX_CONTROL_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError as error:
        raise EOFError from error
    if not record:
        raise EOFError
    try:
        message: Ready | Failed = _decoder.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LaunchError(f"the zygote spoke out of protocol: {record[:64]!r}") from error
    if isinstance(message, Ready) and (message.api != wire.API or message.pid != process.pid):
        raise LaunchError(f"the zygote of pid {process.pid} says pid {message.pid}, protocol {message.api}")
    return message


def check_program(spec: ZygoteSpec) -> None:
    """Look whether the program can be found with what it needs, before anything is started.

    Raises LaunchError; where root gives it a uid, also when that uid cannot read or execute it. Blocks for a
    fork then.
    """
    try:
        needed = executables.needed(spec.argv, spec.files)
    except executables.ExecutableError as error:
        raise LaunchError(str(error)) from error
    if spec.uid is None or spec.gid is None:
        return
    if closed := unreachable([*needed, *spec.files], uid=spec.uid, gid=spec.gid):
        raise LaunchError(f"uid {spec.uid}, as which it runs, cannot read {closed[0]}")


def launch(spec: ZygoteSpec, *, listener: socket.socket) -> ZygoteProcess:
    """Start a zygote; `listener` (SEQPACKET, bound and listening) stays ours and outlives it.

    Returns before it is ready: wait for Ready on `control`. Blocks for a fork (about 1 ms).
    Raises LaunchError when the process cannot be made.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    memory = os.memfd_create("spec", os.MFD_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(memory, spec.encode())
        pid = os.fork()
        if pid == 0:
            _become(spec, (null, write_end, write_end, theirs.fileno(), listener.fileno(), memory))
    except (OSError, executables.ExecutableError) as error:
        os.close(read_end)
        ours.close()
        raise LaunchError(f"no process for plugin {spec.name}: {error}") from error
    finally:
        os.close(memory)
        os.close(null)
        os.close(write_end)
        theirs.close()
    ours.setblocking(False)
    return ZygoteProcess(pid, ours, read_end)


def _become(spec: ZygoteSpec, descriptors: Sequence[int]) -> None:
    """In the new process: descriptors to their numbers, signals as a fresh program has them, ids, exec."""
    try:
        signal.set_wakeup_fd(-1)
        for which in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):
                signal.signal(which, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Out of the way of the numbers they are going to.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in descriptors]
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
        os.closerange(len(high), _most_descriptors())
        os.setsid()
        os.chdir("/")
        os.umask(0o077)
        drop_ids(spec.uid, spec.gid)
        if problems := _problems((Path(spec.python), _BOOT, *spec.paths())):
            raise LaunchError(f"uid {os.getuid()} cannot read {', '.join(problems)}")
        if spec.argv and not os.access(spec.argv[0], os.X_OK):
            raise LaunchError(f"uid {os.getuid()} may not execute {spec.argv[0]}")
        # LD_BIND_NOW: symbols bound once, here, are a dozen page faults fewer in every sandbox.
        # TZ: libc would stat /etc/localtime, which a zygote cannot.
        environment = {"LD_BIND_NOW": "1", "TZ": "UTC0"}
        os.execve(spec.python, [spec.python, *_FLAGS, str(_BOOT), "zygote", spec.name], environment)  # noqa: S606
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error}\n".encode("utf-8", "backslashreplace"))
    os._exit(EXIT_LAUNCH)


_FLAGS = ("-I", "-S", "-B", "-X", "utf8")
"""Isolated (no PYTHON* variables, no user folder), no site-packages, no .pyc written, always UTF-8."""


def _most_descriptors() -> int:
    return max(os.sysconf("SC_OPEN_MAX"), 65_536)


def drop_ids(uid: int | None, gid: int | None) -> None:
    """Empty the capability bounding set where we may, and become `uid`, `gid`. Raises OSError.

    The bounding set first: dropping needs a capability that the change of uid takes away. With it empty, an
    exec gives no capability back, not even to uid 0.
    """
    if os.geteuid() == 0:
        _empty_bounding_set()
    if gid is not None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)


def _empty_bounding_set() -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # python-prctl warns when the kernel knows more capabilities
            import prctl  # noqa: PLC0415 - its absence is not an error
        prctl.capbset.limit()
    except ImportError:
        pass
    for capability in range(64):  # and those that python-prctl 1.8.1 does not know
        try:
            linux.prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            return  # EINVAL: past the last one; EPERM: we may not, and have none to give either


def unreachable(paths: Iterable[Path], *, uid: int, gid: int) -> list[str]:
    """Which of `paths` a process of `uid` could not read; for choosing whether to drop ids at all.

    Asked by a throw-away process that has dropped its ids (an interpreter below a home folder is the
    usual case). Blocks for a fork. Raises OSError.
    """
    paths = list(paths)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            with os.fdopen(writer, "wb", closefd=False) as answer:
                answer.write(json.dumps(_problems(paths)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as answer:
            text = answer.read()
    finally:
        os.waitpid(pid, 0)
    result: list[str] = json.loads(text) if text else [str(path) for path in paths]
    return result


def _problems(paths: Iterable[Path]) -> list[str]:
    problems = []
    for path in paths:
        try:
            if os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
                continue
        except OSError:  # is_dir() below a folder that may not be searched
            pass
        problems.append(str(path))
    return problems


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """What was seen from outside: what is wrong, and what we may not look at."""

    problems: tuple[str, ...]
    unverified: tuple[str, ...]


def verify(pid: int, *, layers: Sequence[str] = LAYERS) -> list[str]:
    """Look at a zygote from outside after its Ready; [] means nothing wrong was seen.

    One thread, no_new_privs, the filter in place, no capability; and where we may look (root), no
    shared writable mapping and no strange descriptor. inspect() also tells what could not be looked at.
    """
    return list(inspect(pid, layers=layers).problems)


def inspect(pid: int, *, layers: Sequence[str] = LAYERS) -> Verification:
    """verify(), with what could not be looked at."""
    problems: list[str] = []
    unverified: list[str] = []
    root = Path(f"/proc/{pid}")
    try:
        status = dict(
            line.split(":\t", 1) for line in (root / "status").read_text().splitlines() if ":\t" in line
        )
        own = dict(
            line.split(":\t", 1)
            for line in Path("/proc/self/status").read_text().splitlines()
            if ":\t" in line
        )
    except OSError as error:
        return Verification((f"no such process: {error}",), ())
    expected = {"Threads": "1", "NoNewPrivs": "1", "CapEff": "0" * 16, "CapPrm": "0" * 16}
    if "seccomp" in layers:
        expected["Seccomp"] = "2"
        if int(status["Seccomp_filters"]) < int(own["Seccomp_filters"]) + 1:
            problems.append(f"{status['Seccomp_filters']} system call filters")
    problems += [
        f"{field} is {status[field].strip()}"
        for field, value in expected.items()
        if status[field].strip() != value
    ]
    if os.geteuid() != 0:
        return Verification(tuple(problems), ("mappings", "descriptors"))
    try:
        maps = (root / "maps").read_text()
        problems += [f"shared mapping {line}" for line in maps.splitlines() if "rw-s" in line]
    except OSError:
        unverified.append("mappings")
    try:
        problems += _strange_descriptors(root / "fd")
    except OSError:
        unverified.append("descriptors")
    return Verification(tuple(problems), tuple(unverified))


def _strange_descriptors(folder: Path) -> list[str]:
    """Null, the output pipe twice, sockets (control, listener, workers), one signalfd; nothing else."""
    strange = []
    for entry in folder.iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        number = int(entry.name)
        fine = (
            (number == 0 and target == os.devnull)
            or (number in (1, 2) and target.startswith("pipe:"))
            or (number > 2 and (target.startswith("socket:") or target == "anon_inode:[signalfd]"))
        )
        if not fine:
            strange.append(f"descriptor {number} is {target}")
    return strange
