"""Which Maildir is an address', whatever stands in it? Pure: paths in, paths out.

Names come from outside. Each becomes one component of a path that leads nowhere else, and no two of them
become the same one: what is unusual is written as %XX, and what is too long is cut and told apart by a sum.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from forkd.config.maildir_schema import Maildir
from forkd.deliver.transport import Target

_SAFE = re.compile(r"[a-z0-9_=+-][a-z0-9._=+-]*")
_UNSAFE_OCTET = re.compile(rb"[^a-zA-Z0-9._=+-]|^\.")
MAX_PART: Final = 200
"""Octets of one path component (NAME_MAX is 255); longer names are cut and told apart by a sum."""

_SUBFOLDER = re.compile(r"[A-Za-z0-9_=+-]+(\.[A-Za-z0-9_=+-]+)*")
"""A folder's name as IMAP clients see it, `.` between its levels; what is outside of this (`..`, blanks,
other scripts, of which Maildir++ has a form of its own) names none, and its mail goes to the inbox."""


class UnusualNameError(Exception):
    """The name cannot be a folder as it is (unusual = "refuse"); the text is for the log."""


class Mailboxes:
    """A transport's Maildirs. Paths without an end slash, from / on.

    root  where a relative path begins
    """

    def __init__(self, settings: Maildir, root: str) -> None:
        self._settings = settings
        self._root = root
        # Bounded: names come from outside.
        self._filled = functools.lru_cache(maxsize=1000)(self._fill)

    def inbox(self, target: Target) -> str:
        """The Maildir of a recipient. Raises UnusualNameError."""
        return self._filled(self._settings.path, target.domain, target.mailbox, target.detail)

    def subfolder(self, inbox: str, target: Target) -> str:
        """What the address' detail names in that Maildir (Maildir++); empty: nothing."""
        detail = target.detail
        if not detail or len(detail) > MAX_PART or not _SUBFOLDER.fullmatch(detail):
            return ""
        # That one is the Maildir itself, however it is written (RFC 9051 5.1).
        return "" if detail.lower() == "inbox" else f"{inbox}/.{detail}"

    def catch_all(self, target: Target) -> str:
        """Where mail goes for who has no Maildir; empty: nowhere. Raises UnusualNameError."""
        path = self._settings.catch_all
        return path and self._filled(path, target.domain, target.mailbox, target.detail)

    def _fill(self, path: str, domain: str, user: str, detail: str) -> str:
        if "{detail}" in path:
            if detail:
                path = path.replace("{detail}", self._part(detail))
            else:
                path = "/".join(part for part in path.split("/") if "{detail}" not in part)
        if "{domain}" in path:
            path = path.replace("{domain}", safe(domain))
        if "{user}" in path:
            path = path.replace("{user}", self._part(user))
        return path if path.startswith("/") else f"{self._root}/{path}"

    def _part(self, name: str) -> str:
        made = safe(name)
        if self._settings.unusual == "refuse" and made != name.lower():
            raise UnusualNameError("this name is no folder of the mail store (unusual)")
        return made


def safe(part: str) -> str:
    """A domain or user as one path component: never empty, never `..`, no two names alike.

    Small letters, digits and `. _ = + -` stay; every other octet, and a dot in front, becomes %XX.
    """
    text = part.lower()
    if _SAFE.fullmatch(text) and len(text) <= MAX_PART:
        return text
    octets = text.encode("utf-8", "surrogateescape")
    text = _UNSAFE_OCTET.sub(lambda found: b"%%%02X" % found[0][0], octets).decode("ascii") or "%"
    if len(text) > MAX_PART:
        import hashlib  # noqa: PLC0415 - only names nobody has

        text = text[: MAX_PART - 34] + "%%" + hashlib.blake2b(octets, digest_size=16).hexdigest()
    return text
