"""What may be set, what is its default, and why that one? One struct per TOML table."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from forkd.config.units import Bytes as Bytes  # noqa: PLC0414 - part of the schema's words
from forkd.config.units import Seconds as Seconds  # noqa: PLC0414

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
)
"""What sandbox.require may name: the walls that the start-up self-test reports on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Between:
    """Range of a number, both ends included, in the base unit; `None`: no end."""

    low: float
    high: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class NotEmpty:
    """A string or list that must say something."""


_DAY = 86_400.0
Count = Annotated[int, Between(1, 1_000_000_000)]
CountOrNone = Annotated[int, Between(0, 1_000_000_000)]
Wait = Annotated[Seconds, Between(0.001, 30 * _DAY)]
Text = Annotated[str, NotEmpty()]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: frozen, no unknown keys. Ranges stand in the types; reader.py holds them."""


class Server(Table, frozen=True):
    """[server]: who we are, where we write, how many processes."""

    hostname: str = ""
    """Name in greeting, Received and EHLO reply; empty: the machine's own name (load() fills it in)."""
    data_dir: Path = Path("var")
    """spool/, mail/ (default Maildirs), run/ (sockets) lie here; absolute after load()."""
    user: Text = "forkd"
    """Who workers run as when root starts us."""
    queue_user: Text = "forkd-queue"
    """Who qmgr runs as: it alone may read the spool and write Maildirs."""
    admin_user: Text = "forkd-admin"
    """Who the control socket and the counters run as: they need no mail."""
    workers: Annotated[int, Between(0, 1024)] = 0
    """Worker processes; 0: one per CPU this process may use."""
    heartbeat: Annotated[Seconds, Between(2, 3600)] = Seconds(10)
    """A worker whose loop stood still for so long is killed and replaced (it beats once a second)."""
    stop_timeout: Annotated[Seconds, Between(0, _DAY)] = Seconds(30)
    """How long TERM lets transactions finish (below systemd's TimeoutStopSec, 90 s)."""


class Listener(Table, frozen=True):
    """[listener.NAME]: one address we accept mail on."""

    address: str = "127.0.0.1:2525"
    """HOST:PORT; IPv6 as [::1]:PORT; loopback unless the admin says otherwise."""
    role: Literal["mx"] = "mx"
    """mx: takes mail for [domain]s from anybody."""
    wire: Literal["normalize", "reject"] = "normalize"
    """Bare CR or LF in a message: made CRLF or space, as Postfix does, or refused (550 5.6.0)."""
    early_talker: Literal["refuse", "ignore"] = "refuse"
    """A client that does not wait for a reply where it must (RFC 2920 3.1) has 554 5.5.1, or is served on."""
    backlog: Annotated[int, Between(1, 65_535)] = 1024
    """Connections the kernel holds while workers are busy; it caps them at net.core.somaxconn."""


class Domain(Table, frozen=True):
    """[domain."NAME"]: a domain whose mail we take."""

    mailboxes: Literal["*"] | tuple[str, ...] = "*"
    """Local parts that exist (compared without case), or "*" for every valid one."""
    detail: str = "+"
    """Separator of a detail address (user+detail), one character; empty: none."""
    transport: Text = "local"
    """Name of the [transport] that delivers this domain's mail."""


