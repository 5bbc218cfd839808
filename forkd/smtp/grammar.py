"""Is this text a path, a name, a literal? The grammar of RFC 5321 4.1.2 and 4.1.3, as patterns.

Every pattern costs no more than the length of its line, however that is made: two neighbours that
repeat never share an octet, but for labels, which are bounded. Possessive quantifiers would say so
more plainly, but Python 3.11.2 (Debian 12) matches `<a@>` with one: cpython gh-106052. All patterns
work on octets: what is not ASCII matches none.
"""

from __future__ import annotations

import ipaddress
import re

from forkd.smtp import replies
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply

MAX_PATH_OCTETS = 256
"""With the angle brackets (RFC 5321 4.5.3.1.3). The 64 octets of 4.5.3.1.1 for a local part are not
enforced: variable envelope return paths and SRS go beyond them daily, and servers take those."""
MAX_DOMAIN_OCTETS = 255
"""RFC 5321 4.5.3.1.2."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
# `_` is no letter of RFC 5321, but stands in names that send real mail, and is harmless.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[\x21-\x5a\x5e-\x7e]+\]"
_ROUTE = rf"@{_DOMAIN}(?:,@{_DOMAIN})*:"

_PATH = re.compile(
    # A source route is read and dropped (RFC 5321 appendix C).
    rf" *<(?:(?:{_ROUTE})?(?:({_DOT_STRING})|({_QUOTED}))(?:@(?:({_DOMAIN})|({_LITERAL})))?)?>".encode()
)
_HELLO = re.compile(
    # Wider than the grammar: bare IPv6 addresses, literals we do not look into. A name is a claim, fit for a
    # log and a trace header; what it is worth is a plugin's question (RFC 5321 4.1.4).
    rf"(?:[A-Za-z0-9_:][A-Za-z0-9_:.-]*|{_LITERAL})".encode()
)
_QUOTED_PAIR = re.compile(rb"\\(.)")
_TEXT = re.compile(rb"[\x20-\x7e]*")


def path(text: bytes, wrong: Reply) -> tuple[Mailbox | None, bytes] | Reply:
    """Read a reverse or forward path: the mailbox, or None for `<>`; and the octets behind it.

    A mailbox without a domain has the empty one: whether that may be is for the command to say.
    Otherwise the Reply to what is wrong: `wrong` for bad syntax, 501 5.5.4 for more than 256 octets,
    553 5.6.7 for octets above 127 (RFC 6531 3.5 without SMTPUTF8).
    """
    match = _PATH.match(text)
    if match is None:
        return wrong if text.isascii() else replies.ADDRESS_NOT_ASCII
    end = match.end()
    if end > MAX_PATH_OCTETS and end - text.index(b"<") > MAX_PATH_OCTETS:
        return replies.ADDRESS_TOO_LONG
    dot_string, quoted, domain, literal = match.groups()
    if dot_string is not None:
        local = dot_string.decode("ascii")
    elif quoted is not None:
        local = _QUOTED_PAIR.sub(rb"\1", quoted[1:-1]).decode("ascii")
    else:
        return None, text[end:]
    host: str | None = ""
    if domain is not None:
        host = domain.decode("ascii").lower()  # 255 octets at most, as the path has 256
    elif literal is not None:
        host = address_literal(literal)
    return wrong if host is None else (Mailbox(local, host), text[end:])


def address_literal(literal: bytes) -> str | None:
    """The canonical form of `[192.0.2.1]` or `[IPv6:2001:db8::1]`, or None if it is neither.

    RFC 5321 4.1.3. Tags other than IPv6 are not registered, so none is known to us.
    """
    text = literal[1:-1].decode("ascii")
    tag, colon, address = text.partition(":")
    try:
        if not colon:
            return f"[{ipaddress.IPv4Address(text)}]"
        if tag.lower() == "ipv6" and "%" not in address:  # a zone says nothing outside its host (RFC 6874)
            return f"[IPv6:{ipaddress.IPv6Address(address)}]"
    except ValueError:
        pass
    return None


def hello_name(text: bytes) -> str | None:
    """The name given to HELO or EHLO, as written, or None where it is none (RFC 5321 4.1.1.1)."""
    if len(text) > MAX_DOMAIN_OCTETS or not _HELLO.fullmatch(text):
        return None
    return text.decode("ascii")


def printable(text: bytes) -> str | None:
    """The text of an argument, or None where it is not printable ASCII (RFC 5321 4.1.2, String)."""
    return text.decode("ascii") if _TEXT.fullmatch(text) else None
