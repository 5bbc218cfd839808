"""attachments - refuse or quarantine mail by the names and types of its attachments

SYNOPSIS
    plugins.d/60-attachments.toml:

        plugin = "attachments"

        [settings]
        types = ["application/x-dosexec"]
        action = "refuse"

        [grants]
        reads = ["body"]

DESCRIPTION
    Asked after the end of data. Looks at every part of the message, those of attached messages too,
    and at what lies in archives. A part stops the message when one of its names matches an entry of
    `names`, or when its declared or detected type matches one of `types`.

    A part has every name that its header gives it, in plain, quoted, RFC 2047 or RFC 2231 form, since
    mail readers differ in which they take; a uuencoded file in a text has the name of its begin line.
    Names are compared without case, without white space, dots and quotes at their end (Windows drops the
    first two), without what stands before the last / or \\ or behind a colon (a stream of NTFS) or a NUL,
    without signs that are not seen (as those that turn the direction of writing), and with letters of
    full width and the like as the plain ones.

    A type is detected from the first octets of the part or archive member:

        application/x-dosexec            a program for Windows (MZ)
        application/x-executable         a program for Unix (ELF)
        application/x-mach-binary        a program for macOS
        text/x-shellscript               #! on the first line
        application/zip                  and gzip, x-bzip2, x-xz, x-tar, x-7z-compressed, x-rar
        application/x-ole-storage        Office documents of old, and .msi
        application/pdf

    An archive is known by its octets, not by its name, so that `photo.jpg` that is a zip, or that has
    one at its end, is looked into. Zip (both its directory and the names before each member, which need
    not agree), tar, gzip, bzip2 and xz are read, damaged ones as far as they go; 7z, rar and Outlook's
    winmail.dat are not: put "*.7z", "*.rar" and "winmail.dat" into `names`, or their types into `types`
    (application/ms-tnef), if that is not wanted.

    With action = "quarantine" the mail is taken and held: see `forkd queue list` and `release`.

BOUNDS
    max_depth archives within each other, max_members names, max_unpacked octets. What goes beyond is
    made to hide something, and stops the message like a forbidden name. So do more than 2,000 parts, 1 MiB
    of their headers, names of more than 1,000 signs or of 4 million in all, more than 1,000 uuencoded files
    or 500,000 lines of them, base64 in 100,000 pieces, and parts that have to be read again and again.

SETTINGS
    names         forbidden names, wildcards * and ?          default: what large providers refuse
    types         forbidden types, wildcards * and ?          default: none
    action        refuse | quarantine                         default: refuse
    archives      look into archives                          default: true
    encrypted     archives with a password: pass | stop       default: pass
    damaged       archives that cannot be read: pass | stop   default: pass
    max_depth     1 to 50                                     default: 4
    max_members   at least 1                                  default: 10000
    max_unpacked  octets, at least 1                          default: 67108864
    text          what the client is told                     default: see plugin.toml

FAILURE
    Without the plugin, forbidden attachments would come in. The default on_failure, "disconnect",
    turns the client away for now.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator
from typing import Any
from unicodedata import category, normalize

from attachment_archives import READABLE, SNIFF_OCTETS, Bounds, Member, detect, is_zip, members
from attachment_unpack import BeyondBounds, Texts, uuencoded

from forkd.sdk import Envelope, Message, Plugin, Session, Verdict, deny, quarantine
from forkd.sdk.listfile import checked
from forkd.sdk.mime import Part, Walk

_MAX_SHOWN = 80
_MAX_NAME = 1_000
"""Signs; no file system takes more than 255."""
_MAX_SIGNS = 4_000_000
"""Of all names in a message, as they are compared: what is one sign in a mail may be eighteen then."""
_MAX_PATH = 2 * _MAX_NAME
"""Of a path's end, in which its name is looked for."""
_MAX_UUENCODED, _MAX_LINES = 1_000, 500_000
"""Files, and their lines, in one message: 500,000 lines are 21 MiB."""
_READ_AGAIN = 4
"""How often the octets of a message may be read as parts: odd readings come beside the usual one."""
_INVISIBLE = re.compile(f"[{''.join(c for c in map(chr, range(0x11_0000)) if category(c) == 'Cf')}]")
_WILD = re.compile(r"[*?\[]")


class Rules:
    """What is not taken."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Raises ValueError."""
        names = [checked("names", _name, wildcard.strip().lower()) for wildcard in settings["names"]]
        types = [checked("types", _type, wildcard.strip().lower()) for wildcard in settings["types"]]
        # Nearly all are endings, and a pattern of fifty alternatives is slow on long names.
        endings = {name for name in names if name[:1] == "*" and not _WILD.search(name[1:])}
        self._endings = tuple(sorted(name[1:] for name in endings))
        self._names = _any_of(name for name in names if name not in endings)
        self._types = _any_of(types)
        self._signs = _MAX_SIGNS
        self._facts = {fact for fact in ("encrypted", "damaged") if settings[fact] == "stop"}

    def begin(self) -> None:
        """Another message."""
        self._signs = _MAX_SIGNS

    def stop(self, name: str, *types: str) -> str:
        """Why a file of this name and these types is not taken; empty when it is. Raises BeyondBounds."""
        for compared in plain(name):
            self._signs -= len(compared)
            if self._signs < 0:
                raise BeyondBounds("more signs of names than are looked at")
            if len(compared) > _MAX_NAME:
                return f"a name of more than {_MAX_NAME} signs {shown(name)}"
            if compared.endswith(self._endings) or self._names.fullmatch(compared):
                return f"name {shown(name)}"
        for media_type in types:
            if media_type and self._types.fullmatch(media_type):
                return f"type {shown(media_type)}"
        return ""

    def stop_member(self, member: Member) -> str:
        """The same for what lies in an archive."""
        if member.fact:
            return f"{member.fact} archive {shown(member.path)}" if member.fact in self._facts else ""
        why = self.stop(member.name, member.type)
        return f"{why} in {shown(member.path)}" if why else ""


