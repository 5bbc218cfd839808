"""How does a server with paths built in run without touching the system? In a mount namespace of its own.

Only root can make one. What the server sees as /etc/passwd or /var/spool/… is ours; nobody else sees it,
and it is gone with the server's last process.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.bench.servers import Missing, program


def command(
    words: Sequence[str | Path], *, binds: Sequence[tuple[Path, str]] = (), empty: Sequence[str] = ()
) -> list[str]:
    """The command that runs `words` in a namespace of its own; the process keeps its pid.

    binds   (file or folder of ours, path at which the server sees it)
    empty   folders it sees empty, made before the binds; a bind below one is made there
    """
    if os.geteuid() != 0:
        raise Missing("it is started by root only")
    lines = ["set -e"]
    for path in empty:
        lines.append(f"mount -t tmpfs -o mode=755 bench {shlex.quote(path)}")
    for source, path in binds:
        target = shlex.quote(path)
        if source.is_dir():
            lines.append(f"mkdir -p {target}")
        lines.append(f"mount --bind {shlex.quote(str(source))} {target}")
    lines.append("exec " + shlex.join(str(word) for word in words))
    return [str(program("unshare")), "--mount", "sh", "-c", "\n".join(lines)]


def users(folder: Path, names: Sequence[str]) -> list[tuple[Path, str]]:
    """Binds that give a server's own users to a system that lacks them."""
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    for number, name in enumerate(names, start=64_001):
        if f"\n{name}:" not in passwd:
            passwd += f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n"
        if f"\n{name}:" not in group:
            group += f"{name}:x:{number}:\n"
    for name, text in (("passwd", passwd), ("group", group)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    return [(folder / "passwd", "/etc/passwd"), (folder / "group", "/etc/group")]
