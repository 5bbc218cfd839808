"""block_senders - refuse mail by the address of its sender

SYNOPSIS
    plugins.d/10-block_senders.toml:

        plugin = "block_senders"

        [settings]
        senders = ["spam.example", "unwanted@"]
        list = "block_senders.list"

        [grants]
        files = ["block_senders.list"]

DESCRIPTION
    Asked at MAIL FROM. A sender that the list names gets 550 5.7.1; nothing else is looked at.
    Entries come from the setting `senders`, from the file in `list`, or from both:

        user@example.com                    this address
        example.com, @example.com,
        *@example.com                       every address at this domain; sub-domains not
        .example.com, *.example.com,
        *@.example.com, *@*.example.com     every address at its sub-domains, however deep; itself not
        user@, user@*                       this local part at any domain
        <>                                  the null sender. Bounces have it: to refuse it is to
                                            refuse the news that your own mail did not arrive
        !ENTRY                              never refuse what ENTRY names, whatever else is listed

    Upper and lower case are the same, in local parts too. No wildcard names the null sender.
    Domains outside ASCII may be written as they are read or in their xn-- form.

FILE
    UTF-8, one entry a line; empty lines are skipped; # at the start of a line or behind white
    space begins a comment. The file is read once, when forkd starts the plugin. A line that is no
    entry stops that with its file and line number: a typing error must not let mail through.

SETTINGS
    senders  entries, a list of strings                           default: none
    list     path of a list file, from the entry's folder; it     default: none
             must be granted too
    text     what the client is told                              default: see plugin.toml

FAILURE
    Without the plugin, mail that you wanted refused would come in. The default on_failure,
    "disconnect", turns the client away for now; "skip" lets it in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from forkd.sdk import Plugin, Sender, Session, Verdict, deny
from forkd.sdk.listfile import EntryError, checked, domain_name, given, read_entries, take_all, unquoted


class SenderList:
    """Entries by kind, so that a sender is looked up in a few steps however long the list is."""

    def __init__(self) -> None:
        self.addresses: set[str] = set()
        self.domains: set[str] = set()
        self.parents: set[str] = set()
        """Domains whose sub-domains are meant."""
        self.users: set[str] = set()
        self.null = False

    def add(self, entry: str) -> None:
        """Take one entry without its "!". Raises EntryError."""
        if entry == "<>":
            self.null = True
            return
        local, at, domain = entry.lower().rpartition("@")
        if any(c.isspace() for c in entry):
            raise EntryError("one entry a line, without spaces")
        if at and not local and not domain:
            raise EntryError("neither a user nor a domain")
        if at and local not in ("", "*"):
            if "*" in local:
                raise EntryError("* stands for the whole local part or for nothing")
            local = unquoted(local)
            if domain in ("", "*"):
                self.users.add(local)
            else:
                self.addresses.add(f"{local}@{domain_name(domain)}")
            return
        if domain.startswith("*."):
            domain = domain[1:]
        if domain.startswith("."):
            self.parents.add(domain_name(domain[1:]))
        elif domain in ("", "*"):
            raise EntryError("this would be everybody")
        else:
            self.domains.add(domain_name(domain))

    def names(self, sender: Sender) -> bool:
        """Is this sender listed?"""
        if not sender:
            return self.null
        local = sender.local.lower()
        domain = sender.domain.lower().rstrip(".")
        if domain in self.domains or local in self.users or f"{local}@{domain}" in self.addresses:
            return True
        while self.parents and (dot := domain.find(".")) >= 0:
            domain = domain[dot + 1 :]
            if domain in self.parents:
                return True
        return False


def load_lists(entries: Iterable[tuple[str, str]]) -> tuple[SenderList, SenderList]:
    """Blocked senders and exceptions. Raises EntryError with every bad line."""
    blocked, allowed = SenderList(), SenderList()

    def take(entry: str) -> None:
        if entry.startswith("!"):
            allowed.add(entry[1:].lstrip())
        else:
            blocked.add(entry)

    take_all(entries, take, what="these are no senders")
    return blocked, allowed


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Read the list; refuse to start on a bad entry or an unreadable file."""
    entries = list(given("senders", settings["senders"]))
    if path := settings["list"]:
        entries += read_entries(path)
    blocked, allowed = load_lists(entries)
    refusal = checked("text", deny, "5.7.1", settings["text"])

    def mail(session: Session, sender: Sender) -> Verdict | None:  # noqa: ARG001 - the hook's form
        if blocked.names(sender) and not allowed.names(sender):
            return refusal
        return None

    return Plugin(mail=mail)
