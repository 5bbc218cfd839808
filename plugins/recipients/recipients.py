"""recipients - refuse mail to mailboxes that do not exist

SYNOPSIS
    plugins.d/20-recipients.toml:

        plugin = "recipients"

        [settings]
        lists = ["recipients/example.com.list"]
        recipients = ["sales-*@example.org", "@wildcard.example"]

        [grants]
        files = ["recipients"]

DESCRIPTION
    Asked at RCPT TO. A domain that some entry names is complete: what no entry names there gets
    550 5.1.1. About all other domains it has no opinion. It narrows what forkd.toml accepts and never
    widens it: a recipient that [domain] does not know stays refused.

    Use it where a program makes the lists (a directory export, a customers' table); where they are
    written by hand, `mailboxes` below [domain."NAME"] does the same without a plugin.

ENTRIES
        user@example.com           this mailbox
        @example.com               every mailbox of the domain
        sales-*@example.com        wildcards: * stands for any text, ? for one character
        /team-[0-9]+/@example.com  a regular expression (Python's re), which must match the whole
                                   local part
        user@.example.com          likewise at every sub-domain, however deep, the domain itself not
        !ENTRY                     these do not exist, whatever else is listed
        [example.com]              on a line of its own: entries below without an @ belong to it

    Upper and lower case are the same. A detail address (user+detail) is looked up whole, then without
    its detail. postmaster exists everywhere (RFC 5321 4.5.1). Domains outside ASCII may be written as
    they are read or in their xn-- form.

FILE
    UTF-8, one entry a line; empty lines are skipped; # at the start of a line or behind white space
    begins a comment. The files are read once, when forkd starts the plugin. A line that is no entry
    stops that with its file and line number: a typing error must not lose mail.

SETTINGS
    recipients  entries, a list of strings                      default: none
    lists       paths of list files, from the entry's folder;   default: none
                they, or their folder, must be granted too
    detail      sign that separates a detail, "" for none       default: "+"
    text        what the client is told                         default: see plugin.toml

FAILURE
    Without the plugin, mail to mailboxes that do not exist would be taken. The default on_failure,
    "disconnect", turns the client away for now.

COST
    One look-up in a table, and one match per wildcard and expression of the domain. An expression
    that runs for ever on a hostile address is ended by the plugin's `cpu` limit and costs that one
    session; 550 is never said then.
"""

from __future__ import annotations

import re
from typing import Any

from forkd.sdk import Plugin, Recipient, Session, Verdict, deny
from forkd.sdk.listfile import EntryError, checked, domain_name, given, read_entries, take_all, unquoted

_SECTION = re.compile(r"\[([^\[\]:]*[^\[\]:0-9.][^\[\]:]*)\]")
"""A domain in brackets; an address literal has digits, dots and colons only."""


_DETAIL = re.compile(r"[!#$%&'*+./=?^_`{|}~-]")
"""What may stand in a local part without quotes (RFC 5321 4.1.2), but for letters and digits."""


class Mailboxes:
    """The mailboxes of one domain."""

    def __init__(self) -> None:
        self.every = False
        self.names: set[str] = set()
        self.patterns: list[re.Pattern[str]] = []

    def add(self, local: str) -> None:
        """Take the local part of an entry: empty for every one. Raises EntryError."""
        if not local or local == "*":
            self.every = True
        elif len(local) > 1 and local[0] == local[-1] == "/":
            try:
                self.patterns.append(re.compile(local[1:-1], re.IGNORECASE))
            except re.error as why:
                raise EntryError(f"no regular expression: {why}") from None
        elif local[0] != '"' and ("*" in local or "?" in local):
            wild = re.escape(local.lower()).replace(r"\*", ".*").replace(r"\?", ".")
            self.patterns.append(re.compile(wild, re.IGNORECASE | re.DOTALL))
        else:
            self.names.add(unquoted(local).lower())

    def have(self, local: str) -> bool:
        """Is this local part, in lower case, named?"""
        return self.every or local in self.names or any(p.fullmatch(local) for p in self.patterns)


class Table:
    """Mailboxes by domain, and by the parent of sub-domains."""

    def __init__(self) -> None:
        self.domains: dict[str, Mailboxes] = {}
        self.parents: dict[str, Mailboxes] = {}

    def add(self, entry: str) -> None:
        """Take one entry without its "!". Raises EntryError."""
        if any(c.isspace() for c in entry):
            raise EntryError("one entry a line, without spaces")
        local, at, domain = entry.rpartition("@")
        if not at:
            raise EntryError("no @, and no [domain] line above it")
        where = self.domains
        if domain.startswith("."):
            where, domain = self.parents, domain[1:]
        where.setdefault(domain_name(domain), Mailboxes()).add(local)

    def of(self, domain: str) -> list[Mailboxes]:
        """What is said about this domain: by its own name, then by each parent's."""
        found = [self.domains[domain]] if domain in self.domains else []
        while self.parents and (dot := domain.find(".")) >= 0:
            domain = domain[dot + 1 :]
            if domain in self.parents:
                found.append(self.parents[domain])
        return found


class Reader:
    """Takes entries one after the other; remembers the [domain] they stand under."""

    def __init__(self) -> None:
        self.valid, self.invalid = Table(), Table()
        self._section = ""

    def leave_section(self) -> None:
        """A new file or setting begins: what a [domain] line said is over."""
        self._section = ""

    def take(self, entry: str) -> None:
        """One entry or [domain] line. Raises EntryError."""
        if section := _SECTION.fullmatch(entry):
            self._section = domain_name(section[1])
            # Named without a mailbox: none exists.
            self.valid.domains.setdefault(self._section, Mailboxes())
            return
        table, rest = (self.invalid, entry[1:].lstrip()) if entry.startswith("!") else (self.valid, entry)
        if "@" not in rest and self._section and rest:
            rest = f"{rest}@{self._section}"
        table.add(rest)


def detail_sign(text: str) -> str:
    """A sign that can separate a detail, or none. Raises EntryError."""
    if text and not _DETAIL.fullmatch(text):
        raise EntryError(f'{text!r} separates no detail: write one sign such as "+" or "-", or "" for none')
    return text


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Read the lists; refuse to start on a bad entry or an unreadable file."""
    reader = Reader()
    sources = [given("recipients", settings["recipients"]), *map(read_entries, settings["lists"])]
    for source in sources:
        reader.leave_section()
        take_all(source, reader.take, what="these are no recipients")
    valid, invalid = reader.valid, reader.invalid
    separator = checked("detail", detail_sign, settings["detail"])
    refusal = checked("text", deny, "5.1.1", settings["text"])

    def rcpt(session: Session, recipient: Recipient) -> Verdict | None:  # noqa: ARG001 - the hook's form
        domain = recipient.domain.lower().rstrip(".")
        local = recipient.local.lower()
        known = valid.of(domain)
        if local == "postmaster" or not (known or invalid.of(domain)):
            return None
        at = local.find(separator, 1) if separator else -1
        names = (local,) if at < 0 else (local, local[:at])
        if any(mailboxes.have(name) for mailboxes in invalid.of(domain) for name in names):
            return refusal
        if not known or any(mailboxes.have(name) for mailboxes in known for name in names):
            return None
        return refusal

    return Plugin(rcpt=rcpt)
