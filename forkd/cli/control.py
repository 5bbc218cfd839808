"""How is a running daemon asked something?

One connection, one line of JSON there, one line back, over `<data_dir>/run/control.sock`:

    {"request": "status"}   ->   {"ok": true, "result": {...}}
                            or   {"ok": false, "error": "why"}

The requests are in forkd/admin/requests.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.options import which_of
from forkd.exits import Exit

TIMEOUT_S: Final = 10.0
"""For the whole answer, which takes milliseconds; longer than MASTER_TIMEOUT_S of admin/peers.py."""
QUEUE_TIMEOUT_S: Final = 40.0
"""The same for what qmgr answers; longer than QMGR_TIMEOUT_S of admin/peers.py, whose text says more."""
MAX_ANSWER_BYTES: Final = 64 << 20

_READ_BYTES = 1 << 18


class PartAway(CommandFailed):
    """forkd runs, but not the process that should answer (qmgr, while it is restarted)."""


def control_socket(data_dir: Path) -> Path:
    """Where the daemon that uses this folder listens."""
    return data_dir / "run" / "control.sock"


def request(data_dir: Path, name: str, *, timeout_s: float = TIMEOUT_S, **arguments: Any) -> Any:
    """The result of one request to the daemon that uses `data_dir`.

    Blocks   until the answer, `timeout_s` at most.
    Raises   CommandFailed: nobody listens there (NO_DAEMON), no permission, no answer in time, an
             answer that is none, or the daemon's own refusal (FAILED).
    """
    path = control_socket(data_dir)
    line = json.dumps({"request": name, **arguments}).encode() + b"\n"
    deadline = time.monotonic() + timeout_s
    try:
        with _connected(path, timeout_s) as connection:
            with contextlib.suppress(BrokenPipeError):  # refused already: the reason is there to be read
                connection.sendall(line)
            answer = _one_line(connection, deadline)
    except TimeoutError:
        raise CommandFailed(
            f"forkd does not answer on {path} (waited {timeout_s:g} s)",
            hint="its log says what it does; its admin process may be stuck",
        ) from None
    except PermissionError:
        raise CommandFailed(
            f"no permission to talk to forkd on {path}",
            hint="run this as root, or as the user that runs forkd",
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise _no_daemon(data_dir, path) from None
    except ConnectionRefusedError:
        raise CommandFailed(
            f"no forkd runs here: {path} is left over, nobody listens on it",
            hint="it was killed; `forkd run` takes the socket's place",
            status=Exit.NO_DAEMON,
        ) from None
    except OSError as error:
        raise CommandFailed(f"talking to forkd on {path}: {error.strerror or error}") from None
    return _result(answer, path)


@contextlib.contextmanager
def _connected(path: Path, timeout_s: float) -> Iterator[socket.socket]:
    """A connection whose every step takes `timeout_s` at most.

    The socket is reached through a descriptor of its folder, since the address of a unix socket has
    107 bytes at most (unix(7)) and a data_dir may be deeper.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
            yield connection
    finally:
        os.close(folder)


def _one_line(connection: socket.socket, deadline: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(_READ_BYTES)
        end = piece.find(b"\n")
        if end >= 0 or not piece:
            return b"".join([*pieces, piece[:end] if end >= 0 else b""])
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise CommandFailed(f"forkd's answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")


def _result(line: bytes, path: Path) -> Any:
    if not line:
        raise CommandFailed(
            f"forkd closed the connection to {path} without an answer",
            hint="it may be stopping; its log says more",
        )
    try:
        answer = json.loads(line)
        done, result = answer["ok"], answer.get("result")
    except (ValueError, TypeError, KeyError):
        raise CommandFailed(
            f"what answers on {path} does not speak forkd's control protocol",
            hint="is it a forkd of another version?",
        ) from None
    if not done:
        why = str(answer.get("error") or "forkd refused the request and gave no reason")
        raise (PartAway if answer.get("away") else CommandFailed)(why)
    return result


def _no_daemon(data_dir: Path, path: Path) -> CommandFailed:
    if not data_dir.is_dir():
        found = f"there is no folder {data_dir}"
    else:
        found = f"there is no control socket {path}"
    chosen = which_of(click.get_current_context(silent=True))
    hint = chosen.hint() if chosen else "name another one by --config FILE or --data-dir DIR"
    return CommandFailed(f"no forkd runs here: {found}", hint=hint, status=Exit.NO_DAEMON)
