"""What can this server do? Its reply to EHLO, read (RFC 5321 4.1.1.1)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_LIMIT: Final = re.compile(r"([A-Z]+)=0*([1-9][0-9]{0,5})", re.I)
"""RFC 9422 4: one to six digits, and never naught."""
_MECHANISM: Final = re.compile(r"[A-Z0-9_-]{1,20}")
_MAX_MECHANISMS: Final = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Offered:
    """What one server has announced, on this connection and under this encryption."""

    name: str = ""
    """Who it says that it is."""
    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    chunking: bool = False
    dsn: bool = False
    starttls: bool = False
    enhanced: bool = False
    sized: bool = False
    """MAIL may have SIZE."""
    size: int | None = None
    """The largest message, octets; None: not said (RFC 1870 4: SIZE without a number, or 0)."""
    auth: tuple[str, ...] = ()
    recipients: int | None = None
    """Of one transaction (RFC 9422 RCPTMAX); None: not said."""
    transactions: int | None = None
    """Of one connection (MAILMAX)."""
    domains: int | None = None
    """Of the recipients of one connection (RCPTDOMAINMAX)."""


def _size(words: list[str]) -> dict[str, Any]:
    size = int(words[0]) if words and _NUMBER.fullmatch(words[0]) else 0
    return {"sized": True, "size": size or None}


def _auth(words: list[str]) -> dict[str, Any]:
    names = dict.fromkeys(word.upper() for word in words)
    return {"auth": tuple(name for name in names if _MECHANISM.fullmatch(name))[:_MAX_MECHANISMS]}


_LIMITS: Final = {"RCPTMAX": "recipients", "MAILMAX": "transactions", "RCPTDOMAINMAX": "domains"}


def _limits(words: list[str]) -> dict[str, Any]:
    found = [match for word in words if (match := _LIMIT.fullmatch(word))]
    return {_LIMITS[m[1].upper()]: int(m[2]) for m in found if m[1].upper() in _LIMITS}


def _flag(field: str) -> Callable[[list[str]], dict[str, Any]]:
    return lambda _: {field: True}


_KEYWORDS: Final[Mapping[str, Callable[[list[str]], dict[str, Any]]]] = {
    "PIPELINING": _flag("pipelining"),  # RFC 2920
    "8BITMIME": _flag("eight_bit"),  # RFC 6152
    "SMTPUTF8": _flag("smtputf8"),  # RFC 6531
    "CHUNKING": _flag("chunking"),  # RFC 3030
    "DSN": _flag("dsn"),  # RFC 3461
    "STARTTLS": _flag("starttls"),  # RFC 3207
    "ENHANCEDSTATUSCODES": _flag("enhanced"),  # RFC 2034
    "SIZE": _size,  # RFC 1870
    "AUTH": _auth,  # RFC 4954
    "LIMITS": _limits,  # RFC 9422
}
"""What of each keyword concerns us; all others are for somebody else."""


def read(lines: tuple[str, ...]) -> Offered:
    """The lines of a 250 to EHLO or LHLO. What cannot be understood is not offered; of two, the last is."""
    found: dict[str, Any] = {}
    for line in lines[1:]:
        # Old servers write "AUTH=LOGIN", some beside the proper line: what both name can be had.
        keyword, *words = line.replace("AUTH=", "AUTH ", 1).split() or [""]
        read_words = _KEYWORDS.get(keyword.upper())
        if read_words is not None:
            values = read_words(words)
            if "auth" in values:
                values["auth"] = tuple(dict.fromkeys((*found.get("auth", ()), *values["auth"])))
            found.update(values)
    return Offered(name=(lines[0].split() or [""])[0], **found)


HELO_ONLY: Final = Offered()
"""What a server can do that knows HELO and nothing else."""
