"""dnsbl - refuse clients and senders by DNS block lists

SYNOPSIS
    plugins.d/30-dnsbl.toml:

        plugin = "dnsbl"

        [settings]
        zones = [
            "list.dnswl.org 127.0.[0..255].[1..3] -4",
            "zen.spamhaus.org 127.0.0.[2..11] 3 => see https://check.spamhaus.org/query/ip/{ip}",
            "bl.spamcop.net 127.0.0.2 2",
        ]
        threshold = 3

        [grants]
        dns = ["list.dnswl.org", "zen.spamhaus.org", "bl.spamcop.net"]

        [limits]
        timeout = "30s"

DESCRIPTION
    The client's address is looked up in `zones`, names of domains in `domain_zones`. The weights of all
    lines that match are added; from `threshold` on the recipient is refused: 550 5.7.1, or what `action`
    says. A list with a negative weight speaks for the client: it is asked first. No more is asked than
    decides, unless the score is exported.

    Answers are kept for the session, so that each list is asked once for an address or a domain.

ZONES
    ZONE [PATTERN] [WEIGHT] [=> TEXT]

        zen.spamhaus.org                         any entry, weight 1
        zen.spamhaus.org 127.0.0.[2..11] 3       answers 127.0.0.2 to 127.0.0.11 weigh 3
        list.dnswl.org 127.0.[0..255].[1;2] -4   ; between the values that match
        ... => TEXT                              what the client is told, in place of `text`

    A zone may stand in several lines: it is asked once, and each line that matches counts. IPv4 and
    IPv6 (RFC 5782) are asked alike. The key of a Spamhaus data query zone is told to nobody.

DOMAINS
    `sender_domain` looks the sender's domain up in `domain_zones`, `helo_name` the HELO name, `reverse_name`
    the client's, each only if it has a dot. One domain counts once.

WHAT IS NOT BELIEVED
    Answers outside 127.0.0.0/8, which come from resolvers that invent answers and from lists whose domain
    was sold; 127.255.255.x, 127.0.1.255 and 127.0.0.1, with which lists say that they do not answer you: to
    public resolvers, for one. And with `check_zones` a list that has an entry for 127.0.0.1 or the domain
    "invalid" (RFC 5782 5): one that was given up and lists the world. All of it is logged, once a
    session, counted as `unusable`, and has no weight; nor has a list that does not answer (`temporary`).

    After `patience` seconds nothing more is asked for this recipient (`late`). limits.timeout should be
    longer by 5 seconds, which one lookup takes at most; a list that is away costs that once a session.

WHOM NO LIST COUNTS AGAINST
    Clients that have authenticated, private and loopback addresses, and whom `allow` and `lists` name:

        client 192.0.2.1, client 2001:db8::/32      this address, this network
        client mx.example.com, client .example.com  this reverse name, all below the domain
        sender user@example.com                     this address; needs sender_domain
        recipient user@example.com, recipient user@ an address, a local part

    By default postmaster and abuse can be reached by everybody (RFC 5321 4.5.1, RFC 2142). At "connect"
    nobody knows yet for whom mail is: clients are refused with 554, postmaster or not.

EXPORT
    With `export` later plugins see DNSBL_SCORE, and DNSBL: "listed", "suspect" (some weight, below the
    threshold), "allowed" (less than 0) or "clean". The plugin greylist can go by it:
    only = ["DNSBL=suspect"].

SETTINGS
    zones, domain_zones      lines as above                    default: none
    helo_name, reverse_name, what else is looked up            default: false
    sender_domain            (the last: grant reads = ["envelope"])
    threshold                sum of weights                    default: 1
    at                       rcpt or connect (address and      default: rcpt
                             reverse name; the rest at rcpt)
    action                   refuse, defer, note               default: refuse
    allow, lists             exceptions                        default: postmaster@ and abuse@
    export                   grant export = ["DNSBL", "DNSBL_SCORE"]    default: false
    check_zones, patience    see above                         default: true, 3
    text                     {what} {ip} {zone} {score} {txt}  default: see plugin.toml
                             {txt}: the list's own TXT record

FAILURE
    When no name can be looked up nobody is listed, and mail comes in. A session that makes us look up more
    than dns.per_session of forkd.toml allows, or the second in which dns.rate is used up, is told to come
    again (451 4.7.1): else whoever asks enough would pass. The default on_failure, "disconnect", is for the
    plugin's own failure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from dnsbl_zones import Rule, Zone, read_zones, reverse, usable

from forkd.sdk import Edit, Plugin, Recipient, Session, Verdict, defer, deny, export
from forkd.sdk.capabilities import QuotaExceeded
from forkd.sdk.listfile import EntryError, checked
from forkd.sdk.lists import PRIVATE, exceptions

_TOO_MUCH = defer("4.7.1", "too much mail at once, please try again later")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = ("what", "ip", "zone", "score", "txt")
_MAX_TXT = 300
"""Octets of a list's own text that go into a reply."""
_MAX_NAME = 253

