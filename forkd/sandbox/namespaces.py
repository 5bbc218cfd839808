"""Which namespaces can a zygote have here, and how is a process made inside them?

The process is cloned with them, not unshared into them: so it is the first of its PID namespace, still
master's child, and master knows its pid at once. Root needs no user namespace for that, unless it was left
without CAP_SYS_ADMIN (as a service manager does): then one that maps root and the zygote's own uid. Everybody
else gets one that maps his own uid and gid and nothing more.

What this machine and this user allow is rehearsed once, by throw-away processes that do all of it: clone,
map, build a mount root. Whatever was refused is left out from then on, with the reason; what was not refused
is asked of every zygote, and one that cannot have it is not started. A refusal that may pass (too many there
are, no memory) is not kept: the next zygote's start rehearses anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import functools
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from forkd.sandbox import linux, mounts

WANTED = ("net", "ipc", "pid", "mount", "uts")
"""Of each zygote; `user` comes before them where we are not root."""
USER = "user"
MOUNT_ROOT = "mount root"
"""Beside their names in Possible.refused."""

_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
_FLAGS = {
    "mount": 0x0002_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
"""CLONE_NEW*: linux/sched.h."""


@dataclasses.dataclass(frozen=True, slots=True)
class Possible:
    """What zygotes get here.

    names       namespaces, for clone().
    mount_root  a file system of their own can be built (mounts.py).
    counted     a limit of processes counts those of the user namespace alone (since Linux 5.14).
    refused     the others -> why.
    """

    names: tuple[str, ...] = ()
    mount_root: bool = False
    counted: bool = False
    refused: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Every one of WANTED."""
        return set(WANTED) <= set(self.names)

    def reasons(self) -> str:
        """What was refused, for the admin; empty: nothing."""
        return "; ".join(f"{name}: {why}" for name, why in self.refused.items())


def possible() -> Possible:
    """What this machine allows this user. Blocks for some 5 ms, the first time. Raises OSError."""
    uid = os.geteuid()
    if uid in _known:
        return _known[uid]
    why: list[str] = []
    found = _possible(uid, why)
    if not any(passing in text for passing in _PASSING for text in why):
        _known[uid] = found
    return found


_known: dict[int, Possible] = {}
_PASSING = [
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EUSERS, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
]


def _possible(uid: int, said: list[str]) -> Possible:
    """said: is given whatever was refused on the way, and why."""

    def rehearse(*names: str) -> dict[str, str]:
        refused = _rehearse(names)
        said.extend(refused.values())
        return refused

    for user in ((USER,),) if uid else ((), (USER,)):
        wanted = (*user, *WANTED)
        refused = rehearse(*wanted)
        if not set(refused) & {"clone", USER}:
            return _found(wanted, refused)
    if why := rehearse(*user):
        return Possible(refused={USER: " ".join(why.values())})
    refused = {name: rehearse(*user, name).get("clone", "") for name in WANTED}
    names = (*user, *(name for name, why in refused.items() if not why))
    return _found(names, {name: why for name, why in refused.items() if why} | rehearse(*names))


def _found(names: tuple[str, ...], refused: dict[str, str]) -> Possible:
    mount_root = "mount" in names and MOUNT_ROOT not in refused
    return Possible(names, mount_root, USER in names and _counts(names), refused)


def clone(names: Iterable[str]) -> int:
    """fork(2) into new namespaces; the pid, 0 in the new process. Only while single-threaded.

    As linux.fork it does without Python's at-fork work. Raises OSError: EPERM, ENOSPC (more than
    /proc/sys/user/max_*_namespaces), ENOMEM.
    """
    flags = functools.reduce(int.__or__, (_FLAGS[name] for name in names), int(signal.SIGCHLD))
    zero = ctypes.c_ulong(0)
    pid = int(linux.syscall(_CLONE, ctypes.c_ulong(flags), zero, zero, zero, zero))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


