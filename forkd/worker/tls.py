"""How does a session become a private one? Certificates by name, and the handshake on a running session.

One way for STARTTLS and implicit TLS: the session's own transport is wrapped (loop.start_tls), so what
comes before the handshake (a PROXY header, admission) is the same for both, and every failed handshake
is seen by us, logged with its reason and counted.

The files are master's to read (master/certificates.py): a worker is handed sealed memory files, and
OpenSSL loads them by /proc/self/fd/N, since load_cert_chain() takes paths only. A pair that came later is
for handshakes that begin from then on; sessions that stand keep what they began with.

Policy (RFC 7525, RFC 8996, RFC 8314): TLS 1.2 at least; no compression, no renegotiation; session
tickets by a key of this process and of this pair alone. A client that names a host we have no certificate
for gets the first one, as one that names none: most senders do not check, and those that do will say so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, cast

from forkd import log
from forkd.config.schema import Config

if TYPE_CHECKING:
    from forkd.worker.session import Session

HANDSHAKE_S = 60.0
"""For one handshake: two round trips and some arithmetic, on the worst of networks."""

SHUTDOWN_S = 5.0
"""For the close_notify of a client when we close: who does not send it is cut off."""

_VERIFY = {
    "off": ssl.CERT_NONE,
    "ask": ssl.CERT_OPTIONAL,
    "require": ssl.CERT_REQUIRED,
}


@dataclasses.dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a handshake came to.

    version      TLSv1.2 | TLSv1.3
    cipher       OpenSSL's name, e.g. TLS_AES_256_GCM_SHA384
    bits         of its key
    certificate  subject of the client's certificate, verified against tls.client_ca, else empty
    """

    version: str
    cipher: str
    bits: int
    certificate: str = ""


