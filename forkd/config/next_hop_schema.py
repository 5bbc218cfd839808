"""[transport.NAME] kind = "smtp" and "lmtp": what may be set about mail that goes on to other servers?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from forkd.config.table import DAY, Between, Table, Text
from forkd.config.units import Seconds

UNIX: Final = "unix:"
"""In front of a socket's path."""
SUBMISSIONS_PORT: Final = 465
MAX_PASSWORD_OCTETS: Final = 1024
PATIENT_S: Final = 540.0
"""Of the 10 minutes that a client waits for the reply to the end of data (RFC 5321 4.5.3.2.6), one is for
plugins and the disk; the others are a next hop's, with accept = "proxy"."""


class NextHop(Table, frozen=True):
    """What both kinds have."""

    tls: Literal["off", "opportunistic", "required", "implicit"] = "opportunistic"
    """off: never. opportunistic: STARTTLS where it is offered, with whatever certificate, and without TLS
    where it fails (RFC 7435). required: no mail without STARTTLS and the right certificate. implicit: TLS
    from the first octet (RFC 8314), and the right certificate."""
    tls_ca: Path | None = None
    """PEM: who may have signed the server's certificate; not given or empty: whom this machine trusts. Used
    where a certificate must be right, as the next two."""
    tls_fingerprints: tuple[Text, ...] = ()
    """SHA-256 of certificates: the server shows one of them, and neither who signed it, nor its name, nor its
    dates count (as Postfix' level `fingerprint`). Two while one is replaced by the other."""
    tls_name: str = ""
    """The name that must stand in the certificate; ".example.org": any below that one. Empty: the host as it
    stands in `hosts` or `address`; with MX the recipient's domain or any name below it, since names of MX
    records come by DNS, where anybody may have put them (RFC 8461 2, RFC 7672 1.3.2)."""
    tls_certificate: Path | None = None
    """PEM: our own, for servers that want one, then the intermediate ones."""
    tls_key: Path | None = None
    """PEM, without a passphrase; not given or empty: it stands in the file of tls_certificate."""
    user: str = ""
    """For AUTH; empty: none. Mail waits where the server does not let us in with it."""
    password_file: Path | None = None
    """Its first line is the password of `user`."""
    auth_without_tls: bool = False
    """The password may go in the clear too, or to whoever shows any certificate."""
    hostname: str = ""
    """Whom we say we are, in EHLO and LHLO; empty: server.hostname."""
    messages_per_connection: Annotated[int, Between(1, 1_000_000)] = 100
    """Then a new connection: as exim; some servers take few, and a balancer wants to balance."""
    idle: Annotated[Seconds, Between(0, 300)] = Seconds(5)
    """A connection is kept open so long for more mail; others' servers count those that do nothing."""
    connect_timeout: Annotated[Seconds, Between(0.1, 600)] = Seconds(30)
    """For each address (Postfix smtp_connect_timeout); then the next one."""
    timeout: Annotated[Seconds, Between(1, DAY)] = Seconds(300)
    """For a reply. The other waits keep their proportion to it (RFC 5321 4.5.3.2): twice as long for the
    reply to the end of data, since a shorter one makes duplicates; 2/5 for the one to DATA; 3/5 for each
    block. And twelve times as long for all of a transaction before that reply, however its server drips; a
    large message has a second more for each KiB."""

    @property
    def verifies(self) -> bool:
        """The server must prove who it is."""
        return self.tls in ("required", "implicit")

    @property
    def unix(self) -> str:
        """Path of a socket on this machine, which nobody else can hear or pass for; empty: it is none."""
        return ""


class Smtp(NextHop, frozen=True, tag_field="kind", tag="smtp"):
    """[transport.NAME] kind = "smtp": given to the domain's servers, or to a fixed one."""

    hosts: tuple[Text, ...] = ()
    """Next hops for all mail, the first that can be reached: "mail.example.org", "192.0.2.1" or
    "[2001:db8::1]", each with ":PORT" where it is another. Addresses of names are those that this machine
    knows (/etc/hosts, DNS), or dns.servers where these are set; MX records are not looked up. Empty: the MX
    hosts of each recipient's domain (RFC 5321 5.1), asked of dns.servers."""
    port: Annotated[int, Between(0, 65_535)] = 0
    """Of hosts without one, and of MX hosts; 0: 25, or 465 with tls = "implicit"."""
    family: Literal["any", "ipv4", "ipv6"] = "any"
    """Which addresses of a host are used; any: in turns, the first an IPv6 one (as RFC 8305)."""
    source_ipv4: str = ""
    """Our own address for connections over IPv4, where this machine has several; empty: its own choice."""
    source_ipv6: str = ""
    """The same for IPv6."""
    connections: Annotated[int, Between(1, 1000)] = 50
    """At once, over all destinations; how many one destination bears is found out, within the route's
    concurrency."""

    @property
    def usual_port(self) -> int:
        """Of hosts without one."""
        return self.port or (SUBMISSIONS_PORT if self.tls == "implicit" else 25)


class Lmtp(NextHop, frozen=True, tag_field="kind", tag="lmtp"):
    """[transport.NAME] kind = "lmtp": given to a mail store, which answers for each recipient (RFC 2033)."""

    address: str = ""
    """"unix:/run/dovecot/lmtp", or "HOST:PORT" with a name or an address. Must be set."""
    tls: Literal["off", "opportunistic", "required", "implicit"] = "off"
    """As for SMTP; not over a unix socket."""
    connections: Annotated[int, Between(1, 1000)] = 10
    """At once."""

    @property
    def unix(self) -> str:
        """As NextHop.unix."""
        return self.address.removeprefix(UNIX) if self.address.startswith(UNIX) else ""


def password_length(octets: bytes | bytearray) -> int:
    """How many of these octets, of a password_file, are the password: its first line.

    Raises ValueError, whose text is the rule that does not hold, and shows nothing of the file. Makes no copy
    of a password in ASCII: who has the octets can wipe them.
    """
    end = octets.find(b"\n")
    end = len(octets) if end < 0 else end
    end -= octets[max(0, end - 1) : end] == b"\r"
    if not end:
        raise ValueError("the first line of this file is the password, and it is empty")
    if end > MAX_PASSWORD_OCTETS:
        raise ValueError(f"the first line of this file is the password, {MAX_PASSWORD_OCTETS} octets at most")
    if octets.find(0, 0, end) >= 0:
        raise ValueError("a password has no NUL")
    if not octets.isascii():
        try:
            octets[:end].decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("a password is UTF-8 text (RFC 4616 2)") from None
    return end