Hit = tuple[Zone, Rule, str, str]
"""List, line, what is listed, and the name it was asked for by."""


class Asking:
    """The lookups of one session: what was asked is kept in its notes."""

    def __init__(self, session: Session, check_zones: bool, until: float, clock: Callable[[], float]) -> None:
        self._session = session
        self._check = check_zones
        self._until = until
        self._clock = clock
        self._known: dict[str, list[str]] = session.notes.setdefault("answers", {})
        self._told: set[str] = session.notes.setdefault("told", set())

    def answers(self, subject: str, zone: Zone, nobody: str) -> list[str]:
        """What the list says of `subject`, as far as it can be believed.

        nobody  what no list has an entry for (RFC 5782 5)
        """
        name = f"{subject}.{zone.name}"
        if len(name) > _MAX_NAME:
            return []
        if name not in self._known:
            found = self._asked(name, zone)
            if found and self._check:
                everybody = self._asked(f"{nobody}.{zone.name}", zone)
                if everybody is None:
                    return []
                if everybody:
                    self._tell("unusable", zone, "it lists what no list has: everything")
                    found = []
            if found is None:
                return []
            self._known[name] = found
        return self._known[name]

    def text(self, name: str) -> str:
        """The list's own text, on one line."""
        texts: dict[str, str] = self._session.notes.setdefault("texts", {})
        if name not in texts:
            late = self._clock() >= self._until
            found = b"" if late else next(iter(self._session.dns.txt(name)), b"")
            words = found[:_MAX_TXT].decode("ascii", "replace").replace("\ufffd", "?").split()
            texts[name] = "".join(c for c in " ".join(words) if c.isprintable())
        return texts[name]

    def listed(self, what: str, zone: Zone, score: int) -> None:
        """Log it, once."""
        if what not in self._told:
            self._told.add(what)
            self._session.log(f"listed with {score}: {what} by {zone.shown}")

    def _asked(self, name: str, zone: Zone) -> list[str] | None:
        """Answers that can be believed; None: there is no time to ask."""
        if self._clock() >= self._until:
            self._tell("late", zone, "it was not asked, those before it took too long")
            return None
        found = self._session.dns.a(name)
        if found.status == "temporary":
            self._tell("temporary", zone, "it does not answer")
        fine, wrong = usable(found)
        if wrong:
            self._tell("unusable", zone, wrong)
        return fine

    def _tell(self, counter: str, zone: Zone, what: str) -> None:
        self._session.count(counter)
        if zone.name not in self._told:
            self._told.add(zone.name)
            self._session.log(f"list {zone.shown} counts for nothing: {what}")