def findings(message: bytes, rules: Rules, bounds: Bounds | None) -> Iterator[str]:
    """Why this message is stopped, one text per reason, in the order found.

    bounds  for looking into archives; None: they are not looked into.
    """
    rules.begin()
    walk = Walk(message)
    texts = Texts(_MAX_UUENCODED, _MAX_LINES)
    room = _READ_AGAIN * (len(message) + SNIFF_OCTETS)
    try:
        for part in walk:
            room -= part.size
            if walk.cut or room < 0:
                break
            yield from filter(None, _part(part, rules, bounds, texts))
    except BeyondBounds as why:
        yield shown(str(why))
    if walk.cut:
        yield "more parts than are looked at"
    elif room < 0:
        yield "more readings of its parts than are looked at"


def _part(part: Part, rules: Rules, bounds: Bounds | None, texts: Texts) -> Iterator[str]:
    names = [name.rstrip("/\\") for name in part.names] or [""]
    for head in part.readings(SNIFF_OCTETS):
        for name in names:
            yield rules.stop(name, part.content_type, detect(head))
    if part.encoding in _AS_IT_STANDS or part.content_type.startswith("text/"):
        for name, content in uuencoded(part.content(), texts):
            yield rules.stop(name, detect(content[:SNIFF_OCTETS]))
            yield from _archive(content, name, rules, bounds)
    for content in part.readings() if bounds is not None else ():
        yield from _archive(content, names[0] or "unnamed", rules, bounds)


def _archive(content: bytes, path: str, rules: Rules, bounds: Bounds | None) -> Iterator[str]:
    """What lies in it that is not taken, if it is an archive and they are looked into."""
    if bounds is None:
        return
    detected = detect(content[:SNIFF_OCTETS])
    if detected not in READABLE and is_zip(content):
        detected = "application/zip"
    if detected in READABLE:
        for member in members(content, detected, path, bounds):
            yield rules.stop_member(member)


def plain(name: str) -> set[str]:
    """A name as it is compared: its last part, lower case, without white space and dots at its end.

    Several where programs differ: with what stands behind a NUL or a colon, and without it.
    """
    if not name:
        return {""}
    if not name.isascii():
        name = _INVISIBLE.sub("", normalize("NFKC", name[-_MAX_PATH:]))
    last = re.split(r"[/\\]", name)[-1]
    found = {last, last.partition("\0")[0], last.partition(":")[0]}
    return {one.replace("\0", "").strip().rstrip(" .\t\r\n\"'").lower() for one in found}


def shown(text: str) -> str:
    """A stranger's text for a log line: printable ASCII, bounded."""
    safe = "".join(c if " " <= c <= "~" else "?" for c in text)
    return safe if len(safe) <= _MAX_SHOWN else f"{safe[: _MAX_SHOWN - 3]}..."


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Compile the rules; refuse to start on a name or type that could never match, or always."""
    rules = Rules(settings)
    refusal = checked("text", deny, "5.7.1", settings["text"])
    holds = settings["action"] == "quarantine"

    def message(session: Session, envelope: Envelope, message: Message) -> Verdict | None:  # noqa: ARG001
        bounds = None
        if settings["archives"]:
            bounds = Bounds(settings["max_depth"], settings["max_members"], settings["max_unpacked"])
        for why in findings(_whole(message), rules, bounds):
            if holds:
                return quarantine(f"attachment: {why}")
            print(f"refused: {why}", flush=True)
            return refusal
        return None

    return Plugin(message=message)


def _whole(message: Message) -> bytes:
    raw = message.headers.raw
    # A header that ends at a line which is no field has no empty line behind it, and gets none here.
    return raw + (b"" if message.header_size == len(raw) else b"\r\n") + message.body


_AS_IT_STANDS = ("", "7bit", "8bit", "binary", "x-uuencode", "x-uue", "uuencode")
_MEDIA_TYPE = re.compile(r"[^\s/;,]+/[^\s/;,]+|[^\s/;,]*\*[^\s/;,]*")
"""With wildcards; a lone * may stand for both halves and the / between them."""


def _name(wildcard: str) -> str:
    """A forbidden name that some name can match, and not every part does. Raises ValueError."""
    if not wildcard.strip("*"):
        raise ValueError(f'{wildcard!r} would be every part, texts too: write "?*" for all that have a name')
    if plain(wildcard.replace("?", "x").replace(":", "x")) != {wildcard.replace("?", "x").replace(":", "x")}:
        raise ValueError(
            f"{wildcard!r} matches no name: they are compared without folders, and without dots, spaces and "
            'quotes at their end; write it like "*.exe"'
        )
    return wildcard


def _type(wildcard: str) -> str:
    """The same for a type. Raises ValueError."""
    if not _MEDIA_TYPE.fullmatch(wildcard):
        raise ValueError(
            f'{wildcard!r} is no media type: write TYPE/SUBTYPE, as in "application/zip" or "image/*"'
        )
    if not wildcard.strip("*/"):
        raise ValueError(f'{wildcard!r} would be every part, texts too: name the types, as in "image/*"')
    return wildcard


def _any_of(wildcards: Iterable[str]) -> re.Pattern[str]:
    """One pattern for all of them; one that matches nothing for none."""
    return re.compile("|".join(map(fnmatch.translate, wildcards)) or r"(?!)")