class Certificates:
    """A worker's TLS contexts: one for each certificate and each way of asking for the client's.

    pairs      name of a [certificate] -> descriptors of chain and key; closed here once loaded
    client_ca  descriptor of tls.client_ca, or -1; closed here
    Raises ssl.SSLError, OSError for a pair that does not load; master has proved it before.
    """

    def __init__(
        self,
        config: Config,
        pairs: Mapping[str, tuple[int, int]],
        client_ca: int = -1,
        *,
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        self._ciphers = config.tls.ciphers
        self._handshake_s = handshake_s
        self._client_ca = _read_text(client_ca)
        self._asking = {name: listener.client_certificates for name, listener in config.listener.items()}
        self._default = next(iter(pairs), "")
        self._pairs = dict(pairs)
        self._by_name = {_key(name): name for name in pairs}
        self._contexts: dict[tuple[str, str], ssl.SSLContext] = {}
        for name in self._pairs:
            self._build(name)

    def __bool__(self) -> bool:
        """Is there a certificate at all: may TLS be offered?"""
        return bool(self._pairs)

    @property
    def handshake_s(self) -> float:
        """How long one handshake may take."""
        return self._handshake_s

    def context(self, listener: str) -> ssl.SSLContext:
        """For the handshake that begins now on this listener. KeyError when there is no certificate."""
        return self._contexts[self._asking[listener], self._default]

    def replace(self, name: str, descriptors: list[int]) -> None:
        """Take what master read anew: (chain, key) of a pair, or tls.client_ca where `name` is empty.

        The descriptors are closed here, now or with the pair's successor. What does not load (master has
        proved it, so this is a bug or a lack of memory) leaves the old pair in use, and is logged.
        """
        old_pair, old_ca = self._pairs.get(name), self._client_ca
        try:
            if not name:
                self._client_ca = _read_text(descriptors[0])
                for each in self._pairs:
                    self._build(each)
                return
            self._pairs[name] = (descriptors[0], descriptors[1])
            self._build(name)
        except (OSError, IndexError) as error:
            self._client_ca = old_ca
            if name and old_pair is not None:
                self._pairs[name] = old_pair
                _close(*descriptors)
            log.certificate(act="not_loaded", name=name, reason=reason_of(error), level="error")
            return
        if old_pair is not None:
            _close(*old_pair)

    def close(self) -> None:
        """Give the memory files back; contexts that sessions hold go on."""
        for pair in self._pairs.values():
            _close(*pair)
        self._pairs.clear()
        self._contexts.clear()

    def _build(self, name: str) -> None:
        """All contexts of a certificate, and only then put them into use."""
        made: dict[tuple[str, str], ssl.SSLContext] = {}
        for asking in {*self._asking.values(), "off"}:
            context = self._new_context(asking)
            chain, key = self._pairs[name]
            context.load_cert_chain(f"/proc/self/fd/{chain}", f"/proc/self/fd/{key}", password=_no_passphrase)
            context.sni_callback = self._choose_for(asking)
            made[asking, name] = context
        self._contexts |= made

    def _new_context(self, asking: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        if self._ciphers:
            context.set_ciphers(self._ciphers)
        if asking != "off":
            if self._client_ca:
                context.load_verify_locations(cadata=self._client_ca)
            context.verify_mode = _VERIFY[asking]
        return context

    def _choose_for(self, asking: str) -> Any:
        def choose(connection: ssl.SSLObject, server_name: str | None, _context: ssl.SSLContext) -> None:
            name = self.name_for(server_name)
            if name != self._default:
                connection.context = self._contexts[asking, name]

        return choose

    def name_for(self, server_name: str | None) -> str:
        """Which [certificate] a client gets that asked for `server_name`: the name itself, a wildcard for
        its first label (RFC 9525 6.3), else the first one."""
        if not server_name:
            return self._default
        wanted = _key(server_name)
        wildcard = f"*.{wanted.partition('.')[2]}"
        return self._by_name.get(wanted) or self._by_name.get(wildcard) or self._default


def _key(name: str) -> str:
    """Names of hosts are compared without case, and without the dot of the root."""
    return name.lower().rstrip(".")


async def start_tls(session: Session, buffered: bytes = b"") -> TlsFacts | None:
    """Shake hands on the session's connection; the facts, also in `session.tls`. None: it is over.

    From the call on no octet that was sent in the clear can reach the session: reading is stopped before
    anything is awaited, and what the engine had buffered behind STARTTLS ended the session before.

    buffered   octets of the handshake that were read already: behind a PROXY header, never behind STARTTLS
    Failure    is logged and counted; the connection is gone then and `session.connection_lost()` on its way
    """
    loop = asyncio.get_running_loop()
    shaking = _shake_hands(session, loop)
    wrapped = await (_feeding(loop, session.transport, shaking, buffered) if buffered else shaking)
    if wrapped is None:
        return None
    session.transport = wrapped
    session.tls = facts = _facts(wrapped.get_extra_info("ssl_object"))
    session.services.counters.tls += 1
    return facts


async def _shake_hands(session: Session, loop: asyncio.AbstractEventLoop) -> asyncio.Transport | None:
    """None: it failed, and that has been said; at once, since uvloop tells the session of the lost connection
    next, which ends whoever waits for this."""
    certificates = session.services.certificates
    plain = session.transport
    session.half_closes = False  # uvloop writes a complaint of its own to stderr if told otherwise
    try:
        wrapped = await loop.start_tls(
            plain,
            session,
            certificates.context(session.listener),
            server_side=True,
            ssl_handshake_timeout=certificates.handshake_s,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
        if wrapped is not None and not wrapped.is_closing():
            return wrapped
        why = "the client went away"
    except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
        why = reason_of(error)
    plain.abort()
    failed(session, why)
    # uvloop does not always tell of it. Not from here: it would cancel this very task.
    loop.call_soon(session.connection_lost, None)
    return None


def failed(session: Session, why: str) -> None:
    """A handshake came to nothing, and the session with it: counted and logged."""
    session.reason = "tls"
    session.services.counters.tls_failures += 1
    log.tls_failure(
        session=session.id,
        client=f"{session.peer[0]}:{session.peer[1]}",
        listener=session.listener,
        reason=why,
    )


async def _feeding(
    loop: asyncio.AbstractEventLoop,
    plain: asyncio.Transport,
    wrapping: Coroutine[Any, Any, asyncio.Transport | None],
    octets: bytes,
) -> asyncio.Transport | None:
    """start_tls(), with `octets` as the first that the TLS layer reads."""
    plain.pause_reading()
    task = loop.create_task(wrapping)
    try:
        # Its first step puts two callbacks into the loop's queue: that the layer is there, and that the
        # socket is to be read again. What is put right behind them comes before the next look at the socket.
        await asyncio.sleep(0)
        if not task.done():
            loop.call_soon(_feed, plain, octets)
        return await task
    except asyncio.CancelledError:
        task.cancel()
        raise


def _feed(plain: asyncio.Transport, octets: bytes) -> None:
    """Give the TLS layer what was read before it was there."""
    layer = cast(asyncio.BufferedProtocol, plain.get_protocol())
    rest = memoryview(octets)
    while rest and not plain.is_closing():
        room = layer.get_buffer(len(rest))
        count = min(len(room), len(rest))  # type: ignore[arg-type]
        room[:count] = rest[:count]  # type: ignore[index]
        layer.buffer_updated(count)
        rest = rest[count:]


def _facts(connection: ssl.SSLObject) -> TlsFacts:
    cipher = connection.cipher()
    return TlsFacts(
        version=connection.version() or "",
        cipher=cipher[0] if cipher else "",
        bits=cipher[2] if cipher else 0,
        certificate=subject(connection.getpeercert()),
    )


_SHORT = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
}


def subject(certificate: Mapping[str, Any] | None) -> str:
    """The subject as RFC 4514 writes it, most specific part first; empty for no certificate.

    Printable ASCII: everything else, a comma and what else has a meaning there is escaped, so that it can
    stand in a header or a log.
    """
    if not certificate:
        return ""
    parts = [
        f"{_SHORT.get(kind, kind)}={_escaped(value)}"
        for relative in reversed(certificate.get("subject", ()))
        for kind, value in relative
    ]
    return ",".join(parts) or "no subject"


def _escaped(value: str) -> str:
    out = []
    for character in value:
        if character in ',+"\\<>;()':
            out.append(f"\\{character}")
        elif " " <= character <= "~":
            out.append(character)
        else:
            out += [f"\\{octet:02X}" for octet in character.encode("utf-8", "surrogatepass")]
    return "".join(out)


def reason_of(error: BaseException) -> str:
    """Why a handshake or a file failed, in OpenSSL's short words where it has some; no octets of the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ConnectionAbortedError):
        return "took too long"
    if isinstance(error, ConnectionError):
        return "the client went away"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _no_passphrase() -> str:
    """Instead of OpenSSL asking a terminal."""
    raise ssl.SSLError("the key has a passphrase")


def _read_text(descriptor: int) -> str:
    """A whole memory file; closed afterwards."""
    if descriptor < 0:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("ascii", "replace")


def _close(*descriptors: int) -> None:
    for descriptor in set(descriptors):
        os.close(descriptor)
