"""What does an author do instead of what was refused? Call -> what to do, and the grant that allows it."""

from __future__ import annotations

import dataclasses
import socket
import stat
from pathlib import Path
from typing import Final

from forkd.sandbox.refusal import Refusal


@dataclasses.dataclass(frozen=True, slots=True)
class Advice:
    """instead: for the author; grant: what an admin would write below [grants], empty: no grant allows it."""

    instead: str
    grant: str = ""


_NEVER_FILES: Final = Advice(
    "nothing can be written: what must outlive a session goes to session.state, what is for the log to "
    "session.log() or print()"
)
_PROGRAMS: Final = Advice("no program is ever started: use a Python library, imported at the module's top")
_SIGNALS: Final = Advice("no process can be signalled; the limits end what takes too long")
_EXPLOIT: Final = Advice("never allowed, and no grant changes that: no plugin needs it")
_DESCRIPTORS: Final = Advice("no new descriptors: keep bytes in memory (io.BytesIO), wait with select.poll()")
_NAMES: Final = Advice(
    "names: want dns and ask session.dns; a service: want connect and use session.connect(TARGET)",
    'dns = ["SUFFIX"] or connect = { TARGET = "HOST:PORT" }',
)
_NAMED_FILE: Final = (
    "a setting of type path, named below [wants.files], and the file read once, in plugin_init"
)
_NO_TREE: Final = Advice(
    "no plugin needs a whole tree of this machine: name the one file it needs by a setting of type path, "
    "below [wants.files]"
)
_OF_KERNEL: Final = Advice(
    "nothing there can be read, and nothing there is to be granted: what it uses, forkd measures; "
    "time.process_time() needs no file"
)
_NOT_FILES: Final[tuple[tuple[str, Advice], ...]] = (
    ("/proc", _OF_KERNEL),
    ("/sys", _OF_KERNEL),
    ("/dev", Advice("no device can be opened: random bytes come from os.urandom() and secrets")),
)
"""Trees that a grant of files is not for."""
_LOCAL: Final = Advice(
    "a service on this machine: want connect and use session.connect(TARGET)",
    'connect = { TARGET = "unix:/PATH" }',
)

_TABLE: Final[tuple[tuple[str, Advice], ...]] = (
    ("mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink", _NEVER_FILES),
    ("symlinkat mknod mknodat truncate ftruncate chmod fchmod fchmodat fchmodat2 chown", _NEVER_FILES),
    ("fchown lchown fchownat utime utimes utimensat futimesat creat pwrite64 fallocate", _NEVER_FILES),
    ("fsync fdatasync flock", _NEVER_FILES),
    ("execve execveat", _PROGRAMS),
    (
        "fork vfork",
        Advice("no process can be made: the sandbox is the session's own already, block as you like"),
    ),
    ("kill tkill tgkill rt_sigqueueinfo pidfd_send_signal", _SIGNALS),
    ("socketpair connect bind listen setsockopt sendmsg recvmmsg sendmmsg", _NAMES),
    ("dup dup2 dup3 pipe pipe2 eventfd eventfd2 memfd_create fcntl close_range", _DESCRIPTORS),
    ("epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait inotify_init inotify_init1", _DESCRIPTORS),
    ("signalfd signalfd4 timerfd_create timer_create timer_settime setitimer alarm", _SIGNALS),
    (
        "getcwd chdir fchdir access faccessat faccessat2 statfs fstatfs getdents",
        Advice("os.stat() and open() say the same; paths are absolute, so no working folder is needed"),
    ),
    (
        "setsid setpgid getsid getpgid prctl setrlimit getrlimit prlimit64 setpriority sched_setaffinity",
        Advice("limits and priority are forkd's"),
    ),
    ("close", Advice("the descriptor is forkd's own: close what you have opened yourself")),
    ("sendfile splice tee copy_file_range", Advice("read and write do the same")),
)
_BY_NAME: Final = {name: advice for names, advice in _TABLE for name in names.split()}


def advise(refusal: Refusal) -> Advice:
    """What to do instead of this call."""
    name = refusal.name
    if refusal.result == "killed":
        return _EXPLOIT
    if name in ("open", "openat", "openat2"):
        return _of_open(refusal)
    if name == "clone":
        return _of_clone(refusal)
    if name == "socket":
        return _LOCAL if socket.AddressFamily.AF_UNIX.name in refusal.text else _NAMES
    if name == "mmap":
        return Advice("code is loaded while the plugin is: import it at the module's top, or in plugin_init")
    return _BY_NAME.get(name, Advice("no grant allows it"))


def _of_open(refusal: Refusal) -> Advice:
    if "O_RDONLY" not in refusal.text or "O_CREAT" in refusal.text:
        return _NEVER_FILES
    path = Path(refusal.path or "/")
    for place, advice in _NOT_FILES:
        if path.is_relative_to(place):
            return advice
    if len(path.parts) < 3 and (path.is_dir() or path == Path("/")):
        return _NO_TREE
    return Advice(_NAMED_FILE + _closed_to_others(path), f'files = ["{path}"]')


def _closed_to_others(path: Path) -> str:
    """Landlock is not all that stands before a file: the plugin runs as a user of its own."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if mode & stat.S_IROTH:
        return ""
    return (
        f"; {path} is closed to other users, so with a grant alone the user that the plugin runs as could "
        "not read it either: give it a file that every user may read"
    )


def _of_clone(refusal: Refusal) -> Advice:
    if "a thread" in refusal.text:
        return Advice(
            "want threads, if a hook really gains by them: it may block as long as its timeout", "threads = N"
        )
    if "a program" in refusal.text:
        return _PROGRAMS
    return _BY_NAME["fork"]
