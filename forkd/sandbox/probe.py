"""What does the self-test's own plugin try? One forbidden act per frame; the answer says how it failed.

The acts use the kernel directly, so that a refusal is the kernel's and not some library's.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
from collections.abc import Callable
from errno import errorcode
from typing import Any

from forkd.sandbox import child, linux

_PR_GET_DUMPABLE, _PR_GET_NO_NEW_PRIVS = 3, 39
_PTRACE = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
_PTRACE_TRACEME = 0
_CHUNK = 1 << 20


def load(spec: dict[str, Any], *, control: Any, title: linux.Title) -> child.Forker:
    """Forks the probe's sandboxes; arguments as every kind's load() gets them."""
    own_file = __file__
    memory: int = spec["limits"]["memory"]

    def handle(frame: bytes, _message: int | None) -> bytes:
        call = json.loads(frame)
        try:
            result = _ACTS[call["act"]](call.get("argument"), own_file, memory)
        except OSError as error:
            result = errorcode.get(error.errno or 0, str(error.errno))
        except MemoryError:
            result = "MemoryError"
        return json.dumps({"n": call["n"], "result": result}).encode()

    return child.Forker(spec, handle, control=control, title=title)


def _socket(*_: Any) -> str:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    return "done"


def _fork(*_: Any) -> str:
    pid = linux.fork()
    if pid == 0:
        os._exit(0)
    return "done" if pid > 0 else errorcode.get(ctypes.get_errno(), "?")


def _ptrace(*_: Any) -> str:
    zero = ctypes.c_long(0)
    linux.syscall(_PTRACE, _PTRACE_TRACEME, zero, zero, zero)
    return "done"


def _read(path: str, *_: Any) -> str:
    os.close(os.open(path, os.O_RDONLY))
    return "done"


def _read_own(_: Any, own_file: str, __: int) -> str:
    return _read(own_file)


def _look(path: str, *_: Any) -> str:
    os.lstat(path)
    return "done"


def _hoard_memory(_: Any, __: str, memory: int) -> str:
    hoard = [bytearray(_CHUNK) for _ in range(memory // _CHUNK + 1)]
    return f"done: {len(hoard)} MiB"


def _hoard_files(limit: int, own_file: str, _: int) -> str:
    fds: list[int] = []
    try:
        while len(fds) <= limit:
            fds.append(os.open(own_file, os.O_RDONLY))
    finally:
        for fd in fds:
            os.close(fd)
    return "done"


def _spin(*_: Any) -> str:
    while True:
        pass


def _connect(port: int, *_: Any) -> str:
    with socket.socket() as s:
        s.connect(("127.0.0.1", port))
    return "done"


def _connect_abstract(name: str, *_: Any) -> str:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\0" + name)
    return "done"


def _signal(pid: int, *_: Any) -> str:
    os.kill(pid, 0)
    return "done"


def _flag(option: int, *_: Any) -> str:
    zero = ctypes.c_ulong(0)
    return str(linux.syscall(linux.NUMBER["prctl"], option, zero, zero, zero, zero))


_ACTS: dict[str, Callable[[Any, str, int], str]] = {
    "socket": _socket,
    "fork": _fork,
    "ptrace": _ptrace,
    "read": _read,
    "read own file": _read_own,
    "look": _look,
    "parent": lambda *_: str(os.getppid()),
    "hoard memory": _hoard_memory,
    "hoard files": _hoard_files,
    "spin": _spin,
    "connect": _connect,
    "connect abstract": _connect_abstract,
    "signal": _signal,
    "dumpable": lambda *_: _flag(_PR_GET_DUMPABLE),
    "no_new_privs": lambda *_: _flag(_PR_GET_NO_NEW_PRIVS),
    "uid": lambda *_: str(os.getuid()),
    "environment": lambda *_: " ".join(sorted(os.environ)),
}
