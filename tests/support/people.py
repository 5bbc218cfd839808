"""Who runs the daemon in a test: root, whose roles drop to other users, or an ordinary user."""

from __future__ import annotations

import dataclasses
import functools
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
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
        # Any three users serve; these exist everywhere, own nothing of ours and nobody logs in as them.
        users = 'user = "nobody"\nqueue_user = "mail"\nadmin_user = "daemon"\n'
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


@functools.cache
def installation() -> tuple[Path, str]:
    """(checkout, interpreter) that every user can reach: ours, or a copy of it below /var/tmp."""
    if os.geteuid() != 0 or reachable(ROOT / "forkd" / "__init__.py"):
        return ROOT, sys.executable
    copy = Path(tempfile.mkdtemp(prefix="forkd-tests-", dir="/var/tmp"))
    copy.chmod(0o755)
    for name in ("forkd", "plugins", "etc", "tests", ".venv"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    subprocess.run(["chmod", "-R", "go+rX", str(copy)], check=True)
    return copy, str(copy / ".venv" / "bin" / "python")
