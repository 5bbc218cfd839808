"""Where is a socket of which several generations have one each?"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path


def free_path(path: Path) -> Path:
    """`path`, or the first of PATH~1, PATH~2 … that nobody has: as long as there are few generations at once,
    no path grows with their number."""
    number, found = 0, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}~{number}")
    return found


def shut(sock: socket.socket, path: Path) -> None:
    """Give up a socket that had a path of its own."""
    sock.close()
    with contextlib.suppress(OSError):
        path.unlink()
