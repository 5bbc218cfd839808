"""How must TLS with a next hop be, and is the server's certificate the right one?

    off            never asked for
    opportunistic  whatever certificate: against who only listens (RFC 7435). Nothing in it is looked at,
                   since who can change what goes over can also leave STARTTLS out
    required,      signed by an authority, in its time, and with a name that the admin can have meant; or one
    implicit       of his fingerprints, and then nothing else counts

Which name? A fixed host's is the one in the configuration. Names of MX hosts come by DNS without a signature:
whoever forges the answer has a certificate for the name that he puts there. So the recipient's domain is what
must be proven, by that name or one below it (Postfix' level `secure`, RFC 7672 1.3.2, RFC 8461 2), unless
tls_name says another. What we ask for by SNI is the host that we believe to speak with (RFC 8461 4.1).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from forkd.deliver.hosts import Hop

Mode = Literal["off", "opportunistic", "required", "implicit"]

_NAME: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")
MOST_SHOWN: Final = 3
"""Names of a certificate in an error; some have a hundred."""


class ClientTls:
    """The policy of one transport. Its context is made once, and shared by all its connections.

    authorities   PEM, who may have signed; needed where certificates are looked at and none is pinned
    fingerprints  SHA-256, hexadecimal, perhaps with colons
    name          tls_name; empty: see above
    certificate   our own: files of chain and key
    Raises        ssl.SSLError, OSError for files that OpenSSL cannot use, ValueError for no authorities.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        authorities: str = "",
        fingerprints: Iterable[str] = (),
        name: str = "",
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.mode: Mode = mode
        self._pinned = frozenset(text.replace(":", "").lower() for text in fingerprints)
        self._name = name.lower()
        self._by_authority = self.verifies and not self._pinned
        self._context = self._make(authorities, certificate) if mode != "off" else None

    @property
    def verifies(self) -> bool:
        """The server must prove who it is."""
        return self.mode in ("required", "implicit")

    @property
    def proves_domain(self) -> bool:
        """A host found by MX must prove that it serves the recipient's domain (Hop.domain)."""
        return self._by_authority and not self._name

    def context(self, hop: Hop) -> ssl.SSLContext:  # noqa: ARG002 - one for all
        """For a handshake with that hop; where TLS is not off."""
        assert self._context is not None
        return self._context

    def server_name(self, hop: Hop) -> str:
        """What to ask for by SNI; of an address nothing goes over (RFC 6066 3)."""
        fixed = self._name and not self._name.startswith(".") and not hop.domain
        return self._name if fixed else hop.name

    def problem(self, connection: ssl.SSLObject | ssl.SSLSocket, hop: Hop) -> str:
        """After the handshake: why that server is not the one that is meant; empty: it is."""
        if not self.verifies:
            return ""
        octets = connection.getpeercert(binary_form=True)
        if not octets:
            return "it showed no certificate"
        if self._pinned:
            found = hashlib.sha256(octets).hexdigest()
            return (
                "" if found in self._pinned else f"its certificate's fingerprint is another, {_shown(found)}"
            )
        names = _names_of(connection.getpeercert() or {})
        wanted = self._wanted(hop)
        if any(matches(name, one) for name in names for one in wanted):
            return ""
        has = ", ".join(names[:MOST_SHOWN]) + (", …" if len(names) > MOST_SHOWN else "")
        return f"its certificate is for {has or 'no name'}, not for {' or '.join(wanted)}"

    def said(self, connection: ssl.SSLObject | ssl.SSLSocket) -> str:
        """In words, where there was no problem(): `TLSv1.3 TLS_AES_256_GCM_SHA384, verified`."""
        cipher = connection.cipher()
        words = f"{connection.version()} {cipher[0] if cipher else '?'}"
        return f"{words}, {'verified' if self.verifies else 'not verified'}"

    def _wanted(self, hop: Hop) -> tuple[str, ...]:
        if self._name:
            return (self._name,)
        if hop.domain and not hop.domain.startswith("["):
            return (hop.domain, "." + hop.domain)
        return (hop.name,)

    def _make(self, authorities: str, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        # The name is not always that of SNI: problem() compares.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self._by_authority:
            if not authorities:
                raise ValueError("nothing says who may have signed the server's certificate")
            context.load_verify_locations(cadata=authorities)
            context.verify_mode = ssl.CERT_REQUIRED
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


def matches(name: str, wanted: str) -> bool:
    """Is the certificate's `name` the one that is wanted? (RFC 9525 6.3)

    name    of the subjectAltName: a DNS name, perhaps with `*` for its whole first label, or an address
    wanted  a name, an address, or ".example.org" for any name below it
    """
    if wanted.startswith("."):
        return _NAME.fullmatch(name) is not None and name.lower().endswith(wanted)
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        pass
    else:
        try:
            return ipaddress.ip_address(name.strip()) == address
        except ValueError:
            return False
    name, wanted = name.lower(), wanted.lower()
    if not name.startswith("*."):
        return name == wanted
    # "*.org" would be half the world (as OpenSSL has it).
    return name.count(".") > 1 and wanted.partition(".")[2] == name[2:]


def _names_of(certificate: dict[str, Any]) -> list[str]:
    """Names and addresses that it is for. The common name has not been one for long (RFC 9525 2)."""
    kinds = ("DNS", "IP Address")
    return [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind in kinds]


def _shown(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()
