"""Who came again? What the plugin greylist keeps of clients, senders and recipients.

    triplet CLIENT SENDER RECIPIENT   "new TIME"    tried first at TIME; forgotten after the window
                                      "known TIME"  came again; TIME is when that was last written
    good CLIENT                       "known TIME"  came again with enough of them
    count CLIENT                      number of those that count
    hour CLIENT                       one was counted within the hour

Several sessions of one client may ask at the same time, in several processes: what is kept is made by `add`
and `incr`, of which the store lets one be first, or is the same whoever writes it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from forkd.sdk.remembering import state_key

_HOUR = 3_600
_DAY = 86_400


class Times(NamedTuple):
    """In seconds, and how many good retries make a client known."""

    delay: int
    window: int
    lifetime: int
    auto_allow: int


class Memory:
    """Asks and tells the state store; every method may raise its CapabilityError."""

    def __init__(self, state: Any, times: Times, now: int) -> None:
        """`now`: seconds since 1970, for times that outlive us."""
        self._state = state
        self._times = times
        self._now = now

    def is_good(self, client: str) -> bool:
        """Has the client come again so often that it always does?"""
        if not self._times.auto_allow:
            return False
        key = state_key("good", client)
        found = self._state.get(key)
        if found is None:
            return False
        self._renew(key, _taken_apart(found)[1])
        return True

    def waits(self, client: str, sender: str, recipient: str) -> tuple[int, int]:
        """Seconds that this one must still wait (0: it passes), and seconds since its first try, if it just
        passed for the first time."""
        key = state_key("triplet", client, sender, recipient)
        found = self._state.get(key)
        if found is None:
            if self._state.add(key, f"new {self._now}", ttl=self._times.window):
                return self._times.delay, 0
            found = self._state.get(key)
        word, at = _taken_apart(found)
        if word == "known":
            self._renew(key, at)
            return 0, 0
        if word != "new":  # it has just expired, or an older version of us wrote it
            self._state.set(key, f"new {self._now}", ttl=self._times.window)
            return self._times.delay, 0
        # A clock that was set back must not make anybody wait for longer than a first try.
        since = max(0, self._now - at)
        if since < self._times.delay:
            return self._times.delay - since, 0
        self._state.set(key, f"known {self._now}", ttl=self._times.lifetime)
        self._count(client)
        return 0, since

    def _renew(self, key: str, written: int) -> None:
        """Remember it for another lifetime; at most once a day, as each is a write to disk."""
        if not 0 <= self._now - written < min(_DAY, self._times.lifetime // 4):
            self._state.set(key, f"known {self._now}", ttl=self._times.lifetime)

    def _count(self, client: str) -> None:
        """One good retry more. One an hour: a single burst of a bot that does retry makes no good client."""
        wanted = self._times.auto_allow
        if not wanted or not self._state.add(state_key("hour", client), 1, ttl=_HOUR):
            return
        if self._state.incr(state_key("count", client), ttl=self._times.lifetime) >= wanted:
            self._state.set(state_key("good", client), f"known {self._now}", ttl=self._times.lifetime)


def _taken_apart(found: Any) -> tuple[str, int]:
    """Word and time of what was kept; no word for what none of us wrote."""
    word, _, at = str(found).partition(" ")
    return (word, int(at)) if word in ("new", "known") and at.isascii() and at.isdigit() else ("", 0)