class Lists:
    """Which lists there are, and what their answers come to."""

    def __init__(self, settings: dict[str, Any], clock: Callable[[], float]) -> None:
        """Raises ValueError for settings that make no sense."""
        self._zones = read_zones("zones", settings["zones"])
        self._domain_zones = read_zones("domain_zones", settings["domain_zones"])
        if not self._zones and not self._domain_zones:
            raise EntryError("settings zones, domain_zones: there is no list to ask")
        self._names = [name for name in ("helo_name", "reverse_name", "sender_domain") if settings[name]]
        if self._domain_zones and not self._names:
            raise EntryError(
                "setting domain_zones: no domain is looked up: set sender_domain, helo_name or reverse_name"
            )
        if self._names and not self._domain_zones:
            raise EntryError(f"setting {self._names[0]}: there is no list of domains in domain_zones")
        most = sum(zone.most for zone in self._zones) + sum(zone.most for zone in self._domain_zones)
        if most < settings["threshold"]:
            raise EntryError(
                f"setting threshold: all weights together are {most}: nobody would ever be listed"
            )
        self._threshold: int = settings["threshold"]
        self._all: bool = settings["export"] or settings["action"] == "note"
        self._check: bool = settings["check_zones"]
        self._patience: int = settings["patience"]
        self._clock = clock
        self._text = checked("text", _template, settings["text"])
        for name, zones in (("zones", self._zones), ("domain_zones", self._domain_zones)):
            for rule in (rule for zone in zones for rule in zone.rules):
                checked(name, _template, rule.text or self._text)

    def judge(self, session: Session, *, early: bool) -> tuple[int, str]:
        """The score, and what a listed client is told; the text is empty below the threshold.

        early  only what is known when a client connects
        """
        asking = Asking(session, self._check, self._clock() + self._patience, self._clock)
        pairs = list(self._questions(session, early=early))
        pairs.sort(key=lambda pair: pair[0].least == 0)
        score, hits = 0, list[Hit]()
        for index, (zone, subject, what, nobody) in enumerate(pairs):
            low = score + sum(pair[0].least for pair in pairs[index:])
            high = score + sum(pair[0].most for pair in pairs[index:])
            if not self._all and (low >= self._threshold or high < self._threshold):
                break
            answers = asking.answers(subject, zone, nobody)
            for rule in zone.rules:
                if answers and rule.matches(answers):
                    score += rule.weight
                    hits.append((zone, rule, what, f"{subject}.{zone.name}"))
        if score < self._threshold:
            return score, ""
        return score, self._told(session, asking, score, max(hits, key=lambda hit: hit[1].weight))

    def _questions(self, session: Session, *, early: bool) -> Iterator[tuple[Zone, str, str, str]]:
        """List, what to ask it for, how a reply calls that, and what no such list has."""
        if not PRIVATE.names(session.client_ip) and session.client_ip:
            for zone in self._zones:
                yield zone, reverse(session.client_ip), session.client_ip, "1.0.0.127"
        domains = []
        for name in self._names:
            if name == "reverse_name":
                domains.append(session.client_name)
            elif not early:
                domains.append(
                    (session.helo or "") if name == "helo_name" else session.envelope.sender.domain
                )
        for domain in dict.fromkeys(domain.lower().rstrip(".") for domain in domains):
            if "." in domain and not domain.startswith("[") and domain.rpartition(".")[2].strip("0123456789"):
                for zone in self._domain_zones:
                    yield zone, domain, domain, "invalid"

    def _told(self, session: Session, asking: Asking, score: int, hit: Hit) -> str:
        zone, rule, what, name = hit
        template = rule.text or self._text
        values = {"what": what, "ip": session.client_ip, "zone": zone.shown, "score": str(score), "txt": ""}
        if "{txt}" in template:
            values["txt"] = asking.text(name)
        asking.listed(what, zone, score)
        text = _PLACEHOLDER.sub(lambda found: values[found[1]], template).strip()
        return "".join(c if c.isprintable() else "?" for c in text) or "listed"

    def word(self, score: int) -> str:
        """A score in a word, for other plugins."""
        if score >= self._threshold:
            return "listed"
        return "suspect" if score > 0 else "allowed" if score < 0 else "clean"


def _template(text: str) -> str:
    """The text, when it can be one. Raises EntryError."""
    for found in _PLACEHOLDER.finditer(text):
        if found[1] not in _PLACEHOLDERS:
            raise EntryError(
                f"{found[0]} stands for nothing: use {', '.join(f'{{{p}}}' for p in _PLACEHOLDERS)}"
            )
    deny("5.7.1", _PLACEHOLDER.sub("x", text))
    return text


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Read the settings and lists; refuse to start on a bad line or an unreadable file."""
    return hooks(settings, time.monotonic)


def hooks(settings: dict[str, Any], clock: Callable[[], float]) -> Plugin:
    """The plugin by a clock of one's choice. Raises ValueError, OSError."""
    lists = Lists(settings, clock)
    allowed = exceptions("allow", settings["allow"], settings["lists"])
    action: str = settings["action"]
    by_sender: bool = settings["sender_domain"]
    if allowed.senders and not by_sender:
        raise EntryError(
            "setting allow: senders are not read: they can only be named with sender_domain = true"
        )

    def judged(session: Session, *, early: bool) -> list[Edit | Verdict]:
        if session.user or allowed.clients.names(session):
            return []
        try:
            score, text = lists.judge(session, early=early)
        except QuotaExceeded:
            session.count("quota")
            return [_TOO_MUCH]
        said: list[Edit | Verdict] = []
        if settings["export"]:
            said = [export("DNSBL", lists.word(score)), export("DNSBL_SCORE", str(score))]
        if text:
            session.count("listed")
            if action != "note":
                said.append(deny("5.7.1", text) if action == "refuse" else defer("4.7.1", text))
        return said

    def connect(session: Session) -> list[Edit | Verdict]:
        return judged(session, early=True) if settings["at"] == "connect" else []

    def rcpt(session: Session, recipient: Recipient) -> list[Edit | Verdict]:
        if allowed.recipients.names(recipient) or (
            by_sender and allowed.senders.names(session.envelope.sender)
        ):
            return []
        return judged(session, early=False)

    return Plugin(connect=connect, rcpt=rcpt)
