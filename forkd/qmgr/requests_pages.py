"""What does a page of `list` or `stat` say? Candidates in, an answer out; never more than a little time."""

from __future__ import annotations

import collections
import math
import re
import time
from collections.abc import Sequence

import msgspec

from forkd.fs import REAL, Fs
from forkd.qmgr.requests_filter import chooser, domain_of
from forkd.qmgr.requests_look import ANSWER_BYTES, Candidate, Seen, entry_of, look
from forkd.rpc.messages import QueueAnswer, QueueCount, QueueEntry, QueueRequest

PAGE_S = 0.02
"""A page ends then: whoever else asks does not wait long, and lanes are not kept from the interpreter."""
PAGE_LOOKS = 1000
"""Messages that one page looks at, at most: so many are copied for it on the loop (below 2 ms)."""
MOST_ENTRIES = 1000
MOST_DOMAINS = 100
"""Of one message in `stat`; a list's other recipients count under OTHERS."""
OTHERS = "(others)"
AGES = 10
TICK_S = 300.0
"""The first age ends at 5 minutes, each one after it lasts to twice that: as Postfix' qshape has them."""

REASON_KIND = 120
_CODE = re.compile(r"[(\[]?(?:[245][0-9][0-9]|[245]\.[0-9]{1,3}\.[0-9]{1,3})[)\]:;,.-]?")

_encode = msgspec.json.Encoder().encode


def list_page(
    root: str, candidates: Sequence[Candidate], request: QueueRequest, *, fs: Fs = REAL
) -> QueueAnswer:
    """Those that fit the filter, in their order, until the limit, the record or the time is full."""
    end, fits = time.monotonic() + PAGE_S, chooser(request.filter)
    limit = min(max(1, request.limit), MOST_ENTRIES)
    entries: list[QueueEntry] = []
    octets = looked_at = 0
    after = request.after
    for candidate in candidates:
        seen = look(root, candidate, fs=fs)
        if seen is not None and fits(seen):
            entry = entry_of(seen)
            octets += len(_encode(entry))
            if octets > ANSWER_BYTES and entries:
                break
            entries.append(entry)
        after = candidate.id
        looked_at += 1
        if len(entries) >= limit or time.monotonic() >= end:
            break
    more = looked_at < len(candidates)
    return QueueAnswer(n=request.n, entries=tuple(entries), seen=looked_at, after=after, more=more)


def stat_page(
    root: str, candidates: Sequence[Candidate], request: QueueRequest, *, fs: Fs = REAL
) -> QueueAnswer:
    """How many of those that fit, by domain, reason and state, and by age; as far as the time goes."""
    end, fits = time.monotonic() + PAGE_S, chooser(request.filter)
    at = request.at or time.time()
    counts: collections.Counter[tuple[str, str, int]] = collections.Counter()
    size = octets = looked_at = 0
    after = request.after
    for candidate in candidates:
        seen = look(root, candidate, fs=fs)
        after = candidate.id
        looked_at += 1
        if seen is not None and fits(seen):
            octets += seen.size
            for kind, name in _names(seen, by_sender=request.by_sender):
                key = kind, name, age_of(at - seen.received_at)
                if key not in counts:
                    # Octets of a line; "unicode" may take four each.
                    size += len(name.encode("utf-8", "replace")) + 30
                counts[key] += 1
        if size >= ANSWER_BYTES / 2 or time.monotonic() >= end:
            break
    return QueueAnswer(
        n=request.n,
        counts=tuple(QueueCount(*key, count) for key, count in counts.items()),
        octets=octets,
        seen=looked_at,
        after=after,
        more=looked_at < len(candidates),
    )


def _names(seen: Seen, *, by_sender: bool) -> list[tuple[str, str]]:
    named = [("state", seen.state), ("reason", reason_kind(seen.reason))]
    if seen.message is None:
        return named
    if by_sender:
        return [*named, ("domain", domain_of(seen.sender))]
    domains = [domain_of(address) for address in seen.recipients()]
    told = set(sorted(set(domains))[:MOST_DOMAINS])
    return [*named, *(("domain", domain if domain in told else OTHERS) for domain in domains)]


def age_of(seconds: float) -> int:
    """Which of the AGES."""
    ticks = seconds / TICK_S
    return 0 if ticks < 1 else min(AGES - 1, 1 + int(math.log2(ticks)))


def reason_kind(reason: str) -> str:
    """A reason without what differs from message to message, so that the same causes count together."""
    words = reason[: 2 * REASON_KIND].split()
    return " ".join(["…" if _differs(word) else word for word in words])[:REASON_KIND]


def _differs(word: str) -> bool:
    """Addresses, ids, times, counts: words with a digit in them, but for reply codes."""
    return "@" in word or (any(map(str.isdigit, word)) and not _CODE.fullmatch(word))
