"""Where are metrics read? The one socket of ours that is neither SMTP's nor always in run/: [metrics] listen.

It is opened here, as all are: it outlasts a restart of admin, whose walls know no TCP, but may accept.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import stat
from pathlib import Path

from forkd.exits import Exit
from forkd.master.errors import StartError
from forkd.master.listeners import beside, split
from forkd.master.runtime import Runtime
from forkd.rpc import places

MODE = 0o666
"""Who may connect to a loopback port may connect here: everybody on this machine."""

BACKLOG = 64


def listen(where: str, runtime: Runtime, before: socket.socket | None = None) -> socket.socket | None:
    """The listening, non-blocking socket; None: there shall be none. Raises StartError.

    before  ours until now, which listens for a while yet: an address may include its own, with the same port
    """
    if not where:
        return None
    if where == "auto":
        return runtime.listen(places.METRICS, socket.SOCK_STREAM, mode=MODE, owner="admin_user")
    if where.startswith("/"):
        _clear(Path(where))
        return runtime.listen_at(Path(where), socket.SOCK_STREAM, mode=MODE, uid=-1)
    return _bind(where, before)


def close(sock: socket.socket) -> None:
    """Close it; the path of one that lies elsewhere than in run/ goes too (what lies there is runtime's)."""
    name = sock.getsockname()
    sock.close()
    if isinstance(name, str) and name:
        _remove(Path(name))


def _clear(path: Path) -> None:
    """Make room where a killed forkd left its socket: never for anything that is no socket, or that somebody
    still listens on. Raises StartError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartError(Exit.CONFIG, f"[metrics] listen: {path} is there, and is no socket")
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(1.0)
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            _remove(path)
            return
        except OSError as error:
            raise StartError(Exit.IN_USE, f"[metrics] listen: {path}: {error.strerror or error}") from error
    raise StartError(
        Exit.IN_USE, f"[metrics] listen: somebody listens on {path} already; `ss -lxp` shows who"
    )


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _bind(where: str, before: socket.socket | None) -> socket.socket:
    host, port = split(where)
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    same = before is not None and before.family != socket.AF_UNIX and before.getsockname()[1] == port
    ours = [before] if before is not None and same else []
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with beside(sock, ours) if ours else contextlib.nullcontext():
            sock.bind((host, port))
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        said = f"[metrics] cannot listen on {where}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            raise StartError(Exit.IN_USE, f"{said}; `ss -ltnp` shows by whom") from error
        raise StartError(Exit.SYSTEM, said) from error
    sock.setblocking(False)
    return sock
