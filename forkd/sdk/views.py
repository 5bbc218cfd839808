"""What does a hook see? The session, the envelope and the message, as far as granted."""

from __future__ import annotations

import os

from forkd.sdk.address import Address
from forkd.sdk.answers import Told
from forkd.sdk.headers import Headers, missing_end
from forkd.sdk.replay import apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from forkd.sdk.capabilities import Capabilities, Dns, State
    from forkd.sdk.connection import Connection
    from forkd.sdk.edits import Edit

PIECE_BYTES = 65_536
NEVER_CAME, OVER = -1, -2
"""In the place of a message's descriptor: there is none in this sandbox; the hook is over."""
_EMFILE = 24


class NotGranted(Exception):  # noqa: N818 - authors read it as a sentence
    """The plugin looked at something its manifest does not ask for, or the admin did not grant."""


def not_granted(what: str, key: str) -> str:
    """The text of NotGranted for a capability."""
    return f"{what}: needs `{key}` below [wants.capabilities] of plugin.toml, and the admin's grant"


class Envelope:
    """Sender and accepted recipients of the transaction so far; a read, `envelope`.

    At `message` they are as the plugins before have left them.
    """

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
    """What is known of the client, as it stands now; and the capabilities that were granted.

    dns, state and connect() ask forkd's broker and block; forkd.sdk.capabilities says what they give, and
    what they raise.
    """

    __slots__ = (
        "_capabilities",
        "_told",
        "client_certificate",
        "client_ip",
        "client_name",
        "client_port",
        "envelope",
        "esmtp",
        "exports",
        "helo",
        "hostname",
        "id",
        "listener",
        "local_ip",
        "local_port",
        "notes",
        "proxied",
        "relay",
        "tls_cipher",
        "tls_version",
        "user",
        "xclient",
    )

    def __init__(self, envelope: Envelope, capabilities: Capabilities | None = None) -> None:
        self._capabilities = capabilities
        self._told: Told | None = None
        """What the hook under way has logged and counted."""
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
        self.tls_version = ""
        """`TLSv1.3`; empty without TLS."""
        self.tls_cipher = ""
        self.client_certificate = ""
        """Subject of the certificate the client showed and forkd verified; empty without one."""
        self.user = ""
        """Who authenticated; empty when nobody has."""
        self.relay = False
        """The client's address may send to any domain (networks.relay)."""
        self.proxied = False
        """The client's address came by the PROXY protocol, from a proxy that forkd trusts."""
        self.xclient = False
        """It came by XCLIENT, from a host that forkd trusts."""
        self.exports: dict[str, str] = {}
        """What earlier plugins exported, e.g. SPFRESULT."""
        self.envelope = envelope
        self.notes: dict[str, Any] = {}
        """Yours: kept until the session ends."""

    @property
    def dns(self) -> Dns:
        """Look names up, those below the suffixes that were granted."""
        granted = self._capabilities
        if granted is None or granted.dns is None:
            raise NotGranted(not_granted("DNS", "dns"))
        return granted.dns

    @property
    def state(self) -> State:
        """Keys and values that outlive the session."""
        granted = self._capabilities
        if granted is None or granted.state is None:
            raise NotGranted(not_granted("the state store", "state"))
        return granted.state

    def connect(self, target: str) -> Connection:
        """A connection to a target that the admin named."""
        granted = self._capabilities
        if granted is None or granted.targets is None:
            raise NotGranted(not_granted(f"a connection to {target!r}", "connect"))
        return granted.targets.connect(target)

    def log(self, text: str) -> None:
        """One line in forkd's log, level info, with the plugin's name and the session's id.

        The first 500 characters of it; of one hook's call 8 lines at most. Needs no grant.
        """
        told = self._told
        if told is None:
            told = self._told = Told()
        told.log(text)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter of the plugin's own, which `forkd status` and the metrics show. Needs no grant.

        name  a-z, 0-9 and _, a letter first, 40 at most; 16 counters in one hook's call, 64 in all: more
              are not counted.
        """
        told = self._told
        if told is None:
            told = self._told = Told()
        told.count(name, by)


class Message:
    """The message after the end of data, as the plugins before have left it.

    It is there during the hook only. Its `headers` and its `body` are reads.
    """

    __slots__ = (
        "_body",
        "_edits",
        "_fd",
        "_header_end",
        "_headers",
        "_reads",
        "header_size",
        "size",
        "smtputf8",
    )

    def __init__(
        self,
        reads: frozenset[str],
        size: int,
        header_size: int,
        fd: int,
        *,
        edits: Sequence[Edit] = (),
        body: bytes | None = None,
        smtputf8: bool = False,
    ) -> None:
        self.size = size
        """Octets of header and body, lines ending in CRLF; edits of the header are not counted."""
        self.header_size = header_size
        """Octets of the client's header with the empty line behind it."""
        self.smtputf8 = smtputf8
        """The client asked for SMTPUTF8: header values may have UTF-8."""
        self._reads = reads
        self._fd = fd
        self._edits = edits
        self._body = body
        self._headers: Headers | None = None
        self._header_end = header_size
        """Where the header ends in the file."""
        if body is not None:
            self.header_size += _empty_line(fd, header_size)
            self.size = self.header_size + len(body)

    @property
    def headers(self) -> Headers:
        """The header's fields; read and scanned at the first look."""
        if self._headers is None:
            if not self._reads & {"headers", "body"}:
                raise NotGranted(
                    "the header: needs `headers` below [wants.reads] of plugin.toml, and the admin's grant"
                )
            header = b"".join(self._pieces(0, self._header_end))
            self._headers = apply(header, self._edits) if self._edits else Headers(header)
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
        if self._body is not None:
            return self._pieces_of(self._body, piece_bytes)
        return self._pieces(self._header_end, self.size, piece_bytes)

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """The whole message in pieces, as it stands: for scanners. Needs the read `body`."""
        body = self.body_pieces(piece_bytes)
        if self._body is None and not self._edits:
            yield from self._pieces(0, self.size, piece_bytes)
            return
        yield self.headers.raw + b"\r\n"
        yield from body

    @staticmethod
    def _pieces_of(body: bytes, piece_bytes: int) -> Iterator[bytes]:
        for start in range(0, len(body), piece_bytes):
            yield body[start : start + piece_bytes]

    def _pieces(self, start: int, end: int, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        # pread, not mmap: the child's syscall filter has no shared mappings, and the file's offset is
        # shared with whoever else holds the memory file.
        while start < end:
            if self._fd < 0:
                raise _no_file(self._fd)
            piece = os.pread(self._fd, min(piece_bytes, end - start), start)
            if not piece:
                return
            start += len(piece)
            yield piece


def _empty_line(fd: int, header_size: int) -> int:
    """Octets that forkd puts between a header and a new body, where the header does not end in an empty line.

    Without the file (a plugin that reads nothing of the message) it is taken to end in one, as nearly all do.
    """
    if fd < 0:
        return 0
    return len(missing_end(os.pread(fd, min(4, header_size), max(0, header_size - 4))))


def _no_file(fd: int) -> Exception:
    """Why a message cannot be read."""
    if fd == OVER:
        return ValueError("the message can be read during the message hook only")
    # Whatever may be read comes with its descriptor. The kernel drops one that finds no free number.
    return OSError(
        _EMFILE,
        "the message could not be handed over: the plugin has as many files open as it may (open_files)",
    )
