"""What is an address to a plugin? A mailbox, the sender of MAIL, the recipient of RCPT."""

from __future__ import annotations


class Address:
    """One mailbox: `local` without quotes, `domain` in lower case, str() as it is written in SMTP.

    The null sender of a bounce is an Address too, with both parts empty: it is false in `if sender:`.
    An address literal keeps its brackets in `domain`: `[192.0.2.1]`.
    """

    __slots__ = ("domain", "local")

    def __init__(self, local: str, domain: str) -> None:
        self.local = local
        self.domain = domain

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that str() writes: `user@example.org`, `"with space"@example.org`, or empty.

        For addresses from settings and lists; it takes what it is given apart and does not judge it.
        """
        local, at, domain = text.rpartition("@")
        if not at:
            local, domain = domain, ""
        if len(local) > 1 and local[0] == local[-1] == '"':
            local = _unquoted(local[1:-1])
        return Address(local, domain.lower())

    def same_as(self, other: Address) -> bool:
        """Equal, with upper and lower case of the local part the same: so forkd compares its mailboxes."""
        return self.domain == other.domain and self.local.lower() == other.local.lower()

    def __bool__(self) -> bool:
        return bool(self.local or self.domain)

    def __str__(self) -> str:
        local = self.local
        if not _is_dot_atom(local) and self:
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local

    def __repr__(self) -> str:
        return f"<{self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and (self.local, self.domain) == (other.local, other.domain)

    def __hash__(self) -> int:
        return hash((self.local, self.domain))


class Sender(Address):
    """The reverse path of MAIL, with what the client said beside it."""

    __slots__ = ("body", "parameters", "size", "smtputf8")

    def __init__(
        self,
        local: str,
        domain: str,
        parameters: dict[str, str | None] | None = None,
        size: int | None = None,
        body: str = "7BIT",
    ) -> None:
        self.local = local
        self.domain = domain
        self.parameters = parameters or {}
        """ESMTP parameters as written, names in upper case; a parameter without a value has None."""
        self.size = size
        """Octets the client announced (SIZE), or None."""
        self.body = body
        """7BIT or 8BITMIME."""
        self.smtputf8 = False
        """The client asked for SMTPUTF8: addresses, headers and replies of this mail may have UTF-8."""


class Recipient(Address):
    """The forward path of RCPT, with its ESMTP parameters."""

    __slots__ = ("parameters",)

    def __init__(self, local: str, domain: str, parameters: dict[str, str | None] | None = None) -> None:
        self.local = local
        self.domain = domain
        self.parameters = parameters or {}


_ATOM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{|}~-")
"""RFC 5322 atext; with SMTPUTF8 also everything beyond ASCII (RFC 6531 3.3)."""


def _is_dot_atom(local: str) -> bool:
    return all(part and all(c in _ATOM or c >= "\x80" for c in part) for part in local.split("."))


def _unquoted(text: str) -> str:
    """A quoted string's content without its backslashes (RFC 5321 4.1.2)."""
    plain: list[str] = []
    characters = iter(text)
    for character in characters:
        plain.append(next(characters, "\\") if character == "\\" else character)
    return "".join(plain)
