"""What lies in data_dir/run while we run, who may reach it, and how is it gone afterwards, whatever happened?

The names stand in rpc/places.py. The lock is flock'ed for as long as any forked role lives (they inherit
its description), so that what is left of a killed forkd and its successor never meet in one data_dir.
run/ belongs to the admin user: admin removes the sockets when master was killed, before it gives up its
hold on the lock, hence before a successor can have made any.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from forkd import log
from forkd.exits import Exit
from forkd.master.errors import StartError
from forkd.master.privileges import Identities
from forkd.rpc import places

SUN_PATH_BYTES = 107
"""The longest path of a unix socket (unix(7), without the final NUL)."""

BESIDE = "~1"
"""Behind a path while another generation has it (ground_paths.py): there must be room for it at the start."""

LEFTOVER_WAIT_S = 10.0
"""For what a killed forkd left: its roles end within 5 s of losing their master."""


class Runtime:
    """data_dir/run, held. Everything in it is ours from hold() to clear()."""

    def __init__(self, data_dir: Path, identities: Identities) -> None:
        self.folder = places.run_folder(data_dir)
        self.identities = identities
        self.lock = -1

    def hold(self) -> None:
        """Make the folders and take the lock. Raises StartError (IN_USE: another forkd has this data_dir)."""
        uid, gid = self.identities.uid("admin_user"), self.identities.gid("admin_user")
        try:
            if not self.folder.parent.exists():
                self.folder.parent.mkdir(parents=True)
                self.folder.parent.chmod(0o755)  # past the umask: every role has its own folder below
            _make_folder(self.folder, uid, gid)
            self._take_lock()
            # What a killed forkd and its admin left behind.
            places.clear(self.folder)
            _make_folder(self.folder / places.PLUGINS, uid, gid)
        except OSError as error:
            raise StartError(Exit.SYSTEM, f"server.data_dir: {error.filename}: {error.strerror}") from error

    def _take_lock(self) -> None:
        deadline = time.monotonic() + LEFTOVER_WAIT_S
        path = self.folder / places.LOCK
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(lock, 32).decode(errors="replace").strip()
                os.close(lock)
                if _alive(holder):
                    raise StartError(
                        Exit.IN_USE, f"another forkd (pid {holder}) runs on {self.folder.parent}"
                    ) from None
                if time.monotonic() > deadline:
                    raise StartError(
                        Exit.IN_USE,
                        f"processes of a forkd that was killed (pid {holder}) still hold "
                        f"{path}; `fuser {path}` shows them",
                    ) from None
                log.debug("waiting for what is left of another forkd", pid=holder)
                time.sleep(0.05)
                continue
            # It may have been removed between open and flock: then another one can be made.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    break
            os.close(lock)
        # admin may have to take and remove it; nobody else may even open it, since who can open can lock.
        os.fchown(lock, self.identities.uid("admin_user"), -1)
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self.lock = lock

    def listen(self, name: str, kind: socket.SocketKind, *, mode: int, owner: str) -> socket.socket:
        """A listening unix socket run/NAME of the user that the key `owner` of [server] names."""
        return self.listen_at(self.folder / name, kind, mode=mode, uid=self.identities.uid(owner))

    def listen_plugin(self, path: Path, *, owner: str = "user") -> socket.socket:
        """The socket on which workers (those of the user that the key `owner` of [server] names), and nobody
        else, ask for a plugin's sandboxes."""
        return self.listen_at(path, socket.SOCK_SEQPACKET, mode=0o600, uid=self.identities.uid(owner))

    def listen_at(self, path: Path, kind: socket.SocketKind, *, mode: int, uid: int) -> socket.socket:
        """A listening unix socket at `path`, non-blocking. Raises StartError."""
        if len(os.fsencode(path)) + len(BESIDE) > SUN_PATH_BYTES:
            raise StartError(
                Exit.CONFIG,
                f"server.data_dir is too long: a socket's path has {SUN_PATH_BYTES} octets at most, {path} "
                f"has {len(os.fsencode(path))}, and a reload needs {len(BESIDE)} more",
            )
        sock = socket.socket(socket.AF_UNIX, kind)
        try:
            sock.bind(str(path))
            path.chmod(mode)
            os.chown(path, uid, -1)
            sock.listen(1024)
        except OSError as error:
            sock.close()
            raise StartError(Exit.SYSTEM, f"{path}: {error.strerror}") from error
        sock.setblocking(False)
        return sock

    def clear(self) -> None:
        """Remove everything of ours and give up the lock, in that order."""
        if self.lock >= 0:
            places.clear(self.folder)
            with contextlib.suppress(OSError):
                (self.folder / places.LOCK).unlink()
            os.close(self.lock)
            self.lock = -1


def _make_folder(folder: Path, uid: int, gid: int) -> None:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # past the umask: workers and admins' commands pass through
    os.chown(folder, uid, gid)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