class Networks(Table, frozen=True):
    """[networks]: which clients are treated how."""

    trusted: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Exempt from per-address limits and rates; never from relay rules."""
    relay: tuple[str, ...] = ()
    """May send to any domain (through queue.relay_transport); empty: no open relay by accident."""


class Limits(Table, frozen=True):
    """[limits]: what one client may use."""

    message_size: Annotated[Bytes, Between(1, 1 << 40)] = Bytes(50 << 20)
    """Of the message as it comes in; announced by SIZE (Gmail, Outlook.com: 25 to 50 MB)."""
    recipients: Count = 1000
    """Per transaction: 452 4.5.3 beyond (RFC 5321 4.5.3.1.8 asks for 100 at least)."""
    command_line: Annotated[int, Between(512, 65_536)] = 512
    """Octets with CRLF (RFC 5321 4.5.3.1.4); extensions add theirs."""
    errors: Count = 20
    """Refused commands (5xx) since the last accepted message, then 421 (Postfix smtpd_hard_error_limit)."""
    sessions_per_client: Count = 50
    """At once, per IPv4 address or IPv6 /64 (Postfix smtpd_client_connection_count_limit)."""
    connections_per_minute: CountOrNone = 0
    """Per client; 0: no rate."""
    sessions: Annotated[int, Between(1, 1_000_000)] = 10_000
    """At once, per worker: each needs a descriptor and up to 16 KiB."""
    max_hops: Count = 100
    """Received fields; more is a loop (RFC 5321 6.3 asks for 100 at least)."""
    relay_probe: bool = True
    """Refuse %, ! and a second @ in a local part from a client that may not relay (550 5.7.1)."""


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
    """... up to this."""
    give_up: Annotated[Seconds, Between(0, 30 * _DAY)] = Seconds(432_000)
    """5 days, as everybody (RFC 5321 4.5.4.1: 4 to 5 days)."""
    concurrency: Annotated[int, Between(1, 1024)] = 8
    """Deliveries at once; each waits for a disk or a next hop."""
    relay_transport: str = ""
    """For recipients outside every [domain], from networks.relay; must be set when that is."""


class Maildir(Table, frozen=True, tag_field="kind", tag="maildir"):
    """[transport.NAME] kind = "maildir"."""

    path: str = "mail/{domain}/{user}"
    """{domain}, {user}: made safe for a path; relative to data_dir."""


class Discard(Table, frozen=True, tag_field="kind", tag="discard"):
    """[transport.NAME] kind = "discard": counted and dropped."""

    at: Literal["queue", "accept"] = "queue"
    """Dropped by qmgr like any delivery, or by the worker at the end of data, never spooled (DISCARD)."""


Transport = Maildir | Discard


class Sandbox(Table, frozen=True):
    """[sandbox]: walls around plugins."""

    require: tuple[str, ...] = ("seccomp", "no_new_privs", "rlimits", "files")
    """Layers (of LAYERS) without which forkd does not start; `files` is waived for trusted plugins."""
    uid_base: Annotated[int, Between(65_536, 4_294_000_000)] = 1_900_000_000
    """First of the plugins' uids when root starts us (outside every range systemd and Debian hand out)."""
    message_copies: Annotated[Bytes, Between(0, 1 << 40)] = Bytes(256 << 20)
    """Budget per worker for sealed copies of messages; beyond it 451 4.3.2."""
    start_timeout: Wait = Seconds(30)
    """For loading a plugin: importing it and its plugin_init."""


class Log(Table, frozen=True):
    """[log]: standard error, one line per event."""

    format: Literal["logfmt", "json"] = "logfmt"
    """logfmt for eyes and grep, json for collectors."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """info has one line per session, message and delivery; warning only what went wrong."""


class Plugins(Table, frozen=True):
    """[plugins]: where plugins are switched on."""

    dir: Path | None = None
    """Folder of NN-name.toml files; default: plugins.d beside forkd.toml, filled in when it is there."""


# --- a plugin: manifest (its author's) and entry (the admin's) ---------------------------------------

HOOKS = ("connect", "helo", "mail", "rcpt", "data", "message", "disconnect")
API_VERSION = 1
"""Of forkd.sdk; a manifest names the one it was written for."""


class Setting(Table, frozen=True, kw_only=True):
    """[settings.NAME] of a manifest: one setting the admin may or must give."""

    type: Literal["string", "integer", "number", "boolean", "strings", "path", "paths"]
    """path, paths: the admin's are relative to his file, a default to the plugin's folder."""
    description: str = ""
    default: Any = msgspec.UNSET
    """No default: the admin must give it."""


class WantedHeaders(Table, frozen=True, kw_only=True):
    """wants.powers.edit_headers of a manifest."""

    names: Annotated[tuple[str, ...], NotEmpty()]
    reason: Text


class WantedPowers(Table, frozen=True):
    """[wants.powers] of a manifest: power = "reason"."""

    accept: Text = ""
    discard: Text = ""
    edit_headers: WantedHeaders | None = None


class WantedReads(Table, frozen=True):
    """[wants.reads] of a manifest: part of the mail = "reason"."""

    envelope: Text = ""
    headers: Text = ""
    body: Text = ""


class Wants(Table, frozen=True):
    """[wants] of a manifest: everything beyond its own hooks' fields and deny, defer, disconnect."""

    powers: WantedPowers = WantedPowers()
    reads: WantedReads = WantedReads()
    files: dict[str, Text] = {}
    """Name of a path setting = reason: the files that setting names."""


class Powers(Table, frozen=True):
    """What a plugin may do to mail beyond deny, defer and disconnect."""

    accept: bool = False
    discard: bool = False
    edit_headers: tuple[str, ...] = ()
    """Header names it may add; a trailing * matches a prefix."""


