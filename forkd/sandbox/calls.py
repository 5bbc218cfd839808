"""How does a system call read? Its name, and its arguments as far as they can be shown (learn mode).

What pointers point to is read from the waiting process where we may; it is for showing, never for deciding.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
from collections.abc import Callable
from typing import Final

from forkd.sandbox import policy

Arguments = tuple[int, ...]

MAX_TEXT: Final = 200
"""Characters of a path that are shown."""

_PATHS: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(("openat", "openat2", "mkdirat", "mknodat", "unlinkat", "fchownat", "fchmodat"), (1,)),
    **dict.fromkeys(("utimensat", "faccessat", "faccessat2", "readlinkat", "futimesat", "execveat"), (1,)),
    **dict.fromkeys(("open", "creat", "mkdir", "mknod", "rmdir", "unlink", "access", "readlink"), (0,)),
    **dict.fromkeys(("chmod", "chown", "lchown", "truncate", "chdir", "statfs", "utime", "utimes"), (0,)),
    **dict.fromkeys(("execve", "chroot", "memfd_create", "acct", "swapon", "swapoff"), (0,)),
    **dict.fromkeys(("rename", "link", "symlink"), (0, 1)),
    **dict.fromkeys(("renameat", "renameat2", "linkat"), (1, 3)),
    "symlinkat": (0, 2),
    "mount": (0, 1),
}
"""Call -> which of its arguments are texts."""
_FLAGS: Final[dict[str, int]] = {"openat": 2, "open": 1}
_COUNT: Final[dict[str, int]] = {
    **dict.fromkeys(("socket", "mmap", "connect", "sendto", "kill", "bind", "setsockopt"), 3),
    **dict.fromkeys(("fork", "vfork", "setsid", "getcwd", "pause", "sync"), 0),
    **dict.fromkeys(("dup", "pipe", "epoll_create1", "clone", "unshare", "close"), 1),
    **dict.fromkeys(("ioctl", "fcntl", "dup2"), 2),
}
"""Call -> how many of its arguments say something."""
_CLONE_THREAD, _CLONE_VM = 0x1_0000, 0x100
_FCNTL: Final = {0: "F_DUPFD", 2: "F_SETFD", 4: "F_SETFL", 1030: "F_DUPFD_CLOEXEC"}
_PTRACE: Final = {0: "PTRACE_TRACEME", 16: "PTRACE_ATTACH", 0x4206: "PTRACE_SEIZE"}


@functools.cache
def name_of(number: int) -> str:
    """`openat`; `number 9999` for one that this libseccomp does not know."""
    return policy.syscall_name(number) or f"number {number}"


def path_of(name: str, arguments: Arguments, pid: int) -> str:
    """The first path a call names; empty: it names none, or it cannot be read."""
    where = _PATHS.get(name)
    return _text(pid, arguments[where[0]]) if where else ""


def text_of(name: str, arguments: Arguments, pid: int) -> str:
    """A call as it could stand in a program: `socket(AF_INET, SOCK_STREAM)`."""
    shown = _SHOWN.get(name)
    if shown is not None:
        return f"{name}({shown(arguments)})"
    if name in _PATHS:
        parts = [_quoted(_text(pid, arguments[at])) for at in _PATHS[name]]
        if name in _FLAGS:
            parts.append(_open_flags(arguments[_FLAGS[name]]))
        return f"{name}({', '.join(parts)})"
    return f"{name}({', '.join(_number(value) for value in arguments[: _COUNT.get(name, 3)])})"


def makes_thread(arguments: Arguments) -> bool:
    """Of clone: a thread, not a process."""
    return bool(arguments[0] & _CLONE_THREAD)


def _clone(arguments: Arguments) -> str:
    if makes_thread(arguments):
        return "a thread"
    return "a program, by posix_spawn" if arguments[0] & _CLONE_VM else "a process"


def _socket(arguments: Arguments) -> str:
    family, kind = arguments[0] & 0xFFFF_FFFF, arguments[1] & 0xF
    return f"{_enumerated(socket.AddressFamily, family)}, {_enumerated(socket.SocketKind, kind)}"


def _kill(arguments: Arguments) -> str:
    pid = (arguments[0] & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
    return f"{pid}, {_enumerated(signal.Signals, arguments[1] & 0xFFFF_FFFF)}"


def _ptrace(arguments: Arguments) -> str:
    return f"{_PTRACE.get(arguments[0], _number(arguments[0]))}, {arguments[1]}"


def _mmap(arguments: Arguments) -> str:
    protection = [name for bit, name in ((1, "READ"), (2, "WRITE"), (4, "EXEC")) if arguments[2] & bit]
    kind = "SHARED" if arguments[3] & 1 else "PRIVATE"
    return f"{arguments[1]} bytes, {'+'.join(protection) or 'NONE'}, {kind}"


def _fcntl(arguments: Arguments) -> str:
    return f"{arguments[0]}, {_FCNTL.get(arguments[1], _number(arguments[1]))}"


_SHOWN: Final[dict[str, Callable[[Arguments], str]]] = {
    "clone": _clone,
    "socket": _socket,
    "socketpair": _socket,
    "fcntl": _fcntl,
    "kill": _kill,
    "ptrace": _ptrace,
    "mmap": _mmap,
}


def _enumerated(names: Callable[[int], object], value: int) -> str:
    try:
        return str(getattr(names(value), "name", value))
    except ValueError:
        return str(value)


def _open_flags(flags: int) -> str:
    words = [("O_RDONLY", "O_WRONLY", "O_RDWR", "3")[flags & os.O_ACCMODE]]
    words += [name for name in ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND") if flags & getattr(os, name)]
    return "|".join(words)


def _number(value: int) -> str:
    return str(value) if value < 1 << 16 else hex(value)


def _quoted(text: str) -> str:
    return f'"{text}"' if text else "?"


def _text(pid: int, address: int) -> str:
    """A C string of another process; empty where we may not look."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # To the end of the page only, and then the next one: the text may be the last thing before a gap.
        page = 4096 - address % 4096
        octets = os.pread(memory, page, address)
        if b"\0" not in octets:
            octets += os.pread(memory, 4096, address + page)
    except OSError:
        return ""
    finally:
        os.close(memory)
    text = octets.partition(b"\0")[0].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:MAX_TEXT]
