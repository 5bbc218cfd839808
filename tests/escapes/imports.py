"""Attacks 82 to 85: a hostile plugin runs first in its zygote, which was confined before it was loaded."""

from __future__ import annotations

from tests.escapes import native
from tests.escapes.attack import Attack
from tests.support.sandboxes import NUMBERS

_NUMBERS = f"NR.update({NUMBERS!r})\n"


def _refused(name: str, act: str, told: str, *by: str, **more: object) -> Attack:
    return Attack(
        name=name,
        code=f"{_NUMBERS}{act}\ndef attack(_): pass\n",
        refused=told,
        by=by or ("seccomp",),
        **more,  # type: ignore[arg-type]
    )


ATTACKS = (
    _refused("82 shared mapping", "mmap.mmap(-1, 4096)", "PermissionError"),
    _refused("82 memory file", "os.memfd_create('x')", "PermissionError"),
    _refused("82 SysV memory", "call('shmget', 1, 4096, 0o666)", "died"),
    _refused("83 socket pair", "socket.socketpair()", "PermissionError"),
    _refused("83 pipe", "os.pipe()", "PermissionError"),
    _refused("83 event", "os.eventfd(0)", "PermissionError"),
    _refused("83 thread", "_thread.start_new_thread(time.sleep, (60,))", "can't start new thread"),
    _refused(
        "83 thread in C", native.LOAD + "assert not acts.thread(), 'no thread'", "no thread", native=True
    ),
    _refused("84 namespaces", "call('unshare', 0x10000000)", "died"),
    _refused("84 kill master", "os.kill(os.getppid(), 9)", "PermissionError"),
    _refused("84 kill the worker", "os.killpg(0, 9)", "PermissionError"),
    _refused("84 a filter with a listener", "call('seccomp', 1, 8, 0)", "died"),
    _refused("84 Landlock anew", "call('landlock_create_ruleset', 0, 0, 1)", "died"),
    _refused("84 another identity", "call('setresuid', 0, 0, 0)", "died"),
    _refused("84 leave master's reach", "os.setsid()", "PermissionError", "seccomp", "kernel"),
    _refused("84 more memory", "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "not allowed", "rlimits"),
    _refused("84 dumpable again", "assert not libc.prctl(4, 1, 0, 0, 0), 'refused'", "refused"),
    *(
        _refused(f"84 the listening socket {what}", act, told)
        for what, act, told in (
            ("shut down", "socket.socket(fileno=4).shutdown(2)", "PermissionError"),
            ("with another backlog", "socket.socket(fileno=4).listen(0)", "PermissionError"),
            ("made to signal", "import fcntl; fcntl.fcntl(4, 4, 0o20000)", "PermissionError"),
            ("blocking", "import fcntl; fcntl.fcntl(4, 4, 0)", "PermissionError"),
            ("owned", "import fcntl; fcntl.fcntl(4, 8, os.getpid())", "PermissionError"),
            ("with a signal", "import fcntl; fcntl.fcntl(4, 10, 9)", "PermissionError"),
            (
                "made to signal, by an ioctl",
                "import fcntl; fcntl.ioctl(4, 0x5452, b'\\1\\0\\0\\0')",
                "Inappropriate",
            ),
            ("with a timeout", "socket.socket(fileno=4).setsockopt(1, 20, bytes(16))", "PermissionError"),
            ("under another number", "os.dup2(4, 77)", "PermissionError"),
        )
    ),
    _refused("85 exception", "raise ValueError('broken plugin')", "ValueError: broken plugin", "interpreter"),
    _refused("85 exit", "sys.exit(3)", "SystemExit: 3", "interpreter"),
    _refused("85 crash", "ctypes.string_at(8)", "died", "process"),
    _refused(
        "85 too much memory",
        "mmap.mmap(-1, 10 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "Cannot allocate memory",
        "rlimits",
    ),
    _refused(
        "85 files of others",
        "open('/etc/passwd')",
        "PermissionError|FileNotFoundError",
        "files",
        "mount_root",
    ),
    _refused("85 network", "socket.socket()", "PermissionError"),
    _refused("85 a program", "os.execv('/bin/true', ['true'])", "PermissionError"),
    _refused("85 hang", "while True: pass", "late", "master", spec={"timeout_s": 0.5}),
    _refused(
        "85 modules without end",
        "import plugin2",
        "RecursionError|late",
        "master",
        "interpreter",
        spec={"timeout_s": 1.0},
        files={"plugin2.py": b"import sys\nsys.modules.pop('plugin2')\nimport plugin2\n"},
    ),
    _refused(
        "84 a forged ready of another process",
        """
import _socket
control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 3)
control.send(b'{"t":"ready","api":2,"pid":4711,"layers":{}}')
while True: time.sleep(1)
""",
        "says pid 4711",
        "master",
    ),
    _refused(
        "94 a library without an entry",
        "import acts",
        "dynamic module does not define",
        "interpreter",
        native=True,
    ),
    _refused(
        "94 a library whose entry gives nothing",
        "import broken",
        "SystemError",
        "interpreter",
        libraries={"broken.so": "void *PyInit_broken(void) { return 0; }"},
    ),
)
