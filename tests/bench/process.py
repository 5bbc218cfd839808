"""How is a server under test started, accounted for and ended? As a tree of processes, by pid."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
KTHREADD: Final = 2
"""Parent of the kernel's own threads."""
PR_SET_CHILD_SUBREAPER: Final = 36
QUIET_S: Final = 0.004
"""Less CPU than this in one look (100 ms) is a server at rest."""

Table = dict[int, tuple[int, int, int]]
"""pid -> (parent, ticks of CPU of its own, ticks of children it waited for)."""


def look() -> Table:
    """One pass over /proc."""
    table: Table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - hundreds of them, often
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            # man proc_pid_stat: ppid is field 4; utime, stime, cutime, cstime are 14 to 17.
            own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            table[int(name)] = (int(fields[1]), own, children)
    return table


def tree(roots: Iterable[int], table: Table) -> set[int]:
    """The roots that live, and everybody below them."""
    below: dict[int, list[int]] = {}
    for pid, (parent, _, _) in table.items():
        below.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [pid for pid in roots if pid in table]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += below.get(pid, ())
    return found


def cpu_s(pids: Iterable[int], table: Table) -> float:
    """CPU seconds, user and system, of these processes and of children they waited for."""
    return sum(table[pid][2] / TICKS_PER_S + _own_s(pid, table[pid][1]) for pid in pids)


def _own_s(pid: int, ticks: int) -> float:
    """CPU seconds of a living process, to the nanosecond where the kernel tells.

    stat cuts user and system time down to 10 ms each. Over Postfix' sixty short-lived daemons that
    loses a tenth of their time, half of it in a short run. Children's times are cut only once, in the sum.
    """
    spent = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - as in look()
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:  # noqa: PTH123
                spent += int(file.read().split()[0])
    except OSError:
        pass  # it ended just now, or a kernel without schedstat
    return max(spent / 1e9, ticks / TICKS_PER_S)


def adopt_orphans() -> None:
    """A server's children whose parent died become ours, so that none is left behind or uncounted."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Take the status of adopted orphans that have ended."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid in _ours:
                return  # subprocess wants to see this one itself
            os.waitpid(found.si_pid, 0)


_ours: set[int] = set()


def free_port() -> int:
    """A port on the loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """One or several commands that are one server. Output goes to `log`.

    They get a process group of their own. Descendants are remembered at each look, so that stop()
    ends also what left the group (Postfix' daemons, sandboxes).

    whole_group   the commands do not end their children by themselves: TERM goes to all.
    """

    def __init__(self, log: Path, *, whole_group: bool = False) -> None:
        self.log = log
        self._whole_group = whole_group
        self.roots: list[subprocess.Popen[bytes]] = []
        self._seen: set[int] = set()

    def start(
        self, *command: str | Path, environment: Mapping[str, str] | None = None, new_session: bool = True
    ) -> None:
        """Start one more command; does not wait until it serves. Its folder is the log's.

        new_session   false for a server that makes its own, and fails when it leads one already
        """
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env={
                    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                    "LANG": "C.UTF-8",
                    **(environment or {}),
                },
                start_new_session=new_session,
            )
        _ours.add(process.pid)
        self.roots.append(process)

    def pids(self, table: Table | None = None) -> set[int]:
        """Everybody alive who belongs to it."""
        table = look() if table is None else table
        # Who has ended is forgotten: its pid may be somebody else's by the next look.
        self._seen &= table.keys()
        self._seen |= tree([process.pid for process in self.roots] + list(self._seen), table)
        return set(self._seen)

    def cpu_s(self) -> float:
        """CPU seconds so far of the whole tree, dead children included."""
        table = look()
        return cpu_s(self.pids(table), table)

    def settle(self, *, limit_s: float = 15.0) -> bool:
        """Wait until it has stopped working; false when it never did."""
        deadline = time.monotonic() + limit_s
        before = self.cpu_s()
        while time.monotonic() < deadline:
            time.sleep(0.1)
            now = self.cpu_s()
            if now - before < QUIET_S:
                return True
            before = now
        return False

    def alive(self) -> bool:
        """Is every command that was started still there?"""
        return all(process.poll() is None for process in self.roots)

    def stop(self) -> list[int]:
        """TERM, then KILL for what is left; returns whom it had to kill."""
        pids = self.pids()
        for process in self.roots:
            if self._whole_group:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            elif process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 15
        while self.pids() and time.monotonic() < deadline:
            for process in self.roots:
                process.poll()
            reap()
            time.sleep(0.05)
        left = sorted(self.pids())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.roots:
            process.wait()
            _ours.discard(process.pid)
        reap()
        self._seen = set()
        self.roots = []
        return left if pids else []

    def wait_greeting(self, port: int, *, limit_s: float = 60.0) -> None:
        """Wait for 220; RuntimeError with the log's end when it ends instead or says nothing."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if not self.alive():
                break
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as peer:
                    peer.settimeout(3)
                    if peer.recv(100).startswith(b"220"):
                        peer.sendall(b"QUIT\r\n")
                        peer.recv(100)
                        return
            except OSError:
                pass
            time.sleep(0.05)
        text = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
        raise RuntimeError(f"does not serve on port {port}: {text.strip()}")
