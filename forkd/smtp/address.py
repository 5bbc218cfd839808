"""What is a mailbox? The parsed address of RFC 5321 4.1.2; its grammar is in grammar.py."""

from __future__ import annotations

import dataclasses
import encodings.punycode  # noqa: F401 - this and uts46data are else loaded when roles may open no file
import re

import idna
import idna.uts46data

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]"
"""RFC 5322 3.2.3, with the UTF-8 of RFC 6531 3.3."""
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")


@dataclasses.dataclass(frozen=True, slots=True)
class Mailbox:
    """A local part without quotes or escapes, and a domain in lower case.

    `postmaster` without a domain has the empty domain (RFC 5321 4.1.1.3). An address literal keeps
    its brackets and is in canonical form: `[192.0.2.1]`, `[IPv6:2001:db8::1]`. The null sender is
    None, not a Mailbox. Two spellings of one address are equal, but for the case and composition of the
    local part, which only its own host may interpret (RFC 5321 2.4, RFC 6531 3.2), and for a domain in
    another script: as the client wrote it, U-labels or A-labels, it goes on (RFC 6531 3.7).
    """

    local: str
    domain: str

    def __str__(self) -> str:
        """The address as written in a path, quoted where it must be."""
        local = self.local
        if not _DOT_STRING.fullmatch(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local


def a_labels(domain: str) -> str:
    """The form in which domains are compared: `Bücher.Example` -> `xn--bcher-kva.example` (RFC 5890 2.3.2.1).

    An ASCII name in lower case, whatever it is. Raises ValueError for what is no name in IDNA 2008 after
    the mapping of UTS 46 (RFC 5891, RFC 5895).
    """
    if domain.isascii():
        return domain.lower()
    return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")


def split_address(address: str) -> tuple[str, str]:
    """Local part without quotes, and domain: the inverse of Mailbox.__str__."""
    if not address.startswith('"'):
        local, at, domain = address.rpartition("@")
        return (local, domain) if at else (address, "")
    end = address.rfind('"')
    quoted, domain = address[1:end], address[end + 1 :].removeprefix("@")
    letters: list[str] = []
    escaped = False
    for character in quoted:
        if character == "\\" and not escaped:
            escaped = True
        else:
            letters.append(character)
            escaped = False
    return "".join(letters), domain
