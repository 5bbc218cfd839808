"""What does the self-test's own program try? Forbidden acts, told in a line each; then it waits until killed.

Run as a file, behind the walls of the profile exec, and imports nothing of ours. A second run, beside the
first, finds in its environment which process that is: it tries to get at it, and to become another program.
Arguments: a file that must not be read, how many may be open, how much memory more than there may be.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LEASH_FD = 200
"""As in wire.py: it is looked at whether it can be closed."""


def _tried(act: Callable[..., object], *arguments: object) -> str:
    """What came of it, by name."""
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    except MemoryError:
        return "MemoryError"
    return "done"


def _hoard_files(most: int) -> None:
    for _ in range(most + 1):
        os.dup(0)


def _connect() -> None:
    import _socket  # noqa: PLC0415 - a C extension, loaded behind the walls

    _socket.socket()


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _in_proc() -> str:
    """What /proc, which may be of another PID namespace, calls this process; nothing: there is none."""
    try:
        return os.readlink("/proc/self")  # noqa: PTH115 - one module less to load
    except OSError:
        return ""


def _tell(said: dict[str, str]) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    """Try, tell, wait; the other program would tell that it was started."""
    first = os.environ.get("FIRST_RUN")
    if first is not None:
        # What a link there says is told to who might open it: whether it may be is the descriptor's mode.
        _tell({"another run": _tried(os.readlink, f"/proc/{first}/fd/1")})
        tell = 'echo \'{"other program": "done"}\''
        _tell({"other program": _tried(os.execv, "/bin/sh", ["sh", "-c", tell])})
        return
    forbidden, most_files, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    said = {
        "in proc": _in_proc(),
        "environment": " ".join(sorted(os.environ)),
        "other file": _tried(os.open, forbidden, os.O_RDONLY),
        "writing": _tried(os.open, "/tmp", os.O_TMPFILE | os.O_WRONLY),  # noqa: S108
        "socket": _tried(_connect),
        "fork": _tried(_fork),
        "group": _tried(os.setpgid, 0, 0),
        "disarming": _tried(os.close, _LEASH_FD),
        "memory": _tried(bytearray, memory),
        "files": _tried(_hoard_files, most_files),
    }
    _tell(said)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
