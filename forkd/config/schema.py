"""What may be set, what is its default, and why that one? One struct per TOML table.

The whole of forkd.toml. The tables about our processes stand in server_schema, those about clients in
client_schema, those about plugins in manifest_schema and plugin_schema; who uses the schema imports all of it
from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from forkd.config.admin_schema import Admin
from forkd.config.client_schema import Auth, Certificate, Limits, Listener, Names, Networks, Timeouts, Tls
from forkd.config.maildir_schema import Maildir
from forkd.config.manifest_schema import (
    API_VERSION,
    HOOKS,
    Hook,
    Manifest,
    PluginLimits,
    Setting,
    Wanted,
    WantedCapabilities,
    WantedConnect,
    WantedDns,
    WantedDomains,
    WantedNames,
    WantedPowers,
    WantedReads,
    WantedThreads,
    Wants,
)
from forkd.config.metrics_schema import Metrics
from forkd.config.next_hop_schema import Lmtp, NextHop, Smtp
from forkd.config.pipe_schema import Pipe
from forkd.config.plugin_schema import Capabilities, Entry, Grants, Member, PluginConfig, Powers, Scope
from forkd.config.probe_schema import Probe
from forkd.config.report_schema import Reports
from forkd.config.server_schema import Pool, Server
from forkd.config.table import DAY, Between, NotEmpty, Ordered, Table, Text, Wait, WaitOrNone
from forkd.config.trace_schema import Trace
from forkd.config.units import Bytes, Seconds

__all__ = [
    "API_VERSION",
    "HOOKS",
    "LAYERS",
    "Admin",
    "Aliases",
    "Auth",
    "Between",
    "Breaker",
    "Bytes",
    "Capabilities",
    "Certificate",
    "Config",
    "Crash",
    "Discard",
    "Dns",
    "Domain",
    "Entry",
    "Grants",
    "Hook",
    "Limits",
    "Listener",
    "Lmtp",
    "Log",
    "Maildir",
    "Manifest",
    "Member",
    "Metrics",
    "Names",
    "Networks",
    "NextHop",
    "NotEmpty",
    "Ordered",
    "Pipe",
    "PluginConfig",
    "PluginLimits",
    "Plugins",
    "Pool",
    "Powers",
    "QmailQueue",
    "Queue",
    "Reports",
    "Route",
    "Sandbox",
    "Scope",
    "Seconds",
    "Server",
    "Setting",
    "Smtp",
    "State",
    "Table",
    "Timeouts",
    "Tls",
    "Trace",
    "Transport",
    "Wanted",
    "WantedCapabilities",
    "WantedConnect",
    "WantedDns",
    "WantedDomains",
    "WantedNames",
    "WantedPowers",
    "WantedReads",
    "WantedThreads",
    "Wants",
]

LAYERS = (
    "seccomp",
    "no_new_privs",
    "rlimits",
    "cpu_timer",
    "leash",
    "files",
    "landlock",
    "network",
    "signals",
    "uid",
    "non_dumpable",
    "empty_environment",
    "namespaces",
    "cgroup",
    "roles",
)
"""What sandbox.require may name: the walls that the start-up self-test reports on."""


class Domain(Table, frozen=True):
    """[domain."NAME"]: a domain whose mail we take."""

    mailboxes: Literal["*"] | tuple[str, ...] = "*"
    """Local parts that exist (compared without case), or "*" for every valid one."""
    detail: str = "+"
    """Separator of a detail address (user+detail), one character; empty: none."""
    transport: Text = "local"
    """Name of the [transport] that delivers this domain's mail."""


class Aliases(Table, frozen=True):
    """[aliases]: addresses of ours that stand for others (how a file is written: config/aliases.py)."""

    files: tuple[Path, ...] = ()
    """Together one table. An alias exists, whatever domain.mailboxes lists. Who its members are is settled
    when a message comes in: they share its queue file, be there two or 10,000, and limits.recipients does not
    count them. Read at start."""


