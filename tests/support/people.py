"""Who runs the daemon in a test: root, whose roles drop to other users, or an ordinary user."""

from __future__ import annotations

import dataclasses
import os
import pwd
import stat
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534


@dataclasses.dataclass(frozen=True)
class Person:
    """How to run the daemon as somebody.

    prefix  put before the command
    server  keys of [server] that the configuration needs
    uid     who owns the daemon's folder
    """

    name: str
    prefix: tuple[str, ...]
    server: str
    uid: int


def person(name: str) -> Person:
    """`root`: roles drop to users that every Debian has. `user`: the caller, or nobody where that is root."""
    if name == "root":
        if os.geteuid() != 0:
            pytest.skip("only root can start forkd as root")
        # Any four users serve; these exist everywhere, own nothing of ours and nobody logs in as them.
        users = 'user = "nobody"\nqueue_user = "mail"\nadmin_user = "daemon"\nbroker_user = "news"\n'
        return Person("root", (), users, 0)
    if os.geteuid() != 0:
        return Person("user", (), "", os.geteuid())
    group = pwd.getpwuid(NOBODY).pw_gid
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={group}", "--clear-groups")
    return Person("user", prefix, "", NOBODY)


def reachable(path: Path) -> bool:
    """May everybody get there and read it?"""
    path = path.resolve()
    mode = path.stat().st_mode
    if not mode & (stat.S_IXOTH if path.is_dir() else stat.S_IROTH):
        return False
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def installation() -> tuple[Path, str]:
    """(checkout, interpreter), which every user can reach: `make test` sees to that (tools/test.sh)."""
    if os.geteuid() == 0 and not reachable(ROOT / "forkd" / "__init__.py"):
        pytest.fail(f"other users cannot reach {ROOT}: run the tests with `make test`, which copies it")
    return ROOT, sys.executable
