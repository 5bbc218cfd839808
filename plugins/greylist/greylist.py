"""greylist - ask unknown senders to come again

SYNOPSIS
    plugins.d/40-greylist.toml:

        plugin = "greylist"

        [settings]
        delay = "5m"
        allow = ["client 192.0.2.0/24", "client .partner.example", "recipient postmaster@"]

        [grants]
        reads = ["envelope"]
        state = true

DESCRIPTION
    Mail from a client, a sender and to a recipient that were never seen together gets 451 4.7.1 at RCPT
    TO, with the seconds to wait in the text. A mail server tries again; a program that only sends spam
    mostly does not, and one that does is on block lists by then.

    Who comes again after `delay` and within `window` of his first try passes, and is known for `lifetime`
    from then on, renewed by his mail. Tries before the delay is over are told what is left of it; they
    make it no longer. After `auto_allow` good retries, of which one an hour counts, the client is known
    with all senders and recipients.

CLIENTS
    One client is all of its network: 24 bits of an IPv4 address, 64 of IPv6 (`ipv4_prefix`,
    `ipv6_prefix`). Large senders try again from anywhere: a client whose reverse name, verified both
    ways, lies in a domain of `pools`, or whose address in a network there, is that pool. Reverse names
    need [names] in forkd.toml.

SENDERS
    Part of a sender's address may change with each message: what BATV, SRS and VERP put in, details
    behind a +, words with digits. It is left out. Upper and lower case are the same.

WHO NEVER WAITS
    Clients that have authenticated, or may relay by their address (networks.relay of forkd.toml); clients
    of private and loopback addresses (`private`); whom `allow` and `lists` name; clients with a fact of
    `unless`, such as "SPFRESULT=pass", that an earlier plugin exported. With `only`, nobody waits but
    clients with one of its facts, such as "DNSBL=suspect".

    Lines of `allow` and of the files in `lists`:

        client 192.0.2.1, client 2001:db8::/32      this address, this network
        client mx.example.com, client .example.com  this reverse name, all below the domain
        sender user@example.com                     this address; likewise recipient
        sender example.com, sender .example.com     the domain, its sub-domains
        sender user@                                this local part at any domain

    Files are UTF-8; # begins a comment. A line that is none of these stops forkd's start.

BOUNCES
    The null sender is asked to wait at DATA, not at RCPT (`null_sender`): a server that verifies a
    sender of yours by MAIL FROM:<> and RCPT TO, a callout, would take the 451 for an answer about the
    mailbox and defer your mail. It never comes to DATA. A bounce to several recipients waits until it
    may pass for all of them.

SETTINGS
    delay, window, lifetime   periods, as in "5m", "2d"         default: 5m, 2d, 36d
    auto_allow                good retries; 0: never            default: 5
    ipv4_prefix, ipv6_prefix  bits                              default: 24, 64
    pools                     domains and networks              default: see plugin.toml
    allow, lists              who never waits                   default: postmaster@ and abuse@
    unless, only              facts, NAME or NAME=VALUE         default: none
    private                   also clients of private networks  default: false
    null_sender               data, rcpt or pass                default: data
    header                    adds X-Greylist: delayed ...      default: false; grant edit_headers
                              (with fresh = "call": never, as nothing is kept until then)
    text                      {wait} stands for the seconds     default: see plugin.toml
    on_unavailable            pass or defer, see below          default: pass

FAILURE
    When nothing can be remembered (the broker is away, the store is full), mail passes, one line a
    session is logged and `unavailable` counted: greylisting is a help, and mail that waits for it for
    hours is worse than some spam. With "defer" all clients are told to come again. A session with more
    recipients than state.per_session of forkd.toml lets us ask about is told to go on in another one
    (451 4.7.1): else whoever asks enough would pass. The default on_failure, "disconnect", is for the
    plugin's own failure.

COST
    Of a known client: one request to the store in a session, and one for each recipient unless it is
    good. Nothing is written but for a first try, a first good retry, and once a day for who is known.
    Each first try is kept for `window`: where so many never come again that the store is full
    (state.max_keys of forkd.toml), shorten it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from greylist_memory import Memory, Times
from greylist_senders import steady

from forkd.sdk import (
    Address,
    Edit,
    Envelope,
    Message,
    Plugin,
    Recipient,
    Session,
    Verdict,
    add_header,
    defer,
)
from forkd.sdk.capabilities import CapabilityError, QuotaExceeded
from forkd.sdk.listfile import EntryError, checked, domain_name, given, take_all
from forkd.sdk.lists import PRIVATE, Domains, Exceptions, Networks, exceptions
from forkd.sdk.remembering import network_of, period

_TOO_MUCH = defer("4.7.1", "too much mail in one session, please try again in another one")
_NOT_NOW = defer("4.3.0", "this server cannot take mail from you right now, please try again later")


class Pools:
    """Large senders whose retries come from elsewhere."""

    def __init__(self, entries: Iterable[str], ipv4_prefix: int, ipv6_prefix: int) -> None:
        """Raises EntryError with every bad entry."""
        self._networks: list[tuple[str, Networks]] = []
        self._domains: list[tuple[str, Domains]] = []
        self._prefixes = (ipv4_prefix, ipv6_prefix)
        take_all(given("pools", entries), self._add, what="these are no pools")

    def _add(self, entry: str) -> None:
        if ":" in entry or not entry.strip("0123456789./"):
            self._networks.append((entry, Networks(entry)))
        else:
            name = domain_name(entry.removeprefix("*").removeprefix("."))
            domains = Domains()
            domains.add(name)
            domains.add(f".{name}")
            self._domains.append((name, domains))

    def client(self, session: Session) -> str:
        """By what its retries are known: a pool, or its network."""
        if name := session.client_name.lower():
            for pool, domains in self._domains:
                if domains.names(name):
                    return pool
        for pool, networks in self._networks:
            if networks.names(session.client_ip):
                return pool
        return network_of(session.client_ip, *self._prefixes)


class Greylist:
    """Whether to ask, whom to ask about, and what to say."""

    def __init__(self, settings: dict[str, Any], clock: Callable[[], float]) -> None:
        """Raises ValueError for settings that make no sense."""
        self._clock = clock
        self._times = Times(
            delay=checked("delay", period, settings["delay"]),
            window=checked("window", period, settings["window"]),
            lifetime=checked("lifetime", period, settings["lifetime"]),
            auto_allow=settings["auto_allow"],
        )
        if not self._times.delay < self._times.window <= self._times.lifetime:
            raise EntryError(
                "settings delay, window, lifetime: each is longer than the one before, "
                f"not {settings['delay']}, {settings['window']}, {settings['lifetime']}"
            )
        self._allowed: Exceptions = exceptions("allow", settings["allow"], settings["lists"])
        self._pools = Pools(settings["pools"], settings["ipv4_prefix"], settings["ipv6_prefix"])
        self._unless = [checked("unless", _fact, text) for text in settings["unless"]]
        self._only = [checked("only", _fact, text) for text in settings["only"]]
        self._private: bool = settings["private"]
        self._passes_unknown = settings["on_unavailable"] == "pass"
        self._text: str = settings["text"]
        checked("text", defer, "4.7.1", self._told(self._times.window))

    def judges(self, session: Session) -> bool:
        """Is this a client that may have to wait?"""
        if session.user or session.relay or self._allowed.clients.names(session):
            return False
        if not self._private and PRIVATE.names(session.client_ip):
            return False
        facts = session.exports
        if any(_has(facts, fact) for fact in self._unless):
            return False
        return not self._only or any(_has(facts, fact) for fact in self._only)

    def verdict(self, session: Session, sender: Address, recipients: Iterable[Address]) -> Verdict | None:
        """451 while one of these must wait."""
        waited = [to for to in recipients if not self._allowed.recipients.names(to)]
        if not waited or self._allowed.senders.names(sender):
            return None
        client = self._pools.client(session)
        try:
            wait, since = self._asked(session, client, steady(sender), waited)
        except QuotaExceeded:
            session.count("quota")
            return _TOO_MUCH
        except CapabilityError as why:
            return self._unknown(session, why)
        if wait:
            session.count("deferred")
            return defer("4.7.1", self._told(wait))
        if since:
            session.count("came_again")
            session.notes["since"] = max(since, session.notes.get("since", 0))
        return None

    def _asked(self, session: Session, client: str, sender: str, to: list[Address]) -> tuple[int, int]:
        """The longest that any of them must wait, and has waited."""
        memory = Memory(session.state, self._times, int(self._clock()))
        if session.notes.get("good") is None:
            session.notes["good"] = memory.is_good(client)
        if session.notes["good"]:
            return 0, 0
        pairs = [memory.waits(client, sender, str(each).lower()) for each in to]
        return max(wait for wait, _ in pairs), max(since for _, since in pairs)

    def _unknown(self, session: Session, why: CapabilityError) -> Verdict | None:
        session.count("unavailable")
        if not session.notes.get("told"):
            session.notes["told"] = True
            becomes = "let in" if self._passes_unknown else "deferred"
            session.log(f"nothing can be remembered: {why}; mail is {becomes}")
        return None if self._passes_unknown else _NOT_NOW

    def _told(self, wait: int) -> str:
        return self._text.replace("{wait}", str(wait))


def _fact(text: str) -> tuple[str, str | None]:
    """`NAME` or `NAME=VALUE`. Raises EntryError."""
    name, equals, value = text.partition("=")
    if not name or not name.replace("_", "A").isalnum() or name != name.upper():
        raise EntryError(f"{text!r} is no fact: write NAME or NAME=VALUE, as in SPFRESULT=pass")
    return name, value if equals else None


def _has(facts: dict[str, str], fact: tuple[str, str | None]) -> bool:
    name, value = fact
    return name in facts and value in (None, facts[name])


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Read the settings and lists; refuse to start on a bad entry or an unreadable file."""
    return hooks(settings, time.time)


def hooks(settings: dict[str, Any], clock: Callable[[], float]) -> Plugin:
    """The plugin by a clock of one's choice. Raises ValueError, OSError."""
    greylist = Greylist(settings, clock)
    at: str = settings["null_sender"]
    header: bool = settings["header"]

    def rcpt(session: Session, recipient: Recipient) -> Verdict | None:
        if not session.envelope.recipients:
            session.notes.pop("since", None)
        if not greylist.judges(session) or not (session.envelope.sender or at == "rcpt"):
            return None
        return greylist.verdict(session, session.envelope.sender, [recipient])

    def data(session: Session, envelope: Envelope) -> Verdict | None:
        if envelope.sender or at != "data" or not greylist.judges(session):
            return None
        return greylist.verdict(session, envelope.sender, envelope.recipients)

    def message(session: Session, envelope: Envelope, message: Message) -> Edit | None:  # noqa: ARG001
        since = session.notes.get("since", 0)
        if not header or not since:
            return None
        return add_header("X-Greylist", f"delayed {since} seconds by {session.hostname}")

    return Plugin(rcpt=rcpt, data=data, message=message)