class Queue(Table, frozen=True):
    """[queue]: keeping and delivering."""

    durability: Literal["fsync", "none"] = "fsync"
    """fsync: 250 means on disk. none: a power cut loses mail; for tests, said at start and in status."""
    min_free: Annotated[Bytes, Between(0, 1 << 50)] = Bytes(64 << 20)
    """Below this MAIL is refused with 452 4.3.1: refused early is better than refused after 50 MiB."""
    scan_interval: Annotated[Seconds, Between(0.1, 3600)] = Seconds(5)
    """How often the spool is looked through for mail whose poke was lost."""
    retry_first: Wait = Seconds(300)
    """First retry; each further one waits about twice as long, with jitter ..."""
    retry_max: Wait = Seconds(14_400)
    """... up to this. A next hop that is away is asked again after 12 times retry_first at the latest."""
    give_up: Annotated[Seconds, Between(0, 30 * DAY)] = Seconds(432_000)
    """5 days, as everybody (RFC 5321 4.5.4.1: 4 to 5 days)."""
    concurrency: Annotated[int, Between(1, 1024)] = 8
    """Deliveries at once to one destination, where a route says nothing else; threads of a transport that
    waits for a disk, at most."""
    relay_transport: str = ""
    """For recipients outside every [domain]: those of clients in networks.relay, for which it must be set
    unless [route."*"] is there, members of aliases, senders who get a report (without it: [reports])."""


class Discard(Table, frozen=True, tag_field="kind", tag="discard"):
    """[transport.NAME] kind = "discard": counted and dropped."""

    at: Literal["queue", "accept"] = "queue"
    """Dropped by qmgr like any delivery, or by the worker at the end of data, never spooled (DISCARD)."""


class QmailQueue(Table, frozen=True, tag_field="kind", tag="qmail-queue"):
    """[transport.NAME] kind = "qmail-queue": handed to a queue program of qmail's kind."""

    argv: Annotated[tuple[str, ...], Ordered()] = ()
    """Program (absolute path) and arguments; empty: QMAILQUEUE of the environment that forkd is started in,
    split at blanks, else /var/qmail/bin/qmail-queue."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """What the program finds beside PATH and USE_FSYNC=1; nothing of forkd's own environment reaches it. So
    IndiMail's QUEUE_BASE, QUEUE_COUNT, QUEUE_START and CONFSPLIT must stand here where its other programs
    have them: mail in a queue that nobody serves stays there."""
    timeout: Annotated[Seconds, Between(1, DAY)] = Seconds(300)
    """It is killed then, with its process group, and the mail tried again; qmail's own limit is a day, but
    with accept = "proxy" a client waits, 10 minutes at most (RFC 5321 4.5.3.2.6)."""


Transport = Maildir | Discard | QmailQueue | Smtp | Lmtp | Pipe


class Route(Table, frozen=True):
    """[route."PATTERN"]: mail that goes another way than its domain's (patterns: config/routes.py)."""

    transport: Text = "local"
    """Name of the [transport] that delivers it."""
    retry_first: WaitOrNone = Seconds(0)
    """As in [queue], for this mail alone; 0: what [queue] says."""
    retry_max: WaitOrNone = Seconds(0)
    """The same."""
    give_up: WaitOrNone = Seconds(0)
    """The same."""
    warn_after: WaitOrNone = Seconds(0)
    """As in [reports], for this mail alone; 0: what [reports] says; longer than give_up: never."""
    concurrency: Annotated[int, Between(0, 1024)] = 0
    """Deliveries at once to one destination, at most, of transports that wait for others (smtp, lmtp, pipe);
    0: what [queue] says. How long one may take is its transport's: mail that needs other timeouts has a
    [transport] of its own."""


class Sandbox(Table, frozen=True):
    """[sandbox]: walls around plugins."""

    require: tuple[str, ...] = ("seccomp", "no_new_privs", "rlimits", "files")
    """Layers (`forkd sandbox status`) without which forkd does not start; trusted plugins need no `files`."""
    uid_base: Annotated[int, Between(65_536, 4_294_000_000)] = 1_900_000_000
    """First of the plugins' uids when root starts us (outside every range systemd and Debian hand out)."""
    message_copies: Annotated[Bytes, Between(0, 1 << 40)] = Bytes(256 << 20)
    """Budget per worker for copies of messages, and what programs make of them; beyond it 451 4.3.2."""
    message_budget: Annotated[Seconds, Between(0.001, 600)] = Seconds(120)
    """Wall time of all plugins together on one message: its client waits 10 minutes at most (RFC 5321
    4.5.3.2.6), and then sends it again. Plugins not yet asked by then: 451 4.3.2."""
    overload_wait: Annotated[Seconds, Between(0, 60)] = Seconds(1)
    """How long a session waits for a sandbox when all are in use, before 451 4.3.2."""
    start_timeout: Wait = Seconds(30)
    """For loading a plugin: importing it and its plugin_init."""
    namespaces: Literal["auto", "off"] = "auto"
    """auto: each zygote in network, IPC, PID, mount and UTS namespaces of its own, as far as this machine and
    this user allow; in a user namespace too where we are not root, or are without CAP_SYS_ADMIN. What is
    missing is reported."""
    cgroup: Literal["auto", "off"] = "auto"
    """auto: each zygote in a cgroup (v2) of its own where one was delegated to us."""