class PluginLimits(Table, frozen=True):
    """[limits] of a plugin (plugins.md)."""

    timeout: Annotated[Seconds, Between(0.001, 600)] = Seconds(5)
    """Wall time of one call; a client waits for it (RFC 5321 4.5.3.2: 5 minutes for most commands)."""
    message_timeout: Annotated[Seconds, Between(0.001, 600)] = Seconds(60)
    """The same for the `message` hook; clients wait 10 minutes after the dot (RFC 5321 4.5.3.2.6)."""
    cpu: Annotated[Seconds, Between(0.001, 3600)] = Seconds(2)
    """CPU time per session."""
    memory: Annotated[Bytes, Between(1 << 20, 1 << 40)] = Bytes(256 << 20)
    """Address space above that of the loaded plugin."""
    open_files: Annotated[int, Between(8, 65_536)] = 32
    sandboxes: CountOrNone = 0
    """Alive at once over all workers; 0: 64 per CPU."""
    spare: Annotated[int, Between(0, 1000)] = 2
    """Warm sandboxes kept ready per worker."""


class Manifest(Table, frozen=True, kw_only=True):
    """plugin.toml, written by the plugin's author, readable without running the plugin."""

    name: Text
    version: Text
    api: int
    kind: Literal["python"] = "python"
    description: str = ""
    module: str = ""
    """File in the plugin's folder; empty: NAME.py."""
    hooks: Annotated[
        tuple[Literal["connect", "helo", "mail", "rcpt", "data", "message", "disconnect"], ...], NotEmpty()
    ]
    settings: dict[str, Setting] = {}
    wants: Wants = Wants()
    limits: PluginLimits = PluginLimits()
    """Suggested: what is stricter than the default applies, what is looser only when the admin writes it."""


class Grants(Table, frozen=True):
    """[grants] of an entry: what the admin allows."""

    accept: bool = False
    discard: bool = False
    edit_headers: tuple[str, ...] = ()
    reads: tuple[Literal["envelope", "headers", "body"], ...] = ()
    files: tuple[Path, ...] = ()
    """Files or folders, read-only."""


class Entry(Table, frozen=True, kw_only=True):
    """plugins.d/NN-name.toml, written by the admin."""

    plugin: Text
    """Name of a plugin that comes with forkd, or path of a plugin's folder."""
    enabled: bool = True
    order: Annotated[int, Between(0, 999_999)] | None = None
    """Lower is asked first; default: the number the file's name begins with."""
    mode: Literal["enforce"] = "enforce"
    settings: dict[str, Any] = {}
    grants: Grants = Grants()
    limits: PluginLimits = PluginLimits()
    on_failure: Literal["disconnect", "defer", "skip", "deny"] = "disconnect"
    trusted: bool = False
    """Starts even where its file access cannot be confined (sandbox.require files)."""


class PluginConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One switched-on plugin, manifest and entry brought together and checked: what the program uses."""

    name: str
    version: str
    folder: Path
    """Absolute; the plugin's module and manifest lie here."""
    module: str
    """File name of the module in `folder`, e.g. block_senders.py."""
    order: int
    hooks: tuple[str, ...]
    settings: dict[str, Any]
    """Validated, defaults filled in, paths absolute; JSON-able."""
    powers: Powers
    reads: tuple[str, ...]
    """Of envelope, headers, body."""
    files: tuple[Path, ...]
    """Granted for reading, absolute."""
    limits: PluginLimits
    """Entry over suggestion over default; sandboxes 0 still means 64 per CPU."""
    on_failure: Literal["disconnect", "defer", "skip", "deny"] = "disconnect"
    trusted: bool = False
    source: str = ""
    """The entry's file, for messages."""


class Config(Table, frozen=True):
    """The whole of forkd.toml, with defaults; plugins.d/*.toml becomes LoadedConfig.plugins."""

    server: Server = Server()
    listener: dict[str, Listener] = {}
    """None given: load() puts {"default": Listener()}."""
    domain: dict[str, Domain] = {}
    """Without any file: localhost and test.local, every mailbox; a file must name its own."""
    networks: Networks = Networks()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    queue: Queue = Queue()
    transport: dict[str, Transport] = {}
    """load() puts `local`, a maildir, unless it is set."""
    sandbox: Sandbox = Sandbox()
    log: Log = Log()
    plugins: Plugins = Plugins()
