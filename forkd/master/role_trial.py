"""Do the walls of our own roles hold on this machine? A throw-away fork of each role tries them.

It becomes the role's user behind the role's walls, exactly as the role itself will (child.put_on), and tries
what whoever took it over would try first, and what the role lives by. What kills (ptrace) has a fork of its
own. The result is one row of the self-test, `roles`; its detail names each role and act that went wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import itertools
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from forkd.master import child
from forkd.master.privileges import Identity
from forkd.sandbox import landlock, linux, role_walls
from forkd.sandbox.role_walls import TREE, WRITE, Walls
from forkd.sandbox.selftest import ABSENT, ENFORCED, FAILED, Finding

LAYER = "roles"

_TRIAL_S = 5.0
_PTRACE = {"x86_64": 101, "aarch64": 117}
_PTRACE_ATTACH = 16
_DONE = "done"
_UNPRIVILEGED = 40_000
"""A port that anybody may bind, but for the walls."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One role: who it becomes, and behind which walls."""

    name: str
    identity: Identity | None
    walls: Walls


def examine(subjects: Sequence[Subject], data_dir: Path) -> Finding:
    """Try the walls of each. Blocks for two forks per role, some 3 ms each. Raises nothing for a wall."""
    wrong: list[str] = []
    with _targets(data_dir) as targets:
        for subject in subjects:
            wrong += [f"{subject.name}: {each}" for each in _try(subject, targets)]
    if wrong:
        return Finding(LAYER, FAILED, "; ".join(wrong))
    if lacking := role_walls.missing():
        return Finding(LAYER, ABSENT, lacking)
    return Finding(LAYER, ENFORCED, ", ".join(subject.name for subject in subjects))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    """What is nobody's business: candidates for a file that everybody may read and write, but for the walls;
    an abstract socket."""

    files: tuple[Path, ...]
    abstract: str

    def foreign(self, walls: Walls) -> Path | None:
        """A file outside of all that these walls leave open."""
        left = [Path(path).resolve() for path, _ in walls.paths]
        return next((file for file in self.files if not any(map(file.is_relative_to, left))), None)


@contextlib.contextmanager
def _targets(data_dir: Path) -> Iterator[_Targets]:
    with contextlib.ExitStack() as stack:
        files = []
        for where in (None, data_dir):
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix=".forkd-roles-", dir=where))
            ).resolve()
            folder.chmod(0o755)
            file = folder / "file"
            file.write_bytes(b"for nobody\n")
            file.chmod(0o666)
            files.append(file)
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        name = f"forkd-roles-{os.getpid()}"
        server.bind("\0" + name)
        server.listen()
        yield _Targets(files=tuple(files), abstract=name)


def _try(subject: Subject, targets: _Targets) -> list[str]:
    """What did not go as it should, one text each."""
    walls = subject.walls
    said, status = _fork(subject, lambda tell: tell(_acts(walls, targets)))
    if "error" in said or not said:
        return [said.get("error") or f"no answer: {_ended(status)}"]
    expected = _expected(walls, targets)
    wrong = [
        f"{act}: {said.get(act) or 'nothing'}, not {wanted}"
        for act, wanted in expected.items()
        if said.get(act) != wanted
    ]
    _, status = _fork(subject, lambda _: _trace(os.getppid()))
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS):
        wrong.append(f"ptrace: {_ended(status)}, not died: SIGSYS")
    return wrong


def _expected(walls: Walls, targets: _Targets) -> dict[str, str]:
    expected = {"exec": "EACCES", "signal": "EPERM", "fork": "EPERM", "thread": _DONE, "read code": _DONE}
    expected |= {"fast open by sendto": "EPERM", "fast open by sendmsg": "EPERM"}
    if landlock.abi() >= role_walls.FILES_ABI and targets.foreign(walls):
        expected |= {"read": "EACCES", "write": "EACCES"}
    if role_walls.scoped():
        expected["abstract socket"] = "EPERM"
    if not walls.ports:
        expected["connect elsewhere"] = expected["bind"] = "EACCES" if walls.udp else "EAFNOSUPPORT"
    elif landlock.abi() >= landlock.PORTS_ABI:
        expected |= {"connect elsewhere": "EACCES", "bind": "EACCES"}
    expected |= {f"connect to port {port}": "ENETUNREACH" for port in walls.ports}
    if walls.own_address:
        expected["bind to an address"] = _DONE
    return expected | {f"write {folder}": _DONE for folder in _own(walls)}