class Dns(Table, frozen=True):
    """[dns]: lookups of next hops (qmgr's), and for plugins that were granted them (the broker's)."""

    servers: tuple[Text, ...] = ()
    """Addresses, "127.0.0.1" or "127.0.0.1:5353"; empty: those of /etc/resolv.conf."""
    timeout: Annotated[Seconds, Between(0.1, 60)] = Seconds(5)
    """For one lookup, over all servers; then the answer is a temporary failure."""
    cache: Annotated[int, Between(0, 1_000_000)] = 10_000
    """Answers kept, for their TTL at most."""
    rate: Annotated[int, Between(1, 1_000_000)] = 1000
    """Lookups a second of one plugin, over all workers."""
    per_session: Annotated[int, Between(1, 100_000)] = 200
    """Lookups of one plugin in one session."""


class State(Table, frozen=True):
    """[state]: keys and values that plugins keep (the broker's)."""

    max_keys: Annotated[int, Between(1, 100_000_000)] = 1_000_000
    """Of one plugin; beyond it, setting a new key fails until others have expired."""
    max_value: Annotated[Bytes, Between(1, 1 << 16)] = Bytes(4096)
    """Of one value; keys have 255 octets at most."""
    per_session: Annotated[int, Between(1, 1_000_000)] = 1000
    """Requests of one plugin in one session."""


class Breaker(Table, frozen=True):
    """[breaker]: when is a plugin that fails for everyone not asked any more?"""

    window: Annotated[Seconds, Between(1, 3600)] = Seconds(30)
    """Open when in so much time all calls failed, ..."""
    networks: Annotated[int, Between(2, 1000)] = 8
    """... for at least so many client networks: no client alone can switch a scanner off."""
    pause: Annotated[Seconds, Between(1, 3600)] = Seconds(30)
    """While open, one session is let through so often, to see."""


class Crash(Table, frozen=True):
    """[crash]: records of failed calls, for `forkd plugin replay`. They hold mail: off by default."""

    keep: Annotated[int, Between(0, 10_000)] = 0
    """So many, over all plugins; the oldest go first."""
    max_size: Annotated[Bytes, Between(0, 1 << 30)] = Bytes(1 << 20)
    """Of the message in a record; a larger one is cut, and the record says so."""


class Log(Table, frozen=True):
    """[log]: standard error or systemd's journal, one line per event."""

    format: Literal["logfmt", "json", "journal"] = "logfmt"
    """logfmt for eyes and grep, json for collectors; journal: to systemd's journal and not to standard error,
    each field as one of its own, so that `journalctl FORKD_SESSION=ID` finds them. To journal, or from it to
    another, is by restart."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """info has one line per session, message and delivery; warning only what went wrong."""


class Plugins(Table, frozen=True):
    """[plugins]: where plugins are switched on."""

    dir: Path | None = None
    """Folder of NN-name.toml files; default: plugins.d beside forkd.toml, filled in when it is there."""


class Config(Table, frozen=True):
    """The whole of forkd.toml, with defaults; plugins.d/*.toml becomes LoadedConfig.plugins."""

    server: Server = Server()
    pool: Pool = Pool()
    listener: dict[str, Listener] = msgspec.field(default_factory=dict)
    """None given: one named `default`, with every key at its default."""
    certificate: dict[str, Certificate] = msgspec.field(default_factory=dict)
    """By the name that clients ask for, or "*.example.org"; the first one is for all others."""
    tls: Tls = Tls()
    auth: Auth = Auth()
    names: Names = Names()
    domain: dict[str, Domain] = msgspec.field(default_factory=dict)
    """Without any file: localhost and test.local, every mailbox; a file must name its own."""
    networks: Networks = Networks()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    queue: Queue = Queue()
    reports: Reports = Reports()
    aliases: Aliases = Aliases()
    route: dict[str, Route] = msgspec.field(default_factory=dict)
    """By pattern, in the order of the file: the first that matches counts, before [domain] and
    queue.relay_transport. Which recipients exist is [domain]'s to say."""
    transport: dict[str, Transport] = msgspec.field(default_factory=dict)
    """`local` is a maildir, unless it is set."""
    sandbox: Sandbox = Sandbox()
    dns: Dns = Dns()
    state: State = State()
    breaker: Breaker = Breaker()
    crash: Crash = Crash()
    trace: Trace = Trace()
    log: Log = Log()
    admin: Admin = Admin()
    metrics: Metrics = Metrics()
    probe: Probe = Probe()
    plugins: Plugins = Plugins()
