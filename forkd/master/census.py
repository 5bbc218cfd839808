"""Does every process of a plugin belong to a sandbox that some worker holds? Pure, but for look().

A zygote begins a session, and nothing behind its walls can begin another (setsid is refused), so the session
tells whose a process is. Workers say in each heartbeat how many sandboxes of each plugin they held since the
one before: the fewest and the most. Nothing that the zygote says counts.

Every LOOK_S master looks at /proc once, for all plugins, and compares with what was said in between:

    who is there at two looks in a row was there all the time between them, so if it is a sandbox, it is
    among the fewest that workers held meanwhile. More than those: somebody keeps processes of his own
    how many are there at one look are no more than the most that workers held around it, with some leave for
    those that are being born or dying. More: somebody forks them faster than two looks can meet them

Suspicious TWICE in a row, the whole zygote is ended. A worker that is silent (busy, just killed) makes a look
count for nothing. What stays below: a few helpers that replace each other more often than LOOK_S.

Cost of a look: 12 microseconds for each process of the machine: with 500 sandboxes 8 ms, 0.3 % of one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Iterable, Mapping

from forkd.sandbox import processes

LOOK_S = 3.0
TWICE = 2
SETTLED_S = 1.5
"""A heartbeat that comes so long after a look speaks of the time after it alone: they come once a second."""
LEAVE, LEAVE_SHARE = 16, 0.25
"""Of processes that are being born or dying, at one look: so many, and this share of the most held."""

Process = tuple[int, int]
"""pid, and start time in clock ticks since boot: pids come again."""
Sessions = Mapping[int, int]
"""Sessions of zygotes: the leader's pid, and its start time (0: not known)."""
Held = Mapping[str, tuple[int, int]]
"""Plugin -> sandboxes that one worker held since its last heartbeat: the fewest, the most."""


def look(sessions: Sessions) -> dict[int, set[Process]]:
    """Session -> its living processes, its leader and the dying not counted.

    One whose number another leader has by now has none: those are strangers.
    """
    found: dict[int, set[Process]] = {session: set() for session in sessions}
    strangers: set[int] = set()
    if not found:
        return found
    for seen in processes.look():
        if seen.pid in found and seen.started != sessions[seen.pid]:
            strangers.add(seen.pid)
        elif seen.session in found and seen.pid != seen.session and not (seen.dead or seen.dying):
            found[seen.session].add((seen.pid, seen.started))
    return {session: set() if session in strangers else there for session, there in found.items()}


def start_time(pid: int) -> int:
    """Of a process that is not reaped; 0: it cannot be seen."""
    seen = processes.see(pid)
    return 0 if seen is None else seen.started


def session_of(pid: int) -> int:
    """Of a living process; 0: there is none of that number, or it is about to end."""
    seen = processes.see(pid)
    return 0 if seen is None or seen.dead or seen.dying else seen.session


def end(sessions: Sessions, within_s: float = 0.1) -> None:
    """SIGKILL to all processes of sessions whose leader is dead, until none is left. Blocks for that.

    A session's number is not given out again while somebody is in it; those without are forgotten by judge().
    """
    left = dict(sessions)
    until = time.monotonic() + within_s
    while left and time.monotonic() < until:
        seen = look(left)
        left = {session: left[session] for session in left if seen[session]}
        for pid, started in (process for session in left for process in seen[session]):
            if start_time(pid) == started:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)


@dataclasses.dataclass(slots=True, eq=False)
class _Told:
    """By one worker, since the last look: its heartbeats behind SETTLED_S, and all of them."""

    fewest: dict[str, int] = dataclasses.field(default_factory=dict)
    most: dict[str, int] = dataclasses.field(default_factory=dict)
    settled: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class _Plugin:
    """Its zygotes (two generations may have one each), and what dead ones left behind."""

    sessions: dict[int, int]
    living: set[int] = dataclasses.field(default_factory=set)
    """pids of its zygotes."""
    seen: set[Process] = dataclasses.field(default_factory=set)
    looked: bool = False
    suspicions: int = 0


class Census:
    """All plugins, from look to look. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._plugins: dict[str, _Plugin] = {}
        self._told: dict[int, _Told] = {}
        self._looked_at = 0.0

    @property
    def due(self) -> float | None:
        """When judge() should be called next; None: there is no plugin."""
        return self._looked_at + LOOK_S if self._plugins else None

    def started(self, plugin: str, pid: int, at: int) -> None:
        """Its zygote was started: leader of a new session. What its last one left is looked at too.

        at   its start_time()
        """
        entry = self._plugins.setdefault(plugin, _Plugin({}))
        entry.sessions[pid] = at
        entry.living.add(pid)
        entry.looked = False
        entry.suspicions = 0

    def reaped(self, plugin: str, pid: int) -> None:
        """Its zygote is dead: as soon as nobody is in its session, the number may be another's."""
        entry = self._plugins.get(plugin)
        if entry is not None:
            entry.living.discard(pid)

    def sessions(self, plugin: str) -> dict[int, int]:
        """Of its zygote, and of dead ones whose processes live."""
        entry = self._plugins.get(plugin)
        return {} if entry is None else dict(entry.sessions)

    def heard(self, worker: int, held: Held, now: float) -> None:
        """A heartbeat of a worker, by its pid."""
        told = self._told.setdefault(worker, _Told())
        for plugin, (fewest, most) in held.items():
            told.most[plugin] = max(most, told.most.get(plugin, 0))
            if now >= self._looked_at + SETTLED_S:
                told.fewest[plugin] = min(fewest, told.fewest.get(plugin, fewest))
        told.settled = told.settled or now >= self._looked_at + SETTLED_S

    def judge(
        self, seen: Mapping[int, set[Process]], workers: Iterable[int], now: float
    ) -> list[tuple[str, str]]:
        """Plugins that must end, and why.

        seen     look() at the sessions of all plugins
        workers  pids of those that live
        """
        alive = set(workers)
        spoke = all(worker in self._told and self._told[worker].settled for worker in alive)
        told = list(self._told.values())
        condemned: list[tuple[str, str]] = []
        for name, plugin in self._plugins.items():
            there = set[Process]().union(*(seen.get(session, set()) for session in plugin.sessions))
            why = self._suspicion(name, plugin, there, told) if spoke and plugin.looked else ""
            plugin.suspicions = plugin.suspicions + 1 if why else 0
            plugin.seen, plugin.looked = there, True
            plugin.sessions = {
                pid: at for pid, at in plugin.sessions.items() if seen.get(pid) or pid in plugin.living
            }
            if plugin.suspicions >= TWICE:
                condemned.append((name, why))
        self._told = {worker: _Told() for worker in alive}
        self._looked_at = now
        return condemned

    def _suspicion(self, name: str, plugin: _Plugin, there: set[Process], told: list[_Told]) -> str:
        stayed = len(plugin.seen & there)
        fewest = sum(each.fewest.get(name, 0) for each in told)
        if stayed > fewest:
            return f"{stayed - fewest} of its {stayed} processes belong to no sandbox that a worker holds"
        most = sum(each.most.get(name, 0) for each in told)
        if len(plugin.seen) > most + LEAVE + LEAVE_SHARE * most:
            return f"it had {len(plugin.seen)} processes, and workers held {most} sandboxes at most"
        return ""