def _own(walls: Walls) -> list[str]:
    """Folders in which it makes files. Not where master finds none (any more)."""
    return [path for path, right in walls.paths if right in (WRITE, TREE) and Path(path).is_dir()]


def _acts(walls: Walls, targets: _Targets) -> dict[str, str]:
    foreign = targets.foreign(walls)
    done = {
        "exec": _act(lambda: os.execv(sys.executable, [sys.executable, "-c", ""])),  # noqa: S606
        "signal": _act(lambda: os.kill(os.getppid(), signal.SIGURG)),
        "fork": _act(lambda: os._exit(0) if os.fork() == 0 else None),
        "thread": _act(_thread),
        "read code": _act(lambda: Path(os.__file__).read_bytes()),
        "fast open by sendto": _act(lambda: _fast_open(lambda end, flag: end.send(b"", flag))),
        "fast open by sendmsg": _act(lambda: _fast_open(lambda end, flag: end.sendmsg([b""], (), flag))),
        "abstract socket": _act(lambda: _connect(targets.abstract)),
    }
    elsewhere = next(port for port in itertools.count(_UNPRIVILEGED) if port not in walls.ports)
    done["connect elsewhere"] = _act(lambda: _connect_tcp(elsewhere))
    done["bind"] = _act(lambda: _bind(elsewhere))
    done["bind to an address"] = _act(lambda: _bind(0))
    for port in walls.ports:
        done[f"connect to port {port}"] = _act(lambda port=port: _connect_tcp(port))  # type: ignore[misc]
    if foreign is not None:
        done["read"] = _act(foreign.read_bytes)
        done["write"] = _act(lambda: foreign.write_bytes(b""))
    for folder in _own(walls):
        done[f"write {folder}"] = _act(lambda folder=folder: _make(Path(folder)))  # type: ignore[misc]
    return done


def _act(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except RuntimeError as error:
        return str(error)
    return _DONE


def _make(folder: Path) -> None:
    """Nothing where its user may not write: a Maildir's owner is the admin's affair, told at delivery."""
    if os.access(folder, os.W_OK | os.X_OK):
        file = folder / f".forkd-roles-{os.getpid()}"
        file.write_bytes(b"")
        file.unlink()


def _connect(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name)


def _connect_tcp(port: int) -> None:
    """To nobody: where no wall refuses it, TCP itself does, ENETUNREACH, since a broadcast is no host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.connect(("255.255.255.255", port))


def _bind(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.bind(("127.0.0.1", port))


def _fast_open(send: Callable[[socket.socket, int], object]) -> None:
    """On a client's TCP socket it would pass Landlock. A unix socket ignores the flag: here the filter alone
    answers."""
    one, two = socket.socketpair()
    with one, two:
        send(one, socket.MSG_FASTOPEN)


def _thread() -> None:
    import threading  # noqa: PLC0415 - as roles do, after they were confined

    thread = threading.Thread(target=len, args=("",))
    thread.start()
    thread.join()


def _trace(pid: int) -> None:
    linux.syscall(_PTRACE[os.uname().machine], _PTRACE_ATTACH, pid, ctypes.c_long(0), ctypes.c_long(0))


# --- the fork ------------------------------------------------------------------------------------------


def _fork(
    subject: Subject, act: Callable[[Callable[[dict[str, str]], None]], None]
) -> tuple[dict[str, str], int]:
    """What it told, and its wait status; killed when it takes too long."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            child.put_on(subject.identity, subject.walls)
            act(lambda told: _tell(writer, told))
        except BaseException as error:
            _tell(writer, {"error": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(0)
    os.close(writer)
    try:
        text = _read(reader, time.monotonic() + _TRIAL_S)
    finally:
        os.close(reader)
        if not _over(pid):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return (json.loads(text) if text else {}), status


def _tell(writer: int, told: dict[str, str]) -> None:
    os.write(writer, json.dumps(told).encode())


def _read(reader: int, until: float) -> bytes:
    """All that is written before the other end is closed, in time."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    text = b""
    while poll.poll(max(0.0, until - time.monotonic()) * 1000):
        piece = os.read(reader, 65_536)
        if not piece:
            break
        text += piece
    return text


def _over(pid: int) -> bool:
    """It has ended, or will within a second; it is not reaped by this."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(1000))
    finally:
        os.close(descriptor)


def _ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"died: {signal.Signals(os.WTERMSIG(status)).name}"
    return f"lives, exit {os.WEXITSTATUS(status)}"
