"""How are clients met? The tables of forkd.toml about listeners, TLS, AUTH, names, networks and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from forkd.config.table import DAY, Between, Count, CountOrNone, NotEmpty, Ordered, Table, Wait
from forkd.config.units import Bytes, Seconds


class Listener(Table, frozen=True):
    """[listener.NAME]: one address we accept mail on."""

    address: str = "127.0.0.1:2525"
    """HOST:PORT; IPv6 as [::1]:PORT; loopback unless the admin says otherwise."""
    role: Literal["mx", "submission"] = "mx"
    """mx: takes mail for [domain]s from anybody. submission: from who has authenticated, to anywhere."""
    tls: Literal["auto", "off", "starttls", "required", "implicit"] = "auto"
    """auto: STARTTLS is offered where a [certificate] is there. required: 530 5.7.0 before it.
    implicit: TLS from the first octet (RFC 8314 3.3)."""
    client_certificates: Literal["off", "ask", "require"] = "off"
    """Of clients, checked against tls.client_ca: ask tells plugins and the log who it is, require refuses
    whoever has none. With both, one that client_ca did not sign ends the handshake, and mail servers often
    show such a one. Off: most clients have none, and some stumble over the question."""
    auth: Literal["auto", "off", "on"] = "auto"
    """AUTH; auto: on for submission, off for mx, where it would only invite the guessing of passwords."""
    auth_without_tls: bool = False
    """AUTH is offered in the clear too: passwords then cross the network readable (RFC 4954 4)."""
    proxy: bool = False
    """A PROXY header (v1 or v2) must come first, and only networks.proxy may connect."""
    greeting_delay: Annotated[Seconds, Between(0, 120)] = Seconds(0)
    """Before the greeting to clients that are not trusted: who talks before it is no mail server. Each
    second is a second for everybody; clients wait 5 minutes at most (RFC 5321 4.5.3.2.1)."""
    wire: Literal["normalize", "reject"] = "normalize"
    """Bare CR or LF in a message: made CRLF or space, as Postfix does, or refused (550 5.6.0)."""
    early_talker: Literal["refuse", "ignore"] = "refuse"
    """A client that does not wait for a reply where it must (RFC 2920 3.1) has 554 5.5.1, or is served on."""
    accept: Literal["queue", "proxy"] = "queue"
    """queue: 250 means that we have the mail. proxy: that its next hop has it; a refusal there is the reply,
    and nothing is kept here (but what a plugin quarantines)."""
    backlog: Annotated[int, Between(1, 65_535)] = 1024
    """Connections the kernel holds while workers are busy; it caps them at net.core.somaxconn."""


class Certificate(Table, frozen=True, kw_only=True):
    """[certificate."NAME"]: for clients that ask for NAME by SNI; the first table is for all others."""

    chain: Path
    """PEM: the server's certificate, then the intermediate ones."""
    key: Path | None = None
    """PEM, without a passphrase; not given or empty: it stands in the file of the chain."""


class Tls(Table, frozen=True):
    """[tls]: for all listeners. TLS 1.2 is the least that is spoken (RFC 8996)."""

    client_ca: Path | None = None
    """PEM: who signs the certificates of clients (empty: nobody); needed where a listener asks for them."""
    ciphers: str = ""
    """Of TLS 1.2, in OpenSSL's words; empty: the library's own choice, which is kept up better."""
    reread: Annotated[Seconds, Between(1, DAY)] = Seconds(10)
    """How often the files are looked at: a renewed certificate is in use so soon; a look costs one stat."""


class Auth(Table, frozen=True):
    """[auth]: who may say who he is, and how."""

    backend: Literal["none", "users", "checkpassword", "dovecot"] = "none"
    """Who knows the passwords: the file `users`, a program, Dovecot; none: nobody but plugins with `auth`."""
    users: Path = Path("users")
    """Of backend "users", written by `forkd user`."""
    checkpassword: Annotated[tuple[str, ...], Ordered()] = ()
    """Of backend "checkpassword": program (absolute path) and arguments, as qmail's; in a sandbox."""
    files: tuple[Path, ...] = ()
    """What the checkpassword program may read, files or folders; nothing else of the machine."""
    dovecot: Path | None = None
    """Of backend "dovecot": the unix socket of its auth service, as /run/dovecot/auth-client."""
    mechanisms: Annotated[
        tuple[Literal["PLAIN", "LOGIN", "SCRAM-SHA-256", "OAUTHBEARER"], ...], NotEmpty()
    ] = ("PLAIN", "LOGIN", "SCRAM-SHA-256")
    """Offered, as far as the backend can do them (SCRAM needs the users file or Dovecot; OAUTHBEARER a
    plugin with `auth`)."""
    failure_delay: Annotated[Seconds, Between(0, 60)] = Seconds(2)
    """Before 535: guessing is slow, a typing error costs no more than a breath."""
    sender_check: bool = True
    """On submission the sender must be an address of the user (553 5.7.1)."""
    timeout: Annotated[Seconds, Between(0.1, 120)] = Seconds(10)
    """For the backend's answer, then 454 4.7.0."""


