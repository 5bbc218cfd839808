"""Should clients be sent to us? What was seen goes in, what is wrong comes out. Pure.

A table of checks: each has a line why not, or an empty one. All empty: ready.

    service   master answers, and says `running`: not while forkd starts, stops or drains
    probe     the last probe went well, and is young (forkd/probe)
    queue     qmgr's loop answers; or a reload has it end its deliveries, and another one begin: mail is taken
              meanwhile, and waits. Not so where a client waits for its next hop (accept = "proxy")
    spool     there was room for mail at the last probe, and the spool could be written
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

NO_ROOM: Final = "452 4.3.1"
"""How a worker's answer to MAIL begins below queue.min_free, or when the spool cannot be written."""
AHEAD_S: Final = 1.0
"""Beyond interval and timeout: for a busy machine."""


@dataclasses.dataclass(frozen=True, slots=True)
class Probed:
    """One probe: when it ended (monotonic), how long it took, what went wrong (empty: nothing)."""

    at: float
    took_s: float
    problem: str = ""

    @property
    def no_room(self) -> bool:
        """It came as far as MAIL, and there is no space for any, or no way to write it."""
        return NO_ROOM in self.problem


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of this forkd.

    state      as master said; empty: it did not say anything
    silent     why it did not
    queue      what is wrong with qmgr
    replacing  a reload is about to have another one
    probed     the last probe, None: there was none yet
    """

    state: str = ""
    silent: str = ""
    queue: str = ""
    replacing: bool = False
    probed: Probed | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """[probe]; interval_s 0: there is none. proxied: clients of a listener wait for qmgr."""

    interval_s: float
    timeout_s: float
    proxied: bool = False

    @property
    def young_s(self) -> float:
        """So old may the last probe be: when the next one should have ended, it counts no more."""
        return self.interval_s + self.timeout_s + AHEAD_S


def judge(seen: Seen, now: float, rule: Rule) -> Mapping[str, str]:
    """Check -> why not; in the order in which an admin would look."""
    probed = seen.probed
    checks = {"service": "" if seen.state == "running" else seen.state or seen.silent or "not asked yet"}
    if rule.interval_s:
        checks["probe"] = _probe(seen, now, rule)
    checks["queue"] = _queue(seen, rule)
    if rule.interval_s:
        checks["spool"] = probed.problem if probed is not None and probed.no_room else ""
    return checks


def _probe(seen: Seen, now: float, rule: Rule) -> str:
    probed = seen.probed
    if probed is None:
        return "there was no probe yet"
    if now - probed.at > rule.young_s:
        return f"the last probe was {now - probed.at:.0f} s ago"
    return "" if probed.no_room else probed.problem


def _queue(seen: Seen, rule: Rule) -> str:
    if not seen.queue or not seen.replacing:
        return seen.queue
    return "a reload replaces qmgr, which ends its deliveries first" if rule.proxied else ""


def first_problem(checks: Mapping[str, str]) -> str:
    """`probe: MAIL: 421 …` of what is wrong; empty: nothing is."""
    return next((f"{name}: {why}" for name, why in checks.items() if why), "")
