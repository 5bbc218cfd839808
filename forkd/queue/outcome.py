"""What became of one recipient in one attempt? And how much of it is written down."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

MOST_SAID = 300
"""Octets of each text that a line keeps; next hops write as long as they like."""
LEAST_SAID = 20
LINE_BYTES = 8 << 20
"""For the texts of all outcomes in a line, escapes counted: of 10,000 recipients each has 139 octets."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of one recipient in one attempt."""

    recipient: int
    """Index into the envelope's recipients: the same address may stand there twice."""
    status: str
    """delivered | deferred | failed"""
    enhanced: str
    text: str
    told: bool = False
    """Its report is written, or nobody wants one; of a deferred recipient: the delay warning."""
    relayed: bool = False
    """Delivered to a next hop that will not report (RFC 3461): a report says so."""
    host: str = ""
    """The next hop's name."""
    reply: str = ""
    """What it said, with code; lines cut by LF."""

    def as_told(self) -> Outcome:
        """The same, and told."""
        return msgspec.structs.replace(self, told=True)

    def bounded(self, most: int) -> Outcome:
        """As a line keeps it: no text longer than so many octets."""
        if max(len(self.text), len(self.host), len(self.reply)) * 4 <= most:
            return self
        texts = {name: _cut(getattr(self, name), most) for name in ("text", "host", "reply")}
        return msgspec.structs.replace(self, **texts)


def _cut(text: str, most: int) -> str:
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def bounded(outcomes: Collection[Outcome]) -> list[Outcome]:
    """As one line keeps them: the more they are, the less each says."""
    # Three texts each, and JSON writes an octet as two where it must.
    most = min(MOST_SAID, max(LEAST_SAID, LINE_BYTES // (6 * max(1, len(outcomes)))))
    return [outcome.bounded(most) for outcome in outcomes]
