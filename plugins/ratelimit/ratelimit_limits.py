"""What do the lines of `limits` say?

    WHO WHAT COUNT/PERIOD [for NAME, ...]

Reading them is all that happens here; counting is in ratelimit_counters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from forkd.sdk.listfile import EntryError, checked, given, take_all
from forkd.sdk.lists import Addresses, Clients, Domains
from forkd.sdk.remembering import period, spoken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

WHO = ("client", "user", "sender", "sender_domain", "recipient", "recipient_domain")
WHAT = ("messages", "recipients")
_WORDS = {"sender_domain": "sender's domain", "recipient_domain": "recipient's domain"}
"""Where a text for people says it otherwise."""
_RATE = re.compile(r"([0-9]{1,9})/([0-9]+[a-z]*|[a-z]+)")
_MAX_COUNT = 1_000_000_000


class Limit(NamedTuple):
    """So many of `what` by one `who` in `period` seconds."""

    who: str
    what: str
    most: int
    """-1: no limit."""
    period: int
    names: Callable[[Any], bool] | None = None
    """Whom it is for, of a session, an address, a domain or a user; None: whom no other line names."""

    def told(self, template: str) -> str:
        """A text about it."""
        said = {
            "{who}": _WORDS.get(self.who, self.who),
            "{what}": self.what,
            "{count}": str(self.most),
            "{period}": spoken(self.period),
        }
        for place, value in said.items():
            template = template.replace(place, value)
        return template

    @property
    def at_data(self) -> bool:
        """Counted once for a message, whoever its recipients are."""
        return self.what == "messages" and not self.who.startswith("recipient")


class Limits:
    """All limits; of those with the same WHO and WHAT the ones that name somebody come before the others."""

    def __init__(self, setting: str, lines: Sequence[str]) -> None:
        """Raises EntryError with every bad line."""
        self._by_kind: dict[tuple[str, str], list[Limit]] = {}
        take_all(given(setting, lines), self._add, what="these are no limits")
        if not self._by_kind:
            raise EntryError(f"setting {setting}: there is no limit")

    def _add(self, line: str) -> None:
        limit = read_limit(line)
        known = self._by_kind.setdefault((limit.who, limit.what), [])
        if limit.names is None and any(
            other.names is None and (other.period == limit.period or -1 in (other.most, limit.most))
            for other in known
        ):
            raise EntryError("another line says something else of the same")
        known.append(limit)

    def kinds(self, *, at_data: bool) -> Iterable[tuple[str, str]]:
        """WHO and WHAT that are counted at DATA, or at RCPT."""
        return [kind for kind, limits in self._by_kind.items() if limits[0].at_data is at_data]

    def of(self, kind: tuple[str, str], whom: Any) -> list[Limit]:
        """The limits for this client, user, address or domain; the shortest period first."""
        limits = self._by_kind[kind]
        named = [limit for limit in limits if limit.names is not None and limit.names(whom)]
        found = named or [limit for limit in limits if limit.names is None]
        return sorted((limit for limit in found if limit.most >= 0), key=lambda limit: limit.period)


def read_limit(line: str) -> Limit:
    """One line. Raises EntryError."""
    said, word, names = line.partition(" for ")
    words = said.split()
    if len(words) != 3:
        raise EntryError(f"write WHO WHAT COUNT/PERIOD, as in user messages 100/1h{_instead(words)}")
    who, what, rate = words
    if who not in WHO:
        raise EntryError(f"{who!r} is nobody to count by: {', '.join(WHO)}")
    if what not in WHAT:
        raise EntryError(f"{what!r} cannot be counted: {' or '.join(WHAT)}")
    if word and not names.strip():
        raise EntryError("for whom?")
    whom = _named(who, names) if word else None
    if rate == "unlimited":
        if whom is None:
            raise EntryError("unlimited is for those that a line names: leave it out, or say for whom")
        return Limit(who, what, -1, 1, whom)
    found = _RATE.fullmatch(rate)
    if found is None:
        raise EntryError(f"{rate!r} is no rate: a count, a / and a period, as in 100/1h; or unlimited")
    count = int(found[1])
    written = found[2] if found[2][0].isdigit() else f"1{found[2]}"
    return Limit(who, what, count, checked("limits", period, written), whom)


def _instead(words: list[str]) -> str:
    if "burst" in " ".join(words):
        return "; for bursts write two lines: one with a short period, one with a long"
    return ""


def _named(who: str, names: str) -> Callable[[Any], bool]:
    """Those that stand behind `for`, with commas between. Raises EntryError."""
    entries = [name.strip() for name in names.split(",")]
    if who == "user":
        users = {name.lower() for name in entries}
        if "" in users or any(len(name.split()) > 1 for name in users):
            raise EntryError("users have names without blanks, with commas between")
        return users.__contains__
    made: Clients | Addresses | Domains
    made = Clients() if who == "client" else Domains() if who.endswith("domain") else Addresses()
    for entry in entries:
        made.add(entry)
    return made.names
