"""filter - replace text in the bodies of messages

SYNOPSIS
    plugins.d/70-filter.toml:

        plugin = "filter"

        [settings]
        replace = [
            'card-[0-9]{12,19} => [card number removed]',
            '(?i)project (\\w+)-x => project \\1',
        ]

        [grants]
        reads = ["body"]
        edit_body = true
        edit_headers = ["X-Filtered"]

DESCRIPTION
    Asked after the end of data. In every text part (of `types`) each PATTERN, a regular expression as
    Python's re has them, is replaced by TEXT, in which \\1 stands for a group. Parts keep their charset
    and their transfer encoding; where a replacement has signs that the charset lacks, they become "?".
    Lines end in LF for the patterns, whatever they end in on the wire. All other parts, and a message in
    which nothing is found, are handed on octet by octet as they came.

    Attached messages are looked into, unless they are base64 themselves; archives and encrypted parts
    are not. A DKIM signature over the old body does not hold for the new one: put this behind whatever
    checks signatures.

    It is a plugin of 60 lines and shows how a body is replaced: read it before you write your own.

SETTINGS
    replace  rules, PATTERN => TEXT                            must be given
    types    media types that are looked at, no wildcards      default: text/plain, text/html
    header   add X-Filtered: replacements=N                    default: true

FAILURE
    A message whose text was not replaced is not the one you wanted: `skip` is refused. The default
    on_failure, "disconnect", turns the client away for now.
"""

from __future__ import annotations

import base64
import quopri
import re
from typing import Any

from forkd.sdk import Edit, Envelope, Message, Plugin, Session, add_header, replace_body
from forkd.sdk.listfile import checked
from forkd.sdk.mime import Part, Walk

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
"""RFC 6838 4.2; no wildcards."""
Rule = tuple[re.Pattern[str], str]


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Compile the rules; refuse to start on one that is none."""
    rules = [checked("replace", rule, text) for text in settings["replace"]]
    types = frozenset(checked("types", media_type, name) for name in settings["types"])
    for name in ("replace", "types"):
        if not settings[name]:
            raise ValueError(f"setting {name}: an empty list, with which nothing is ever replaced")

    def message(session: Session, envelope: Envelope, message: Message) -> list[Edit] | None:  # noqa: ARG001
        head = message.headers.raw + b"\r\n"
        whole = head + message.body
        kept = len(head)
        new: list[bytes] = []
        count = 0
        for part in Walk(whole):
            if part.span is None or part.content_type not in types or part.span[0] < kept:
                continue
            content, found = replaced(part, rules)
            if found:
                count += found
                new += (whole[kept : part.span[0]], content)
                kept = part.span[1]
        if not count:
            return None
        edits: list[Edit] = [replace_body(b"".join([*new, whole[kept:]]))]
        if settings["header"]:
            edits.append(add_header("X-Filtered", f"replacements={count}"))
        return edits

    return Plugin(message=message)


def rule(text: str) -> Rule:
    """PATTERN => TEXT. Raises ValueError."""
    pattern, arrow, new = text.partition("=>")
    if not arrow or not pattern.strip():
        raise ValueError(f"{text!r} is no rule: write PATTERN => TEXT")
    try:
        compiled = re.compile(pattern.strip())
        re.sub(compiled, new.strip(), "")
        return compiled, new.strip()
    except re.error as why:
        raise ValueError(f"{text!r} is no rule: {why}") from None


def media_type(text: str) -> str:
    """A type of parts that have a text, in lower case. Raises ValueError."""
    name = text.strip().lower()
    if not _MEDIA_TYPE.fullmatch(name) or name.startswith("multipart/"):
        raise ValueError(f'{text!r} is no media type of a text: write TYPE/SUBTYPE, as in "text/plain"')
    return name


def replaced(part: Part, rules: list[Rule]) -> tuple[bytes, int]:
    """The part's new octets as they stand in the message, and how many replacements there were."""
    try:
        text = part.content().decode(part.charset, "surrogateescape").replace("\r\n", "\n")
        count = 0
        for pattern, new in rules:
            text, found = pattern.subn(new, text)
            count += found
        if not count:
            return b"", 0
        octets = _encoded(text.replace("\n", "\r\n"), part.charset)
    except (LookupError, ValueError):
        return b"", 0  # a charset nobody knows
    if part.encoding == "base64":
        return base64.encodebytes(octets).replace(b"\n", b"\r\n"), count
    if part.encoding == "quoted-printable":
        coded = quopri.encodestring(octets.replace(b"\r\n", b"\n"))
        return coded.replace(b"\n", b"\r\n"), count
    return octets, count


def _encoded(text: str, charset: str) -> bytes:
    """Octets that were no text come out as they went in; signs the charset lacks become "?"."""
    try:
        return text.encode(charset, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(charset, "replace")
