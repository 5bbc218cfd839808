"""Is this text a path, a name, a literal? The grammar of RFC 5321 4.1.2 and 4.1.3, as patterns.

Every pattern costs no more than the length of its line, however that is made: two neighbours that
repeat never share an octet, but for labels, which are bounded. Possessive quantifiers would say so
more plainly, but Python 3.11.2 (Debian 12) matches `<a@>` with one: cpython gh-106052. The patterns
work on octets, and what is not ASCII matches none; only then the one of RFC 6531 is tried, on text.
"""

from __future__ import annotations

import ipaddress
import re

import idna
import idna.uts46data  # idna loads it on first use, when roles may open no file any more

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


def _path_pattern(dot_string: str, quoted: str, domain: str) -> str:
    # A source route is read and dropped (RFC 5321 appendix C).
    local = rf"(?:(?:{_ROUTE})?(?:({dot_string})|({quoted}))"
    return rf" *<{local}(?:@(?:({domain})|({_LITERAL})))?)?>"


_PATH = re.compile(_path_pattern(_DOT_STRING, _QUOTED, _DOMAIN).encode())
# RFC 6531 3.3, but for controls and line separators, which no log and no header may have.
_UTF8 = r"\u00a0-\u2027\u202a-\U0010ffff"
_UTF8_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_UTF8}]+"
_UTF8_PATH = re.compile(
    _path_pattern(
        rf"{_UTF8_ATOM}(?:\.{_UTF8_ATOM})*",
        rf'"(?:[\x20\x21\x23-\x5b\x5d-\x7e{_UTF8}]|\\[\x20-\x7e])*"',
        rf"[A-Za-z0-9_.\-{_UTF8}]+",
    )
)
_HELLO = re.compile(
    # Wider than the grammar: bare IPv6 addresses, literals we do not look into, what people call a machine
    # (bob's-pc). A name is a claim, fit for a log; what it is worth is a plugin's question (RFC 5321 4.1.4).
    rf"(?:[A-Za-z0-9_:][A-Za-z0-9_:.!#$%&'*+/=?^`{{|}}~-]*|{_LITERAL})".encode()
)
_QUOTED_PAIR = re.compile(rb"\\(.)")
_TEXT = re.compile(rb"[\x20-\x7e]*")
_UTF8_TEXT = re.compile(rf"[\x20-\x7e{_UTF8}]*")


def path(text: bytes, wrong: Reply) -> tuple[Mailbox | None, bytes] | Reply:
    """Read a reverse or forward path: the mailbox, or None for `<>`; and the octets behind it.

    A mailbox without a domain has the empty one: whether that may be, and whether UTF-8 may, is for the
    command to say. Otherwise the Reply to what is wrong: `wrong` for bad syntax, 501 5.5.4 for more
    than 256 octets.
    """
    match = _PATH.match(text)
    if match is None:
        return wrong if text.isascii() else _utf8_path(text, wrong)
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


def _utf8_path(text: bytes, wrong: Reply) -> tuple[Mailbox | None, bytes] | Reply:
    """As path(), for one that is not ASCII."""
    try:
        # What stands behind it may be anything: parameters.py will tell.
        match = _UTF8_PATH.match(text[: text.rindex(b">") + 1].decode("utf-8"))
    except ValueError:
        return wrong
    if match is None:
        return wrong
    octets = match[0].encode()
    if len(octets.lstrip(b" ")) > MAX_PATH_OCTETS:
        return replies.ADDRESS_TOO_LONG
    dot_string, quoted, domain, literal = match.groups()
    local = dot_string or re.sub(r"\\(.)", r"\1", quoted[1:-1])
    host: str | None = ""
    if domain is not None:
        host = u_labels(domain)
    elif literal is not None:
        host = address_literal(literal.encode("ascii"))
    return wrong if host is None else (Mailbox(local, host), text[len(octets) :])


def u_labels(domain: str) -> str | None:
    """A domain as people write it (RFC 5890 2.3.2.1): lower case, composed; None for what is none.

    Mapped as UTS 46 says, so that what a keyboard gives is taken, and checked by IDNA 2008.
    """
    if domain.isascii():
        return domain.lower() if re.fullmatch(_DOMAIN, domain) else None
    try:
        return idna.decode(idna.encode(domain, uts46=True, std3_rules=True))
    except ValueError:
        return None


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


def printable_utf8(text: bytes) -> str | None:
    """As printable(), with UTF-8 (RFC 6531 3.3)."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return decoded if _UTF8_TEXT.fullmatch(decoded) else None
