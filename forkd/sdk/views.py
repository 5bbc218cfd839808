"""What does a hook see? The session, addresses, the envelope and the message, as far as granted."""

from __future__ import annotations

import os

from forkd.sdk.headers import Headers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PIECE_BYTES = 65_536


class NotGranted(Exception):  # noqa: N818 - authors read it as a sentence
    """The plugin looked at something its manifest does not ask for, or the admin did not grant."""


class Address:
    """One mailbox: `local` without quotes, `domain` in lower case, str() as it is written in SMTP.

    The null sender of a bounce is an Address too, with both parts empty: it is false in `if sender:`.
    An address literal keeps its brackets in `domain`: `[192.0.2.1]`.
    """

    __slots__ = ("domain", "local")

    def __init__(self, local: str, domain: str) -> None:
        self.local = local
        self.domain = domain

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

    __slots__ = ("body", "parameters", "size")

    def __init__(
        self,
        local: str,
        domain: str,
        parameters: dict[str, str | None] | None = None,
        size: int | None = None,
        body: str = "7BIT",
    ) -> None:
        super().__init__(local, domain)
        self.parameters = parameters or {}
        """ESMTP parameters as written, names in upper case; a parameter without a value has None."""
        self.size = size
        """Octets the client announced (SIZE), or None."""
        self.body = body
        """7BIT or 8BITMIME."""


class Recipient(Address):
    """The forward path of RCPT, with its ESMTP parameters."""

    __slots__ = ("parameters",)

    def __init__(self, local: str, domain: str, parameters: dict[str, str | None] | None = None) -> None:
        super().__init__(local, domain)
        self.parameters = parameters or {}


class Envelope:
    """Sender and accepted recipients of the transaction so far; a read, `envelope`."""

    __slots__ = ("_granted", "_recipients", "_sender")

    def __init__(self, granted: bool) -> None:
        self._granted = granted
        self._sender: Address | None = None
        self._recipients: list[Address] = []

    @property
    def sender(self) -> Address:
        """The sender, false for the null sender and before MAIL."""
        self._check()
        return self._sender or Address("", "")

    @property
    def recipients(self) -> tuple[Address, ...]:
        """The recipients that were accepted, in the client's order."""
        self._check()
        return tuple(self._recipients)

    def _check(self) -> None:
        if not self._granted:
            raise NotGranted(
                "the envelope: needs `envelope` below [wants.reads] of plugin.toml, and the admin's grant"
            )


class Session:
    """What is known of the client, as it stands now."""

    __slots__ = (
        "client_ip",
        "client_name",
        "client_port",
        "envelope",
        "esmtp",
        "helo",
        "hostname",
        "id",
        "listener",
        "local_ip",
        "local_port",
        "notes",
    )

    def __init__(self, envelope: Envelope) -> None:
        self.id = ""
        """Stands in forkd's log lines and in its replies to failures."""
        self.client_ip = ""
        """IPv4 or IPv6 address as text; IPv4-mapped ones are already IPv4."""
        self.client_port = 0
        self.client_name = ""
        """Reverse name, verified both ways; empty when unknown."""
        self.local_ip = ""
        self.local_port = 0
        self.listener = ""
        """The listener's name in forkd.toml."""
        self.hostname = ""
        """Our own name."""
        self.helo: str | None = None
        """What the client called itself; None before HELO."""
        self.esmtp = False
        """True after EHLO."""
        self.envelope = envelope
        self.notes: dict[str, Any] = {}
        """Yours: kept until the session ends."""


class Message:
    """The message after the end of data: as the client sent it, with what earlier plugins added on top.

    It is there during the hook only. Its `headers` and its `body` are reads.
    """

    __slots__ = ("_added", "_fd", "_headers", "_reads", "header_size", "size")

    def __init__(
        self, reads: frozenset[str], size: int, header_size: int, fd: int, added: bytes = b""
    ) -> None:
        self.size = size
        """Octets of header and body, lines ending in CRLF."""
        self.header_size = header_size
        """Octets of the header with the empty line behind it."""
        self._reads = reads
        self._fd = fd
        self._added = added
        self._headers: Headers | None = None

    @property
    def headers(self) -> Headers:
        """The header's fields; read and scanned at the first look."""
        if self._headers is None:
            if not self._reads & {"headers", "body"}:
                raise NotGranted(
                    "the header: needs `headers` below [wants.reads] of plugin.toml, and the admin's grant"
                )
            self._headers = Headers(self._added + b"".join(self._pieces(0, self.header_size)))
        return self._headers

    @property
    def body(self) -> bytes:
        """Everything behind the header, at once: up to the message size limit, 50 MiB by default."""
        return b"".join(self.body_pieces())

    def body_pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """The body in pieces, for messages of any size."""
        if "body" not in self._reads:
            raise NotGranted(
                "the body: needs `body` below [wants.reads] of plugin.toml, and the admin's grant"
            )
        return self._pieces(self.header_size, self.size, piece_bytes)

    def _pieces(self, start: int, end: int, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        # pread, not mmap: the child's syscall filter has no shared mappings, and the file's offset is
        # shared with whoever else holds the memory file.
        while start < end:
            if self._fd < 0:
                raise ValueError("the message can be read during the message hook only")
            piece = os.pread(self._fd, min(piece_bytes, end - start), start)
            if not piece:
                return
            start += len(piece)
            yield piece


_ATOM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{|}~-")
"""RFC 5322 atext; with SMTPUTF8 also everything beyond ASCII (RFC 6531 3.3)."""


def _is_dot_atom(local: str) -> bool:
    return all(part and all(c in _ATOM or c >= "\x80" for c in part) for part in local.split("."))
