"""Who is to be told what, now? The rules of RFC 3461, from what became of each recipient to who hears of it.

Whatever is known of a message goes in, a Due comes out; report.py writes it down. The table is SAID; above it
stand the null sender, which is never written to (RFC 5321 4.5.5), and NOTIFY=NEVER.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

Fate = Literal["failed", "deferred", "delivered", "relayed", "expanded", "passed_on"]
"""What became of a recipient.

    failed     for good: refused, or given up
    deferred   it will be tried again
    delivered  it lies in a mailbox, or what stands for one took it: a program, a list
    relayed    a next hop took it that knows no DSN: nobody after us will report
    expanded   an alias put several addresses in its place (RFC 3461 5.2.7.3)
    passed_on  a next hop took it with its DSN parameters: what is to be said, it says (RFC 3461 5.2.1)
"""

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
"""As it stands in a report (RFC 3464 2.3.3)."""

Keyword = Literal["SUCCESS", "FAILURE", "DELAY"]

Reach = Literal["known", "nowhere", "nobody"]
"""Whether mail gets to a sender.

    known    as far as we know
    nowhere  no way leads there: mail for it waits until an admin makes one, or is given up
    nobody   an address of ours that does not exist: whoever sent the message has another
"""

Copies = Literal["none", "untold", "failures"]
"""What the postmaster hears of: nothing; failures that no sender is told of; all failures."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One fate: what it is called in a report, and who asked for one."""

    action: Action
    keyword: Keyword
    unasked: bool
    """Reported too where the sender gave no NOTIFY: failures and delays are (RFC 3461 4.1)."""
    source: str


SAID: dict[Fate, Rule | None] = {
    "failed": Rule("failed", "FAILURE", True, "RFC 3461 5.2.6"),
    "deferred": Rule("delayed", "DELAY", True, "RFC 3461 5.2.5; only when a warning is due"),
    "delivered": Rule("delivered", "SUCCESS", False, "RFC 3461 5.2.3"),
    "relayed": Rule("relayed", "SUCCESS", False, "RFC 3461 5.2.2, 5.2.4"),
    "expanded": Rule("expanded", "SUCCESS", False, "RFC 3461 5.2.7.3"),
    "passed_on": None,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """One recipient whose fate may have to be told; one that was told of before is left out."""

    index: int
    """Place in the envelope's recipients."""
    address: str
    fate: Fate
    notify: tuple[str, ...] = ()
    """NOTIFY in capitals; empty: not given."""
    original: str = ""
    """What stood there before an alias, or a plugin."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the admin chose."""

    warn_after_s: float = 14_400
    """A message this old gets its delay warning, once; 0: never. Four hours, as sendmail's."""
    postmaster: str = ""
    """Who gets the copies; empty: nobody."""
    copies: Copies = "none"
    own_senders: frozenset[str] = frozenset()
    """Addresses that our reports come from, in lower case. A report never goes there: nobody reads it, and
    what answers there are machines."""


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """One recipient and what is said of it."""

    index: int
    action: Action


@dataclasses.dataclass(frozen=True, slots=True)
class Due:
    """What is to be written now. Each of the two is one report, however many recipients it speaks of."""

    sender: tuple[Told, ...] = ()
    """To the message's sender."""
    postmaster: tuple[Told, ...] = ()
    """To the postmaster: failures alone, and of the message its header alone."""
    warned: bool = False
    """This is the moment of the delay warning, even if nobody wants it: remember it with the message."""
    untold: tuple[int, ...] = ()
    """Recipients that failed and that neither report speaks of: worth a line in the log."""
    kept_back: bool = False
    """The sender would be told something, or more, if mail got there."""


def due(
    sender: str,
    standings: Sequence[Standing],
    *,
    policy: Policy,
    age_s: float,
    warned: bool = False,
    reach: Reach = "known",
) -> Due:
    """Decide what is to be reported after an attempt.

    sender  of the envelope; empty: the null sender, who is never told anything
    age_s   of the message, since it was received
    warned  its warning went out before. One message warns once, be it late for one recipient or for fifty
    reach   of the sender. Where no way leads there, failures alone are worth a report that waits, and they
            too only where no postmaster hears of them instead: what others may ask for with each message they
            send, reports on successes, must not fill the queue
    """
    late = any(standing.fate == "deferred" for standing in standings)
    warns = late and not warned and 0 < policy.warn_after_s <= age_s
    listens = bool(sender) and sender.lower() not in policy.own_senders
    to_sender: list[Told] = []
    kept_back = False
    for standing in standings if listens else ():
        rule = SAID[standing.fate]
        if rule is None or not asked(standing.notify, rule) or (standing.fate == "deferred" and not warns):
            continue
        if reach == "known" or (reach == "nowhere" and _waits(standing, sender, policy)):
            to_sender.append(Told(standing.index, rule.action))
        else:
            kept_back = True
    heard = {told.index for told in to_sender}
    to_postmaster = [
        Told(standing.index, "failed")
        for standing in standings
        if standing.fate == "failed" and _copied(standing, sender, policy, heard=standing.index in heard)
    ]
    heard.update(told.index for told in to_postmaster)
    return Due(
        tuple(to_sender),
        tuple(to_postmaster),
        warned=warns,
        untold=tuple(
            standing.index
            for standing in standings
            if standing.fate == "failed" and standing.index not in heard
        ),
        kept_back=kept_back,
    )


def asked(notify: Sequence[str], rule: Rule) -> bool:
    """Whether a sender who gave this NOTIFY wants to hear of it (RFC 3461 4.1)."""
    return rule.keyword in notify if notify else rule.unasked


def _waits(standing: Standing, sender: str, policy: Policy) -> bool:
    """Worth a report to where no way leads: else nobody would hear of a loss."""
    return standing.fate == "failed" and not _copied(standing, sender, policy, heard=False)


def _copied(standing: Standing, sender: str, policy: Policy, *, heard: bool) -> bool:
    """NOTIFY speaks for the sender alone: a postmaster who wants to know of mail that vanished is told."""
    postmaster = policy.postmaster.lower()
    if not postmaster or policy.copies == "none":
        return False
    if postmaster in (sender.lower(), standing.address.lower(), standing.original.lower()):
        # The postmaster's own mail, or a copy that failed, to him or to whom his alias stands for: another
        # one would go the same way, and so on for ever.
        return False
    return policy.copies == "failures" or not heard