class Names(Table, frozen=True):
    """[names]: reverse names of clients, for plugins, Received fields and the log."""

    resolve: bool = True
    """Pointer record, with the forward check; off: every client is unknown."""
    servers: tuple[str, ...] = ()
    """Name servers to ask, as "192.0.2.1" or "192.0.2.1:5353"; empty: those of /etc/resolv.conf."""
    timeout: Annotated[Seconds, Between(0.05, 30)] = Seconds(2)
    """For one name; a dead name server delays a greeting by so much at most."""
    cache: Annotated[int, Between(1, 10_000_000)] = 10_000
    """Names each worker remembers: some 200 octets each."""
    ttl_max: Annotated[Seconds, Between(1, 7 * DAY)] = Seconds(3600)
    """A name is asked for again after its own time to live, and after this at the latest."""
    ttl_negative: Annotated[Seconds, Between(1, DAY)] = Seconds(60)
    """How long it is remembered that a client has no name."""


class Networks(Table, frozen=True):
    """[networks]: which clients are treated how."""

    trusted: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Exempt from per-address limits and rates; never from relay rules."""
    relay: tuple[str, ...] = ()
    """May send to any domain (through queue.relay_transport); empty: no open relay by accident."""
    proxy: tuple[str, ...] = ()
    """May (and must) say by a PROXY header who the client is, on listeners with proxy = true."""
    xclient: tuple[str, ...] = ()
    """May say by XCLIENT who the client is; who says it is believed, so nobody may by default."""
    wire_reject: tuple[str, ...] = ()
    """`wire` is reject for these clients, whatever their listener says ..."""
    wire_normalize: tuple[str, ...] = ()
    """... and normalize for these; where both match, the narrower network counts."""


EDITS_ADD = 65_536
"""Octets by which plugins may make a message longer than limits.message_size."""


class Limits(Table, frozen=True):
    """[limits]: what one client may use. A client is an IPv4 address or an IPv6 /64; rates are counted
    over all workers; 0: no limit."""

    message_size: Annotated[Bytes, Between(1, 1 << 40)] = Bytes(50 << 20)
    """Of the message as it comes in; announced by SIZE (Gmail, Outlook.com: 25 to 50 MB)."""
    recipients: Count = 1000
    """Per transaction: 452 4.5.3 beyond (RFC 5321 4.5.3.1.8 asks for 100 at least)."""
    command_line: Annotated[int, Between(512, 65_536)] = 512
    """Octets with CRLF (RFC 5321 4.5.3.1.4); extensions add theirs."""
    errors: Count = 20
    """Refused commands (5xx) since the last accepted message, then 421 (Postfix smtpd_hard_error_limit)."""
    sessions_per_client: Count = 50
    """At once, per client (Postfix smtpd_client_connection_count_limit)."""
    connections_per_minute: CountOrNone = 0
    """Per client, then 421 4.7.0; large senders open many, so no number fits everybody."""
    messages_per_minute: CountOrNone = 0
    """Per client, then 450 4.7.1 at MAIL."""
    recipients_per_minute: CountOrNone = 0
    """Per client, then 452 4.7.1 at RCPT."""
    auth_failures_per_minute: CountOrNone = 10
    """Wrong passwords per client, then 421 4.7.0: ten are more typing errors than anybody makes."""
    account_failures_per_minute: CountOrNone = 10
    """Wrong passwords per account, over all clients: guessing from a thousand addresses is slow too."""
    network_prefix_v4: Annotated[int, Between(8, 32)] = 24
    """What one network is, for the limits per network and the fair share of sandboxes: the /24 that the
    world routes at least ..."""
    network_prefix_v6: Annotated[int, Between(16, 64)] = 48
    """... and the /48 that one site has (RFC 6177)."""
    sessions_per_network: CountOrNone = 0
    """At once, per network."""
    connections_per_minute_network: CountOrNone = 0
    """Per network."""
    messages_per_minute_network: CountOrNone = 0
    """Per network."""
    recipients_per_minute_network: CountOrNone = 0
    """Per network."""
    sessions: Annotated[int, Between(1, 1_000_000)] = 10_000
    """At once, per worker: each needs a descriptor and up to 16 KiB. When all are taken, the longest
    idle go (421 4.3.2), trusted clients and users last."""
    max_hops: Count = 100
    """Received fields; more is a loop (RFC 5321 6.3 asks for 100 at least)."""
    tarpit_count: CountOrNone = 0
    """From this recipient of a transaction on, each accepted one is answered tarpit_delay later (qmail's
    tarpitcount), but for trusted clients; 0: none is. It slows the client, and holds his sandboxes until
    others wait for them. All of it together is timeouts.idle_session at most, then 421."""
    tarpit_delay: Annotated[Seconds, Between(0, 240)] = Seconds(5)
    """As qmail; a client waits 5 minutes for this reply (RFC 5321 4.5.3.2.3)."""
    relay_probe: bool = True
    """Refuse %, ! and a second @ in a local part from a client that may not relay (550 5.7.1)."""

    @property
    def edited_size(self) -> int:
        """Octets that a message may have after plugins edited it: one of nearly message_size that gets a
        header field is still taken."""
        return self.message_size + EDITS_ADD


class Timeouts(Table, frozen=True):
    """[timeouts]: how long a client may take."""

    command: Wait = Seconds(300)
    """Between commands (RFC 5321 4.5.3.2.7)."""
    data_block: Wait = Seconds(180)
    """Between two pieces of the message (RFC 5321 4.5.3.2.5)."""
    data_total: Wait = Seconds(600)
    """For the whole of DATA (RFC 5321 4.5.3.2.6), so that a dripping client ends ..."""
    data_per_mib: Annotated[Seconds, Between(0, 3600)] = Seconds(60)
    """... and this much more for each MiB received: 50 MiB may take an hour."""
    idle_session: Wait = Seconds(1800)
    """A session without a finished transaction: NOOP and RSET alone do not keep a place for ever."""
