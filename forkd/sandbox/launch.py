"""How does master start a zygote, and judge it from outside?

A zygote is exec'd, never forked from us: nothing of master's memory is in it. It gets an empty
environment and its own descriptors (wire.py names the numbers); ids are dropped and the capability
bounding set is emptied before the exec, so that the plugin's interpreter never runs with ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import signal
import socket
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from forkd.sandbox import cgroups, executables, interpreter, landlock, linux, mounts, namespaces, wire
from forkd.sandbox.ending import end_all, end_rest
from forkd.sandbox.outside import Verification, inspect, verify
from forkd.sandbox.reach import check_reach, unreachable
from forkd.sandbox.spec import Around, Member, ZygoteSpec

__all__ = ["EXIT_LAUNCH", "Failed", "LaunchError", "Member", "Ready", "Verification", "ZygoteProcess"]
__all__ += ["Alive", "ZygoteSpec", "ask", "check_program", "drop_ids", "end_all", "end_rest", "inspect"]
__all__ += ["launch", "look", "read_control", "unreachable", "verify"]

EXIT_LAUNCH = 120
"""The process ended before the exec; why stands in its output."""

_PACKAGE = Path(__file__).resolve().parent.parent
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4


class LaunchError(Exception):
    """No zygote could be started; the text is for the admin."""


@dataclasses.dataclass(frozen=True, slots=True)
class ZygoteProcess:
    """A started zygote, not ready yet.

    control   non-blocking SEQPACKET; read_control() reads it. Closing it ends the zygote (exit 0) but not
              its sandboxes; SIGKILL to `pid` likewise. End of file: it died.
    output    non-blocking end of the pipe that is its stdout and stderr; read it to the log, bounded.
    namespaces, mount_root, cgroup   what is around it (namespaces.py, mounts.py, cgroups.py); in a PID
              namespace it is the first process, and its end is its sandboxes' end.
    writable  folders on its mount root that it was granted to write.
    uid       its own; None: ours.
    """

    pid: int
    control: socket.socket
    output: int
    namespaces: tuple[str, ...] = ()
    mount_root: bool = False
    cgroup: Path | None = None
    uid: int | None = None
    writable: frozenset[str] = frozenset()

    @property
    def shared(self) -> tuple[str, ...]:
        """Namespaces that a zygote should have of its own, and this one has not."""
        return tuple(name for name in namespaces.WANTED if name not in self.namespaces)

    def close(self) -> None:
        """Let go of it; the caller reaps `pid`, best before."""
        self.control.close()
        os.close(self.output)
        if self.cgroup is not None:
            cgroups.remove(self.cgroup)


class Ready(msgspec.Struct, frozen=True, tag_field="t", tag="ready"):
    """The plugin is loaded behind its walls. A claim: verify() looks. It forks nothing before ask()."""

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


class Alive(msgspec.Struct, frozen=True, tag_field="t", tag="alive"):
    """The n-th question whether its loop goes round, and the answer."""

    n: int


_decoder = msgspec.json.Decoder(Ready | Failed | Alive)
_MAX_CONTROL_BYTES = 65_536


def ask(process: ZygoteProcess, n: int) -> None:
    """Ask whether its loop goes round: Alive(n) comes back when it does. The first time this lets it begin.

    Never waits, never raises: one that is dead, or does not read, does not answer.
    """
    with contextlib.suppress(OSError):
        process.control.send(msgspec.json.encode(Alive(n)), socket.MSG_DONTWAIT)


def read_control(process: ZygoteProcess) -> Ready | Failed | Alive | None:
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
        message: Ready | Failed | Alive = _decoder.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LaunchError(f"the zygote spoke out of protocol: {record[:64]!r}") from error
    pid = 1 if "pid" in process.namespaces else process.pid
    if isinstance(message, Ready) and (message.api != wire.API or message.pid != pid):
        raise LaunchError(f"the zygote of pid {process.pid} says pid {message.pid}, protocol {message.api}")
    return message


def check_program(spec: ZygoteSpec) -> None:
    """Look whether the program can be found with what it needs, before anything is started.

    Raises LaunchError; where root gives it a uid, also when that uid cannot read or execute it, or write what
    it is to write. Blocks for a fork or two then.
    """
    try:
        needed = spec.started()
    except executables.ExecutableError as error:
        raise LaunchError(str(error)) from error
    if spec.uid is None or spec.gid is None:
        if closed := [path for path in spec.write if not os.access(path, os.W_OK | os.X_OK)]:
            raise LaunchError(f"{closed[0]}, which it is to write, is not ours to write")
        return
    if missing := unreachable([*needed, *spec.files], uid=spec.uid, gid=spec.gid):
        raise LaunchError(f"uid {spec.uid}, as which it runs, cannot read {missing[0]}")
    if missing := unreachable(spec.write, uid=spec.uid, gid=spec.gid, write=True):
        remedy = f"chown {spec.uid} {missing[0]}, or name one who may (uid = N)"
        raise LaunchError(f"uid {spec.uid}, as which it runs, cannot write {missing[0]}; {remedy}")


def look(process: ZygoteProcess, *, layers: Sequence[str]) -> Verification:
    """inspect(), and whether what was put around it is still there. Between its Ready and the first ask()."""
    return inspect(
        process.pid,
        layers=layers,
        namespaces=process.namespaces,
        mount_root=process.mount_root,
        writable=process.writable,
    )


def launch(spec: ZygoteSpec, *, listener: socket.socket) -> ZygoteProcess:
    """Start a zygote; `listener` (SEQPACKET, bound and listening) stays ours and outlives it.

    Returns before it is ready: wait for Ready on `control`. Blocks for a fork (about 1 ms); the first
    time for what has to be found out about the machine and the interpreter (some 50 ms).
    Raises LaunchError when the process cannot be made.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    memory = os.memfd_create("spec", os.MFD_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    cgroup: Path | None = None
    gate: namespaces.Gate | None = None
    try:
        around, plan = _around(spec)
        os.write(memory, spec.encode(around))
        cgroup = _cgroup(spec, around)
        gate = namespaces.Gate(around.namespaces)
        birth = _Birth(spec, around, plan, cgroup, gate)
        descriptors = (null, write_end, write_end, theirs.fileno(), listener.fileno(), memory)
        pid = namespaces.clone(around.namespaces)
        if pid == 0:
            _become(birth, descriptors)
        try:
            gate.open(pid, uid=spec.uid, gid=spec.gid)
        except OSError:
            os.waitpid(pid, 0)  # refused, it ends
            raise
    except (OSError, executables.ExecutableError, interpreter.InterpreterError) as error:
        os.close(read_end)
        ours.close()
        if cgroup is not None:
            cgroups.remove(cgroup)
        raise LaunchError(f"no process for plugin {spec.name}: {error}") from error
    finally:
        os.close(memory)
        os.close(null)
        os.close(write_end)
        theirs.close()
        if gate is not None:
            gate.close()
    ours.setblocking(False)
    return ZygoteProcess(
        pid,
        ours,
        read_end,
        around.namespaces,
        mount_root=plan is not None,
        cgroup=cgroup,
        uid=spec.uid,
        writable=plan.open if plan is not None else frozenset(),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Birth:
    """What a new process needs to become a zygote."""

    spec: ZygoteSpec
    around: Around
    plan: mounts.Plan | None
    cgroup: Path | None
    gate: namespaces.Gate


def _around(spec: ZygoteSpec) -> tuple[Around, mounts.Plan | None]:
    """What is put around it here, and how its mount root is made; None: it gets none."""
    reads = interpreter.paths(spec.python, uid=spec.uid, gid=spec.gid)
    if not spec.namespaces or spec.learn or "namespaces" not in spec.layers:
        return Around(interpreter=reads), None
    possible = namespaces.possible()
    plan = None
    if possible.mount_root and "mount_root" in spec.layers and reads:  # without those it starts nothing
        views = [path for paths in spec.views() for path in paths]
        written = map(str, spec.write)
        plan = mounts.plan([*views, *reads, str(_PACKAGE / "__init__.py")], written)
    around = Around(
        namespaces=possible.names,
        mount_root=plan is not None,
        counted=possible.counted,
        interpreter=reads,
    )
    return around, plan


def _cgroup(spec: ZygoteSpec, around: Around) -> Path | None:
    """One of its own where that gives anything: limits, or the one kill for all. Else None."""
    if not spec.cgroup:
        return None
    try:
        if not cgroups.home().controllers and "pid" in around.namespaces:
            return None
        most = spec.memory * (spec.at_once + 4)  # the zygote itself, while it loads
        limits = {"pids": spec.most_processes, "memory": min(most, cgroups.machine_memory() // 2)}
        return cgroups.make(spec.name, limits)
    except cgroups.CgroupError:
        return None  # the self-test's row says why


def _become(birth: _Birth, descriptors: Sequence[int]) -> None:
    """In the new process: all that needs master's rights, then ids, then exec; never returns."""
    spec, around = birth.spec, birth.around
    try:
        signal.set_wakeup_fd(-1)
        for which in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):
                signal.signal(which, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if birth.cgroup is not None:
            cgroups.join(birth.cgroup)
        birth.gate.pass_through()
        _die_first()
        size = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        # Out of the way of the numbers they are going to.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (*descriptors, size)]
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
        os.closerange(len(high), _most_descriptors())
        os.setsid()
        os.chdir("/")
        os.umask(0o022)
        check_reach(spec)
        if os.geteuid() == 0 or namespaces.USER in around.namespaces:
            _empty_bounding_set()
        if birth.plan is not None:
            # Its runs share a uid: one that may look into the others must not find them.
            proc = spec.kind == "program" and landlock.keeps_apart(spec.layers)
            mounts.enter(birth.plan, proc=proc and "pid" in around.namespaces)
        os.umask(0o077)
        _take_ids(spec.uid, spec.gid)
        command = [spec.python, *interpreter.FLAGS, str(interpreter.BOOT), "zygote", spec.name]
        os.execve(spec.python, command, interpreter.environment(spec.python, lazy=spec.kind == "indimail"))  # noqa: S606
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error}\n".encode("utf-8", "backslashreplace"))
    os._exit(EXIT_LAUNCH)


def _die_first() -> None:
    """Where memory runs out, the kernel takes this process or its children before any other (proc(5),
    oom_score_adj): many sandboxes within their limits can still be more than the machine has.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _most_descriptors() -> int:
    return max(os.sysconf("SC_OPEN_MAX"), 65_536)


def drop_ids(uid: int | None, gid: int | None) -> None:
    """Empty the capability bounding set where we may, and become `uid`, `gid`. Raises OSError.

    The bounding set first: dropping needs a capability that the change of uid takes away. With it empty, an
    exec gives no capability back, not even to uid 0.
    """
    if os.geteuid() == 0:
        _empty_bounding_set()
    _take_ids(uid, gid)


def _take_ids(uid: int | None, gid: int | None) -> None:
    with contextlib.suppress(OSError):  # before Linux 4.3 there is none
        # What a service manager gave an ordinary user (AmbientCapabilities) would outlive the exec.
        linux.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
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
