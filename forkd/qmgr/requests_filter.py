"""Which messages does an admin mean? A filter, made ready once, asked for every message."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from forkd.qmgr.requests_look import Seen
from forkd.rpc.messages import QueueFilter
from forkd.smtp.address import a_labels

NULL_SENDER = "<>"

Text = Callable[[str], bool]


def chooser(wanted: QueueFilter | None) -> Callable[[Seen], bool]:
    """Whether a message fits. No pattern here can cost more than the text's length times its own.

    An address is written whole, or `@domain`, or with `*` for any characters; the null sender is `<>`.
    A domain as well. Small letters and capitals are the same, and so are the two forms of a domain.
    """
    if wanted is None:
        return lambda _: True
    ids, states, reason = frozenset(wanted.ids), frozenset(wanted.states), wanted.reason.casefold()
    senders = _any(_address(text) for text in wanted.senders)
    recipients = _any(_address(text) for text in wanted.recipients)
    domains = _any(_domain(text) for text in wanted.domains)
    rules: list[Callable[[Seen], bool]] = []
    # The cheap ones first.
    if ids:
        rules.append(lambda seen: seen.candidate.id in ids)
    if states:
        rules.append(lambda seen: seen.state in states)
    if wanted.received_from:
        rules.append(lambda seen: seen.received_at >= wanted.received_from)
    if wanted.received_to:
        rules.append(lambda seen: seen.received_at <= wanted.received_to)
    if wanted.size_from:
        rules.append(lambda seen: seen.size >= wanted.size_from)
    if wanted.size_to:
        rules.append(lambda seen: seen.size <= wanted.size_to)
    if reason:
        rules.append(lambda seen: reason in seen.reason.casefold())
    if wanted.senders:
        rules.append(lambda seen: seen.message is not None and senders(seen.sender))
    if wanted.recipients:
        rules.append(lambda seen: any(map(recipients, seen.recipients())))
    if wanted.domains:
        rules.append(lambda seen: any(domains(domain_of(address)) for address in seen.recipients()))
    return lambda seen: all(rule(seen) for rule in rules)


def domain_of(address: str) -> str:
    """What stands behind the last @, in small letters; of the null sender `<>`, as it has none."""
    return address.rpartition("@")[2].lower() or NULL_SENDER


def _any(patterns: Iterable[Text]) -> Text:
    tests = tuple(patterns)
    return lambda text: any(test(text) for test in tests)


def _address(pattern: str) -> Text:
    if pattern in ("", NULL_SENDER):
        return lambda text: not text
    if pattern.startswith("@"):
        domain = _domain(pattern[1:])
        return lambda text: domain(text.rpartition("@")[2])
    return _pattern(pattern)


def _domain(pattern: str) -> Text:
    """In both forms, however the envelope has it."""
    try:
        ascii_form = a_labels(pattern)
    except ValueError:
        ascii_form = pattern
    one, other = _pattern(pattern), _pattern(ascii_form)
    return lambda text: one(text) or other(text)


def _pattern(pattern: str) -> Text:
    """`*` stands for any characters, all others for themselves."""
    first, *rest = pattern.casefold().split("*")
    if not rest:
        return lambda text: text.casefold() == first

    def fits(text: str) -> bool:
        text = text.casefold()
        if not text.startswith(first):
            return False
        place = len(first)
        for part in rest[:-1]:
            found = text.find(part, place)
            if found < 0:
                return False
            place = found + len(part)
        return len(text) - place >= len(rest[-1]) and text.endswith(rest[-1])

    return fits
