"""headers - check the header of messages, add and remove fields

SYNOPSIS
    plugins.d/50-headers.toml:

        plugin = "headers"

        [settings]
        require = ["From", "Date"]
        once = ["From", "Sender", "Subject", "Date", "Message-ID"]
        refuse = ["Subject: *casino*", "X-Mailer: /^bulk/ => no bulk mailers here"]
        max_fields = 500
        max_header = 262144
        remove = ["X-Internal-*"]
        add = ["X-Checked: yes"]

        [grants]
        reads = ["headers"]
        edit_headers = ["X-Internal-*", "X-Checked"]

DESCRIPTION
    Asked after the end of data. Checks come first, in the order of this page; the first that fails
    refuses the message. Then fields are removed and added.

        max_fields, max_field, max_header  counts and sizes: 552 5.3.4
        require                            a missing field: 550 5.6.0
        once                               a field that stands there twice, which mail readers and
                                           signatures take differently: 550 5.6.0
        refuse, rules                      a field that a rule names: 550 5.7.1

RULES
        NAME: PATTERN               a wildcard that the whole value must match: * stands for any text,
                                    ? for one character
        NAME: /PATTERN/             a regular expression (Python's re), found anywhere in the value
        NAME:                       the field is there, whatever it says
        RULE => TEXT                what the client is told

    NAME may end in * for any rest. Upper and lower case are the same, in values too. Values are looked
    at unfolded, both as they stand there and with RFC 2047 words decoded, so that =?utf-8?B?...?= hides
    nothing.

FILE
    Rules one a line; otherwise as the list files of the plugin recipients. A line that is no rule stops
    forkd's start with its file and line number.

SETTINGS
    add, remove, refuse, rules, require, once                  default: none
    max_fields, max_field, max_header                          default: 0, no limit
    text                                                       default: see plugin.toml

    A field that add or remove names must be granted below edit_headers. Received, Return-Path and
    Delivered-To can be neither added nor removed: loop detection and delivery rest on them. A message
    with more than 256 differently named fields to remove is refused: 552 5.3.4.

FAILURE
    Without the plugin, mail that you wanted refused would come in. The default on_failure, "disconnect",
    turns the client away for now; where it adds or removes fields, "skip" is refused.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Any

from forkd.sdk import Edit, Envelope, Message, Plugin, Session, Verdict, add_header, delete_header, deny
from forkd.sdk.headers import Headers, decode_words
from forkd.sdk.listfile import EntryError, checked, given, read_entries, take_all

_NAME = re.compile(r"[!-9;-~]+")
MAX_HEADER_EDITS = 256
"""Of one message, as forkd takes them: more would be a breach, and the client turned away again and again."""


class Rule:
    """One line of `refuse` or of a rules file."""

    __slots__ = ("_name", "_pattern", "refusal")

    def __init__(self, text: str, default: str) -> None:
        """Raises EntryError."""
        what, arrow, told = text.partition(" => ")
        name, colon, pattern = what.partition(":")
        if not colon:
            raise EntryError("no rule: write NAME: PATTERN")
        self._name = wild_name(name.strip())
        self._pattern = _pattern(pattern.strip())
        try:
            self.refusal = deny("5.7.1", told.strip() if arrow else default)
        except ValueError as why:
            raise EntryError(str(why)) from None

    def matches(self, name: str, *values: str) -> bool:
        """Does it name this field? `name` in lower case."""
        return covers(self._name, name) and any(self._pattern.search(value) for value in values)


def field_name(text: str, *, wild: bool = False) -> str:
    """A field's name in lower case, with a * at its end where that is allowed. Raises EntryError."""
    if not _NAME.fullmatch(text) or "*" in text[: -1 if wild else None]:
        rest = ", a * at its end for any rest" if wild else ", as in Subject"
        raise EntryError(f"{text!r} is no name of a header field: printable ASCII without spaces and :{rest}")
    return text.lower()


def wild_name(text: str) -> str:
    """The same, with a * at its end or without. Raises EntryError."""
    return field_name(text, wild=True)


def covers(wanted: str, name: str) -> bool:
    """Is a name, in lower case, the wanted one, or does it begin as that does before its *?"""
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def _pattern(text: str) -> re.Pattern[str]:
    if not text:
        return re.compile("")
    if len(text) > 1 and text[0] == text[-1] == "/":
        try:
            return re.compile(text[1:-1], re.IGNORECASE)
        except re.error as why:
            raise EntryError(f"no regular expression: {why}") from None
    return re.compile(rf"\A{fnmatch.translate(text)}", re.IGNORECASE)


class Checks:
    """What a header must be like."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Raises EntryError with every bad line."""
        self._limits = (settings["max_fields"], settings["max_field"], settings["max_header"])
        self._require = [(name, checked("require", field_name, name)) for name in settings["require"]]
        self._once = [(name, checked("once", field_name, name)) for name in settings["once"]]
        checked("text", deny, "5.7.1", settings["text"])
        self._rules: list[Rule] = []
        for source in (given("refuse", settings["refuse"]), *map(read_entries, settings["rules"])):
            take_all(
                source,
                lambda line: self._rules.append(Rule(line, settings["text"])),
                what="these are no rules",
            )

    def refusal(self, headers: Headers) -> Verdict | None:
        """The first check that fails, as a verdict."""
        fields, field, whole = self._limits
        if fields and len(headers) > fields:
            return deny("5.3.4", f"more than {fields} header fields", code=552)
        if whole and len(headers.raw) > whole:
            return deny("5.3.4", f"more than {whole} octets of header", code=552)
        if field and any(len(octets) > field for _, octets in headers.raw_fields()):
            return deny("5.3.4", f"a header field of more than {field} octets", code=552)
        count: dict[str, int] = {}
        for name in headers:
            count[name.lower()] = count.get(name.lower(), 0) + 1
        for shown, name in self._require:
            if not count.get(name):
                return deny("5.6.0", f"the header field {shown} is missing (RFC 5322 3.6)")
        for shown, name in self._once:
            if count.get(name, 0) > 1:
                return deny("5.6.0", f"the header field {shown} may be there once (RFC 5322 3.6)")
        return self._ruled_out(headers) if self._rules else None

    def _ruled_out(self, headers: Headers) -> Verdict | None:
        for name, value in headers.items():
            low = name.lower()
            values = (value, decode_words(value)) if "=?" in value else (value,)
            for rule in self._rules:
                if rule.matches(low, *values):
                    return rule.refusal
        return None


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Compile the rules; refuse to start on a bad one or an unreadable file."""
    checks = Checks(settings)
    removed = [checked("remove", wild_name, name) for name in settings["remove"]]
    added: list[Edit] = []
    for text in settings["add"]:
        name, colon, value = text.partition(":")
        if not colon or not value.strip():
            raise EntryError(f"setting add: {text!r} is no field: write NAME: VALUE")
        added.append(checked("add", add_header, name.strip(), value.strip()))

    def message(session: Session, envelope: Envelope, message: Message) -> Verdict | list[Edit] | None:  # noqa: ARG001
        headers = message.headers
        refusal = checks.refusal(headers)
        if refusal is not None:
            return refusal
        if not removed and not added:
            return None
        edits: list[Edit] = []
        gone: set[str] = set()
        for name in headers:
            low = name.lower()
            if low not in gone and any(covers(wanted, low) for wanted in removed):
                gone.add(low)
                edits.append(delete_header(name))
        edits += added
        if len(edits) > MAX_HEADER_EDITS:
            return deny("5.3.4", "more header fields than this server takes away", code=552)
        return edits

    return Plugin(message=message)
