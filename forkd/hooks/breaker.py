"""Is a plugin broken for everyone? Then it is not asked for a while. Pure: told what happens and when.

It opens when nobody got an answer any more, and not before:

- its zygote cannot be reached: two calls were not even taken, and none succeeded between them; or
- every call failed for Rule.window_s, without one success, and the calls of Rule.networks client networks
  at least were among them in that time.

One success begins all of it anew. So no client can switch a scanner off for others by crashing it: while
anybody else's calls succeed it stays closed, and alone he is one network. Clients that the admin trusts
have no network of their own ("") and count as one. Overload is no failure, and a plugin whose failure is
skipped has no breaker: it would be a way around the check.

While it is open, on_failure applies at once. Each Rule.pause_s one session is let through (half open): its
first success closes, its failure keeps it open. A network whose session failed so waits one pause longer
than others: who crashes the plugin on purpose must not be the one by whom it is judged.

One per worker, and that suffices: what is broken for everyone is so in each worker, and each finds out by
its own calls within the same window. Nothing has to be shared, and a worker that was lied to harms itself.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable


class State(enum.Enum):
    """Of a breaker, as log and status name it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """[breaker] of the configuration, in seconds."""

    window_s: float = 30.0
    networks: int = 8
    pause_s: float = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A breaker changed: the plugin, its new state, why."""

    plugin: str
    state: State
    reason: str


class Breaker:
    """One plugin's, from its first failure on. Every method returns why it changed its state, or ""."""

    __slots__ = ("_failed", "_networks", "_next", "_pause_s", "_probe", "_since", "_tried", "_untaken",
                 "_window_s", "state")  # fmt: skip

    def __init__(self, rule: Rule, now: float) -> None:
        self._window_s, self._networks, self._pause_s = rule.window_s, rule.networks, rule.pause_s
        self.state = State.CLOSED
        self._since = now
        """Nothing has succeeded since then."""
        self._failed: dict[str, float] = {}
        """Network -> its last failure; the latest last, no more of them than matter."""
        self._untaken = 0
        """Calls that no zygote took."""
        self._next = 0.0
        """From then on a session may be let through."""
        self._probe = ""
        """The session that was."""
        self._tried: dict[str, None] = {}
        """Networks whose sessions failed so."""

    def failed(self, session: str, network: str, now: float, *, untaken: bool = False) -> str:
        """A call failed. `untaken`: no zygote took it."""
        if self.state is not State.CLOSED:
            if session != self._probe:
                return ""
            self._probe = ""
            _add(self._tried, network, None, self._networks)
            self.state = State.OPEN
            return "the session that was let through failed too"
        _add(self._failed, network, now, self._networks)
        self._untaken += untaken
        if self._untaken > 1:
            return self._open(now, "its zygote cannot be reached")
        if now - self._since < self._window_s or len(self._failed) < self._networks:
            return ""
        if now - next(iter(self._failed.values())) > self._window_s:
            return ""
        lasted_s = now - self._since
        return self._open(
            now, f"no call succeeded for {lasted_s:.0f} s, of {self._networks} networks or more"
        )

    def admits(self, session: str, network: str, now: float) -> tuple[bool, str]:
        """May the plugin be asked in this session? And why the state changed."""
        if self.state is State.CLOSED or session == self._probe:
            return True, ""
        first = self._next + (self._pause_s if network in self._tried else 0.0)
        if now < first:
            return False, ""
        self._probe = session
        self._next = now + self._pause_s
        self.state = State.HALF_OPEN
        return True, f"session {session} is let through"

    def _open(self, now: float, reason: str) -> str:
        self.state = State.OPEN
        self._next = now + self._pause_s
        return reason


def _add(table: dict[str, float] | dict[str, None], key: str, value: float | None, most: int) -> None:
    table.pop(key, None)
    table[key] = value  # type: ignore[assignment]
    if len(table) > most:
        del table[next(iter(table))]


class Breakers:
    """Those of all plugins of a worker.

    troubled  only of plugins whose last call failed: empty while all is well, so that a plugin without
              failures costs one look at an empty table.
    on_change told of every change; must not raise.
    """

    __slots__ = ("_on_change", "_rule", "troubled")

    def __init__(self, rule: Rule, on_change: Callable[[Change], None]) -> None:
        self._rule = rule
        self._on_change = on_change
        self.troubled: dict[str, Breaker] = {}

    def admits(self, plugin: str, session: str, *, network: str, now: float) -> bool:
        """May the plugin be asked in this session?"""
        breaker = self.troubled.get(plugin)
        if breaker is None:
            return True
        admitted, why = breaker.admits(session, network, now)
        self._changed(plugin, breaker.state, why)
        return admitted

    def failed(self, plugin: str, session: str, *, network: str, now: float, untaken: bool) -> None:
        """A call failed: not by overload, and not because of an earlier one."""
        breaker = self.troubled.get(plugin)
        if breaker is None:
            breaker = self.troubled[plugin] = Breaker(self._rule, now)
        why = breaker.failed(session, network, now, untaken=untaken)
        self._changed(plugin, breaker.state, why)

    def succeeded(self, plugin: str) -> None:
        """A call succeeded: whatever was before, the plugin is not broken for everyone."""
        breaker = self.troubled.pop(plugin, None)
        if breaker is not None and breaker.state is not State.CLOSED:
            self._changed(plugin, State.CLOSED, "a call succeeded")

    def _changed(self, plugin: str, state: State, why: str) -> None:
        if why:
            self._on_change(Change(plugin, state, why))
