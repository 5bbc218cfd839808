"""ratelimit - limit messages and recipients by client, user, sender and recipient

SYNOPSIS
    plugins.d/45-ratelimit.toml:

        plugin = "ratelimit"

        [settings]
        limits = [
            "user messages 100/1h",
            "user recipients 500/1d",
            "user recipients 5000/1d for newsletter",
            "client recipients 50/10m",
            "client recipients unlimited for 192.0.2.0/24, .partner.example",
            "recipient messages 30/1m",
        ]

        [grants]
        reads = ["envelope"]
        state = true

DESCRIPTION
    Who has sent, or been sent, as much as a limit allows gets 451 4.7.1 (or 550 5.7.1, `action`) until his
    count has gone down. Counts are kept by forkd's broker: they hold over all workers and sessions, and over
    a restart. forkd.toml's [limits] bound connections and commands; this one bounds mail.

LIMITS
    WHO WHAT COUNT/PERIOD [for NAME, ...]

        client            the client's address; of IPv6 its /64 (`ipv4_prefix`, `ipv6_prefix`)
        user              who authenticated
        sender            the sender's address, without a detail behind +; not the null sender
        sender_domain     its domain
        recipient         the recipient's address, without a detail
        recipient_domain  its domain

        messages, recipients    what is counted
        100/1h                  a count and a period: s, m, h, d; 100/h is 100/1h; 0 takes none
        unlimited               with `for`: whom no limit holds for

    Of the lines with the same WHO and WHAT, those count for somebody that name him behind `for`; if none
    does, those without `for` do. Names of clients are addresses, networks, and reverse names verified both
    ways; .example.com is all names below. Several periods are several lines: what allows a burst for a
    minute and holds it down over a day is "client messages 30/1m" beside "client messages 200/1d".

WHAT COUNTS, AND WHEN
    Recipients at RCPT TO, each of them; and there the messages to a recipient and its domain, once in a
    transaction. All other messages at DATA, before the client sends it: what never comes to DATA, because
    the sender or all recipients were refused, is no message; what is refused for its content is one.

    What a limit refuses does not count: a client that tries on all the time is let in as soon as one
    that waits. What plugins before this one refuse is not counted, what later ones refuse is: order it behind
    those that do (dnsbl, greylist, recipients).

    A message that is put off for its content (451 after the client has sent it: a scanner is away, the spool
    is full) counts at each of the client's tries, wherever this plugin stands: no plugin is told what becomes
    of a message, and a count at the end of data would let a client send any number of them before it is
    stopped. Limits by client or user should leave room for that.

    The period slides: the count is that of the present window and so much of the one before as still lies
    in the period behind us, taken as spread evenly. Sessions at the same time share the count to the last
    one.

WHO IS NOT LIMITED
    Whom `exempt` and `lists` name, as by lines:

        client 192.0.2.0/24, client .example.com    sender user@example.com, sender example.com
        recipient postmaster@                       user alice

SETTINGS
    limits                    lines as above                    must be given
    exempt, lists             who is not limited                default: none
    ipv4_prefix, ipv6_prefix  bits                              default: 32, 64
    action                    defer or refuse                   default: defer
    text                      {who} {what} {count} {period}     default: see plugin.toml
    on_unavailable            pass or defer                     default: pass

FAILURE
    When nothing can be counted (the broker is away, the store is full), mail passes, is logged once a
    session and counted as `unavailable`; with "defer" all clients are told to come again. A session with
    more recipients than state.per_session of forkd.toml lets us count is told to go on in another one
    (451 4.7.1). The default on_failure, "disconnect", is for the plugin's own failure.

    Whoever writes a new sender's address into each mail makes a new count each time, and may fill the
    store (state.max_keys) with them: limit by client or user beside a limit by sender.

COST
    For each limit that holds for a recipient, or a message: one write and one read of the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ratelimit_counters import Charge, Counters
from ratelimit_limits import Limit, Limits

from forkd.sdk import Address, Envelope, Plugin, Recipient, Session, Verdict, defer, deny
from forkd.sdk.capabilities import CapabilityError, QuotaExceeded
from forkd.sdk.listfile import checked
from forkd.sdk.lists import exceptions
from forkd.sdk.remembering import network_of

_TOO_MUCH = defer("4.7.1", "too much mail in one session, please try again in another one")
_NOT_NOW = defer("4.3.0", "this server cannot take mail from you right now, please try again later")


class RateLimit:
    """Whom to charge with what, and what to say when it is too much."""

    def __init__(self, settings: dict[str, Any], clock: Callable[[], float]) -> None:
        """Raises ValueError for settings that make no sense."""
        self._limits = Limits("limits", settings["limits"])
        self._exempt = exceptions("exempt", settings["exempt"], settings["lists"])
        self._prefixes = (settings["ipv4_prefix"], settings["ipv6_prefix"])
        self._clock = clock
        self._passes_uncounted = settings["on_unavailable"] == "pass"
        self._refuse = settings["action"] == "refuse"
        self._text: str = settings["text"]
        checked("text", self._said, Limit("recipient_domain", "recipients", 1_000_000_000, 86_399))

    def rcpt(self, session: Session, recipient: Address) -> Verdict | None:
        """One recipient more."""
        sender, before = session.envelope.sender, session.envelope.recipients
        if self._leaves_alone(session, sender) or self._exempt.recipients.names(recipient):
            return None
        charges: list[Charge] = []
        for kind in self._limits.kinds(at_data=False):
            who, what = kind
            if what == "messages" and _among(who, recipient, before):
                continue
            charges += self._charges(session, kind, sender, recipient)
        return self._charged(session, charges)

    def data(self, session: Session, sender: Address) -> Verdict | None:
        """One message more."""
        if self._leaves_alone(session, sender):
            return None
        charges: list[Charge] = []
        for kind in self._limits.kinds(at_data=True):
            charges += self._charges(session, kind, sender, None)
        return self._charged(session, charges)

    def _leaves_alone(self, session: Session, sender: Address) -> bool:
        exempt = self._exempt
        return (
            exempt.clients.names(session)
            or exempt.senders.names(sender)
            or (bool(session.user) and session.user.lower() in exempt.users)
        )

    def _charges(
        self, session: Session, kind: tuple[str, str], sender: Address, recipient: Address | None
    ) -> Iterable[Charge]:
        """For each limit of this kind that holds: whom to charge."""
        who = kind[0]
        address = recipient if who.startswith("recipient") and recipient is not None else sender
        named: Any = address
        if who == "client":
            named, whom = session, network_of(session.client_ip, *self._prefixes)
        elif who == "user":
            named = whom = session.user.lower()
        elif who.endswith("domain"):
            named = whom = address.domain
        else:
            whom = _without_detail(address)
        if whom:
            for limit in self._limits.of(kind, named):
                yield Charge(limit, whom, 1)

    def _charged(self, session: Session, charges: list[Charge]) -> Verdict | None:
        if not charges:
            return None
        try:
            found = Counters(session.state, self._clock()).exceeded(charges)
        except QuotaExceeded:
            session.count("quota")
            return _TOO_MUCH
        except CapabilityError as why:
            return self._uncounted(session, why)
        if found is None:
            return None
        session.count("refused" if self._refuse else "deferred")
        limit = found.limit
        session.log(f"{found.whom}: more than {limit.most} {limit.what} of a {limit.who} in {limit.period} s")
        return self._said(limit)

    def _uncounted(self, session: Session, why: CapabilityError) -> Verdict | None:
        session.count("unavailable")
        if not session.notes.get("told"):
            session.notes["told"] = True
            session.log(
                f"nothing can be counted: {why}; mail is {'let in' if self._passes_uncounted else 'deferred'}"
            )
        return None if self._passes_uncounted else _NOT_NOW

    def _said(self, limit: Limit) -> Verdict:
        text = limit.told(self._text)
        return deny("5.7.1", text) if self._refuse else defer("4.7.1", text)


def _without_detail(address: Address) -> str:
    """An address as it is counted: whoever could choose a new detail for each mail had no limit."""
    if not address:
        return ""
    local, plus, _ = address.local.lower().partition("+")
    return f"{local or plus}@{address.domain.lower()}"


def _among(who: str, recipient: Address, before: Iterable[Address]) -> bool:
    """Was a message to this recipient, or its domain, counted in this transaction?"""
    if who == "recipient_domain":
        return any(each.domain == recipient.domain for each in before)
    whom = _without_detail(recipient)
    return any(_without_detail(each) == whom for each in before)


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Read the limits; refuse to start on a bad one or an unreadable file."""
    return hooks(settings, time.time)


def hooks(settings: dict[str, Any], clock: Callable[[], float]) -> Plugin:
    """The plugin by a clock of one's choice. Raises ValueError, OSError."""
    ratelimit = RateLimit(settings, clock)

    def rcpt(session: Session, recipient: Recipient) -> Verdict | None:
        return ratelimit.rcpt(session, recipient)

    def data(session: Session, envelope: Envelope) -> Verdict | None:
        return ratelimit.data(session, envelope.sender)

    return Plugin(rcpt=rcpt, data=data)
