"""How often may a plugin ask? In a second over all sessions, and in one session. Pure.

`now` is monotonic seconds. A session is known by what its worker called it, so that a plugin whose every call
has a sandbox of its own (limits.fresh "call") has no more than others. Remembered are as many as KEPT; the
one that asked longest ago is forgotten first, and may ask anew.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

KEPT: Final = 20_000
"""Sessions, some 300 octets each; a plugin with more of them at once has other worries."""
CONNECTS: Final = 64
"""Connections that a plugin may ask for in a minute of one session. How many are open at once is not counted
here, where nobody sees them closed: limits.open_files bounds that, in each sandbox."""
_CONNECTS_S: Final = 60.0
REFUSALS: Final = 1000
"""So many refusals in one session, and the plugin does nothing else: that is a flood."""


class Rate:
    """At most `limit` in `seconds`, as an even flow with room for all of them at once."""

    __slots__ = ("_at", "_flow", "_left", "_limit")

    def __init__(self, limit: int, seconds: float = 1.0) -> None:
        self._limit = float(limit)
        self._flow = limit / seconds
        self._left = float(limit)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """One more; False: not now."""
        self._left = min(self._limit, self._left + max(0.0, now - self._at) * self._flow)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Usage:
    """What one plugin has asked in one session.

    told  kinds of refusal that the log has for it.
    """

    __slots__ = ("_connects", "asked", "refused", "told")

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self._connects: Rate | None = None
        self.refused = 0
        self.told: set[str] = set()

    def take(self, what: str, limit: int) -> bool:
        """One request more of that kind; False: it was one too many."""
        count = self.asked.get(what, 0)
        if count >= limit:
            return False
        self.asked[what] = count + 1
        return True

    def take_connection(self, now: float) -> bool:
        """One connection more; False: not now."""
        if self._connects is None:
            self._connects = Rate(CONNECTS, _CONNECTS_S)
        return self._connects.take(now)


class Sessions:
    """Usage by plugin and session."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept
        self._usage: OrderedDict[tuple[str, str], Usage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._usage)

    def usage(self, plugin: str, session: str) -> Usage:
        """What that plugin has asked in that session; nothing yet where it is new."""
        key = (plugin, session)
        usage = self._usage.get(key)
        if usage is None:
            usage = self._usage[key] = Usage()
            if len(self._usage) > self._kept:
                self._usage.popitem(last=False)
        else:
            self._usage.move_to_end(key)
        return usage
