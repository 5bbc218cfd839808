"""Who is at the other end of a session? Address, name, TLS, user, and what of it plugins are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forkd.hooks.facts import SessionFacts
from forkd.log import Who
from forkd.smtp.reply import Reply
from forkd.worker.clients import Address, Client

if TYPE_CHECKING:
    import asyncio

    from forkd.smtp.server import ServerConnection
    from forkd.worker.plugins import SessionPlugins
    from forkd.worker.services import Services
    from forkd.worker.tls import TlsFacts
    from forkd.worker.xclient import Claims


class Identity:
    """The client as one session knows it; changed by PROXY, STARTTLS, AUTH and XCLIENT alone.

    peer         (address, port) as the log shows it: of the connection, or what a proxy told
    client       what the address alone tells; shared by all sessions of that address
    client_name  verified reverse name, or what XCLIENT told; empty: unknown
    tls          of the handshake, None: in the clear
    user         who authenticated, or empty
    claims       what XCLIENT told, None: nothing
    """

    __slots__ = (
        "_entered",
        "_local",
        "claims",
        "client",
        "client_name",
        "id",
        "listener",
        "peer",
        "proxied",
        "services",
        "tls",
        "user",
    )

    transport: asyncio.Transport
    conn: ServerConnection
    plugins: SessionPlugins
    client: Client
    told = True
    """The log hears of it, and it is counted: not so forkd's own probe (probing.py)."""
    unnamed_peer: tuple[str, int] | None = None
    """Who it is, where its socket has no address."""

    def __init__(self, services: Services, listener: str) -> None:
        self.services = services
        self.listener = listener
        self.id = ""
        self.peer: tuple[str, int] = ("", 0)
        self.client_name = ""
        self.tls: TlsFacts | None = None
        self.user = ""
        self.proxied = False
        self.claims: Claims | None = None
        self._local: tuple[str, int] | None = None
        """Where a proxy's client connected to; None: ask the socket."""
        self._entered = False

    @property
    def address(self) -> Address:
        """The client's, IPv4-mapped ones unmapped."""
        return self.client.address

    @property
    def network(self) -> str:
        """Whose share of the sandboxes this session uses; empty: nobody's, the client is trusted."""
        return self.client.network

    @property
    def favoured(self) -> bool:
        """Of a trusted network, or authenticated: gives way after all others."""
        return self.client.trusted or bool(self.user)

    @property
    def local(self) -> tuple[str, int]:
        """The address the client connected to; empty where it has gone before anybody asked."""
        if self._local is None:
            # A socket that was reset has no name any more.
            name = self.transport.get_extra_info("sockname") or ("", 0)
            return name[0], name[1]
        return self._local

    @property
    def helo(self) -> str:
        """As EHLO, HELO or XCLIENT had it; empty before."""
        told = self.conn.helo if hasattr(self, "conn") else None
        return told or (self.claims.helo if self.claims is not None else "") or ""

    def who(self) -> Who:
        """The client as the log shows it."""
        tls = self.tls
        return {
            "client": f"{self.peer[0]}:{self.peer[1]}",
            "name": self.client_name,
            "helo": self.helo,
            "tls": "" if tls is None else f"{tls.version} {tls.cipher}",
            "certificate": "" if tls is None else tls.certificate,
            "user": self.user,
        }

    def become(self, peer: tuple[str, int], local: tuple[str, int] | None = None) -> bool:
        """The client has this address; true where it is another one than before.

        A session that has entered (enter()) goes on to count, for the new address then.
        """
        self.peer = peer
        if local is not None:
            self._local = local
        client = self.services.clients.find(peer[0])
        old, self.client = getattr(self, "client", None), client
        if old is None or client.address == old.address:
            return False
        if self._entered:
            self.services.admission.changed(old, client)
        self.client_name = ""
        return True

    def enter(self) -> Reply | None:
        """Count this session in: a refusal, or None."""
        refusal = self.services.admission.enter(self.client)
        self._entered = refusal is None
        return refusal

    def leave(self) -> None:
        """Count it out; idempotent."""
        if self._entered:
            self._entered = False
            self.services.admission.leave(self.client)

    def facts_changed(self, **facts: Any) -> None:
        """Facts that plugins are told changed: user, tls_version …, as SessionFacts names them."""
        self.plugins.update(**facts)

    def facts(self) -> SessionFacts:
        """All that plugins are told of this session; made when the first of them is asked."""
        local, tls, claims = self.local, self.tls, self.claims
        return SessionFacts(
            id=self.id,
            client_ip=str(self.client.address),
            client_port=self.peer[1],
            client_name=self.client_name,
            local_ip=local[0],
            local_port=local[1],
            listener=self.listener,
            hostname=self.services.hostname,
            helo=self.helo or None,
            esmtp=self.conn.esmtp or (claims is not None and claims.protocol == "ESMTP"),
            tls_version="" if tls is None else tls.version,
            tls_cipher="" if tls is None else tls.cipher,
            client_certificate="" if tls is None else tls.certificate,
            user=self.user,
            relay=self.client.relay,
            proxied=self.proxied,
            xclient=claims is not None,
        )