class Gate:
    """Who a process is that was cloned into a user namespace: mapped before it goes on.

    Made before clone(); then the new process calls pass_through() and we open(), whatever the namespaces.
    Until its ids are mapped a process is the overflow uid. An ordinary user's maps his own; root's waits,
    because other ids are mapped from outside.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._user = USER in names
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._pipe = os.pipe2(os.O_CLOEXEC) if self._user and self._uid == 0 else None

    def pass_through(self) -> None:
        """In the new process: go on as who we were. Raises OSError."""
        if self._pipe is not None:
            os.close(self._pipe[1])
            if not os.read(self._pipe[0], 1):
                raise OSError("its ids were not mapped")
        elif self._user:
            # Whoever has changed his uid is not dumpable, and then /proc/self belongs to root.
            linux.prctl(linux.PR_SET_DUMPABLE, 1)
            process = Path("/proc/self")
            (process / "setgroups").write_text("deny")
            (process / "uid_map").write_text(f"{self._uid} {self._uid} 1")
            (process / "gid_map").write_text(f"{self._gid} {self._gid} 1")

    def open(self, pid: int, *, uid: int | None, gid: int | None) -> None:
        """In the old one: map root, and `uid` and `gid` that it is to become. Raises OSError."""
        if self._pipe is None:
            return
        try:
            process = Path(f"/proc/{pid}")
            for name, own, other in (("uid_map", self._uid, uid), ("gid_map", self._gid, gid)):
                ids = {own, own if other is None else other}
                (process / name).write_text("".join(f"{id_} {id_} 1\n" for id_ in sorted(ids)))
            os.write(self._pipe[1], b"x")
        finally:
            self.close()

    def close(self) -> None:
        """Whoever waits is refused."""
        if self._pipe is not None:
            for fd in self._pipe:
                os.close(fd)
            self._pipe = None


def _rehearse(names: tuple[str, ...]) -> dict[str, str]:
    """Do all of it in a throw-away process; what was refused -> why."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _throw_away(names, lambda: _play(names, writer))
    except OSError as error:
        os.close(reader)
        return {"clone": error.strerror or str(error)}
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    os.waitpid(pid, 0)
    if not said.endswith("\n"):
        return {USER if USER in names else "clone": "ids cannot be mapped"}
    return dict(line.split("\t", 1) for line in said.splitlines() if line)


def _throw_away(names: tuple[str, ...], act: Callable[[], int]) -> int:
    """A process in `names` that ends with the status `act` gives; its pid. Raises OSError."""
    gate = Gate(names)
    try:
        with _signals_blocked():
            pid = clone(names)
            if pid == 0:
                code = 1
                try:
                    gate.pass_through()
                    code = act()
                finally:
                    os._exit(code)
        with contextlib.suppress(OSError):  # it tells by what it cannot do
            gate.open(pid, uid=_SOMEBODY, gid=_SOMEBODY)
    finally:
        gate.close()
    return pid


_SOMEBODY = 65_534
"""An id that is not root's."""


def _play(names: tuple[str, ...], writer: int) -> int:
    """In the rehearsing process."""
    said = b"\n"
    try:
        if "mount" in names:
            here = Path(__file__).parent
            plan = mounts.plan([str(here)])
            assert plan is not None
            mounts.enter(plan, proc="pid" in names)
            here.stat()
    except OSError as error:
        said = f"{MOUNT_ROOT}\t{error}".replace("\n", " ").encode("utf-8", "replace") + b"\n"
    os.write(writer, said)
    return 0


def _counts(names: tuple[str, ...]) -> bool:
    """Does RLIMIT_NPROC there count this user's processes outside as well? Then a limit is of no use.

    Two: the rehearsing process and its child. Outside there are at least we ourselves. Raises OSError.
    """
    return os.waitpid(_throw_away(names, _count), 0)[1] == 0


def _count() -> int:
    linux.set_limit(linux.RLIMIT_NPROC, 2)
    child = linux.fork()
    if child == 0:
        os._exit(0)
    return 0 if child > 0 else 1


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """No handler of ours runs in a new process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
