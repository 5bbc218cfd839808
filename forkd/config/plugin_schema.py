"""What may be said about a plugin? Its author's manifest, the admin's entry, and both brought together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from forkd.config.table import Between, CountOrNone, NotEmpty, Table, Text
from forkd.config.units import Bytes, Seconds

Hook = Literal["connect", "helo", "auth", "mail", "rcpt", "data", "message", "disconnect"]
HOOKS = ("connect", "helo", "auth", "mail", "rcpt", "data", "message", "disconnect")
"""In the order in which a session comes to them; `auth` only for plugins with the power of that name."""
Kind = Literal["python", "indimail", "program"]
"""What a plugin is: a Python module, a compiled plugin of IndiMail's qmail-smtpd, any program."""
API_VERSION = 1
"""Of forkd.sdk; a manifest names the one it was written for."""


class Setting(Table, frozen=True, kw_only=True):
    """[settings.NAME] of a manifest: one setting the admin may or must give."""

    type: Literal["string", "integer", "number", "boolean", "strings", "path", "paths"]
    """path, paths: the admin's are relative to his file, a default to the plugin's folder."""
    description: str = ""
    default: Any = msgspec.UNSET
    """No default: the admin must give it."""
    min: float | None = None
    """Of an integer or number: the least it may be."""
    max: float | None = None
    """Likewise the most."""
    choices: tuple[Text, ...] = ()
    """Of a string, or of each of strings: the words it may be; empty: any. What needs more than a range or
    words (a rule, a pattern) is checked by plugin_init, which raises ValueError."""
    secret: bool = False
    """Its value is for the plugin alone: never shown, not even in an error."""


class Wanted(Table, frozen=True, kw_only=True):
    """A want with more to say than its reason: { reason = "…", when = { action = "quarantine" } }."""

    reason: Text
    when: dict[str, Any] = msgspec.field(default_factory=dict)
    """Settings = values with which it is wanted; empty: always."""


class WantedNames(Wanted, frozen=True, kw_only=True):
    """wants.powers.edit_headers and export of a manifest."""

    names: tuple[str, ...] = ()
    names_in: tuple[str, ...] = ()
    """Settings in which the admin names them: each text there, or what stands in it before a colon."""


class WantedDomains(Wanted, frozen=True, kw_only=True):
    """wants.powers.add_recipient of a manifest."""

    domains: Annotated[tuple[str, ...], NotEmpty()]
    """Of the recipients it adds; "*": whichever the admin grants, since an author cannot know them."""


Reason = Annotated[str, NotEmpty()] | Wanted


class WantedPowers(Table, frozen=True):
    """[wants.powers] of a manifest: power = "reason"."""

    accept: Reason | None = None
    discard: Reason | None = None
    quarantine: Reason | None = None
    edit_headers: WantedNames | None = None
    edit_body: Reason | None = None
    add_recipient: WantedDomains | None = None
    delete_recipient: Reason | None = None
    rewrite_recipient: Reason | None = None
    change_sender: Reason | None = None
    export: WantedNames | None = None
    auth: Reason | None = None


class WantedReads(Table, frozen=True):
    """[wants.reads] of a manifest: part of the mail = "reason"."""

    envelope: Reason | None = None
    headers: Reason | None = None
    body: Reason | None = None


class WantedDns(Wanted, frozen=True, kw_only=True):
    """wants.capabilities.dns of a manifest."""

    suffixes: tuple[str, ...] = ()
    """Of the names it looks up; "any": whatever it likes, which can carry data out."""
    suffixes_in: tuple[str, ...] = ()
    """Settings in which the admin names them: each text there, or what stands in it before a blank."""


class WantedConnect(Wanted, frozen=True, kw_only=True):
    """wants.capabilities.connect of a manifest."""

    targets: Annotated[tuple[str, ...], NotEmpty()]
    """Names by which it asks for connections; where they go, the admin says."""


class WantedThreads(Wanted, frozen=True, kw_only=True):
    """wants.capabilities.threads of a manifest."""

    count: Annotated[int, Between(1, 64)]


class WantedCapabilities(Table, frozen=True):
    """[wants.capabilities] of a manifest: what it asks of the world beside the mail."""

    dns: WantedDns | None = None
    state: Reason | None = None
    connect: WantedConnect | None = None
    threads: WantedThreads | None = None


class Wants(Table, frozen=True):
    """[wants] of a manifest: everything beyond its own hooks' fields and deny, defer, disconnect."""

    powers: WantedPowers = WantedPowers()
    reads: WantedReads = WantedReads()
    capabilities: WantedCapabilities = WantedCapabilities()
    files: dict[str, Text] = msgspec.field(default_factory=dict)
    """Name of a path setting = reason: the files that setting names."""


class Granted(Table, frozen=True):
    """What an admin may let a plugin do to mail beyond deny, defer and disconnect."""

    accept: bool = False
    """May end its hook early: later plugins are not asked."""
    discard: bool = False
    """May drop what was answered 250."""
    quarantine: bool = False
    """May have a message held back until an admin releases it."""
    edit_headers: tuple[str, ...] = ()
    """Header names it may add, change and delete; a trailing * matches a prefix."""
    edit_body: bool = False
    """May replace everything behind the header."""
    add_recipient: tuple[str, ...] = ()
    """Domains (A-labels, lower case) whose recipients it may add; "*": any of ours."""
    delete_recipient: bool = False
    rewrite_recipient: bool = False
    """May put another address of ours in the place of a recipient, at `rcpt`."""
    change_sender: bool = False
    """Of the envelope: where bounces go."""
    export: tuple[str, ...] = ()
    """Session facts it may set for later plugins."""
    auth: bool = False
    """Is shown passwords, and may say that they are right."""


class Powers(Granted, frozen=True):
    """What a plugin may do to mail: what it was granted, and"""

    replace_message: bool = False
    """May put another message, header and body, in the place of one: programs may, and they alone."""


class PluginLimits(Table, frozen=True):
    """[limits] of a plugin (plugins.md)."""

    timeout: Annotated[Seconds, Between(0.001, 600)] = Seconds(5)
    """Wall time of one call; a client waits for it (RFC 5321 4.5.3.2: 5 minutes for most commands)."""
    message_timeout: Annotated[Seconds, Between(0.001, 600)] = Seconds(60)
    """The same for the `message` hook; clients wait 10 minutes after the dot (RFC 5321 4.5.3.2.6)."""
    session_time: Annotated[Seconds, Between(0.001, 3600)] = Seconds(120)
    """Wall time of all its calls in a session: twice what one message may take."""
    cpu: Annotated[Seconds, Between(0.001, 3600)] = Seconds(2)
    """CPU time per session."""
    memory: Annotated[Bytes, Between(1 << 20, 1 << 40)] = Bytes(256 << 20)
    """Address space above that of the loaded plugin."""
    open_files: Annotated[int, Between(8, 65_536)] = 32
    sandboxes: CountOrNone = 0
    """Alive at once over all workers; 0: 64 per CPU. One client network holds an eighth at most, and a
    quarter is kept for networks whose last session ended well."""
    spare: Annotated[int, Between(0, 1000)] = 2
    """Warm sandboxes kept ready per worker."""
    fresh: Literal["session", "call"] = "session"
    """A new sandbox for each session, or for each call: then nothing is kept between hooks, idle sessions
    hold none, and each call costs a fork."""
    reuse: Annotated[int, Between(1, 1_000_000)] = 1
    """Sessions one sandbox may serve, one after the other: more is faster, and what one session did to the
    plugin is there in the next."""


class Manifest(Table, frozen=True, kw_only=True):
    """plugin.toml, written by the plugin's author, readable without running the plugin."""

    name: Text
    version: Text
    api: int
    kind: Literal["python"] = "python"
    description: str = ""
    module: str = ""
    """File in the plugin's folder; empty: NAME.py."""
    hooks: Annotated[tuple[Hook, ...], NotEmpty()]
    settings: dict[str, Setting] = msgspec.field(default_factory=dict)
    wants: Wants = Wants()
    python: str = ""
    """Versions of Python it runs under, e.g. ">=3.11"; empty: any that forkd's own zygote does."""
    requires: tuple[Text, ...] = ()
    """Distributions it imports beside the standard library, e.g. "dkimpy>=1.1"."""
    limits: PluginLimits = PluginLimits()
    """Suggested: what is stricter than the default applies, what is looser only when the admin writes it."""


class Grants(Granted, frozen=True):
    """[grants] of an entry: what the admin allows, the powers and:"""

    reads: tuple[Literal["envelope", "headers", "body"], ...] = ()
    files: tuple[Path, ...] = ()
    """Files or folders, read-only: of them what settings name, and nothing beside."""
    dns: tuple[str, ...] = ()
    """Suffixes of the names it may look up; "any": every name."""
    state: bool = False
    """May keep keys and values in forkd's state store, in a namespace of its own."""
    connect: dict[str, Text] = msgspec.field(default_factory=dict)
    """Target's name -> "HOST:PORT" or "unix:/path": the broker connects, the plugin gets the socket."""
    threads: Annotated[int, Between(0, 64)] = 0
    """Threads beside the first one, for each sandbox. They are counted together, for as many sandboxes as
    limits.sandboxes allows: one sandbox can take those of the others, whose threads then do not start."""
    processes: Annotated[int, Between(0, 64)] = 0
    """Processes that a program may have beside itself, in each run: for pipelines. They are counted together,
    as threads are."""
    exec: tuple[Path, ...] = ()
    """Programs that a program may start."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin or group may ask of the world beside the mail: granted, and wanted."""

    dns: tuple[str, ...] = ()
    """Suffixes (A-labels, lower case, no dot at either end); ("any",): every name."""
    state: bool = False
    connect: dict[str, str] = msgspec.field(default_factory=dict)
    """Target's name -> "HOST:PORT" or "unix:/path"."""
    threads: int = 0
    processes: int = 0
    """That a program may start, beside itself."""
    exec: tuple[Path, ...] = ()
    """Programs that it may start."""

    @property
    def brokered(self) -> bool:
        """Its sandboxes need a channel to the broker."""
        return bool(self.dns or self.state or self.connect)


class Scope(Table, frozen=True):
    """[scope] of an entry: for whom the plugin is asked; an empty list: for all. What is given must all
    match."""

    listeners: tuple[str, ...] = ()
    """Names of [listener]s."""
    networks: tuple[str, ...] = ()
    """Of clients."""
    domains: tuple[str, ...] = ()
    """Of recipients (A-labels, lower case, after load()): asked at rcpt for those, at data and message if
    one of them was accepted, and at no earlier hook."""


class Entry(Table, frozen=True, kw_only=True):
    """plugins.d/NN-name.toml, written by the admin. Which keys belong to which kind: kinds.py."""

    kind: Kind = "python"
    plugin: Text = ""
    """Name of a plugin that comes with forkd, or path of a plugin's folder."""
    package: str = ""
    """Instead: a plugin installed as a Python package, by the name of its entry point in forkd.plugins."""
    python: Path | None = None
    """The interpreter of the virtual environment it lives in; it needs nothing of forkd."""
    so: Path | None = None
    """indimail: the compiled plugin."""
    dir: Path | None = None
    """indimail: or a folder of them, asked one after the other: `base`, then those with a number before its
    ending, from 0 up to the first that is not there."""
    base: Text = "smtpd-plugin.so"
    """indimail: name of the first in `dir`."""
    symbol: Text = "plugin_init"
    """indimail: name of the function that gives a plugin's table."""
    refusal: Literal["command", "session"] = "command"
    """indimail: a refusal refuses the command, as qmail-smtpd does; or ends the session after its reply, as
    its manual has it."""
    data_at: Literal["end", "command"] = "end"
    """indimail: data_func is called after the end of data; or at DATA, before any of it was sent."""
    argv: tuple[Text, ...] = ()
    """program: the whole path of the program, and its arguments."""
    unchanged_if_empty: bool = True
    """program: no output with exit status 0 leaves the message as it is (qmail-qfilter); else it is empty
    then (qmail-multi)."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """indimail, program: variables of its environment beside those that forkd sets."""
    uid: Annotated[int, Between(1, 4_294_967_000)] | None = None
    """Who it runs as when root starts us; default: the next of sandbox.uid_base."""
    enabled: bool = True
    order: Annotated[int, Between(0, 999_999)] | None = None
    """Lower is asked first; default: the number the file's name begins with."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """shadow: asked on live traffic, its verdict logged and never obeyed, never waited for."""
    group: str = ""
    """Plugins of one group share a sandbox per session, and with it grants, limits and failures."""
    scope: Scope = Scope()
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    grants: Grants = Grants()
    limits: PluginLimits = PluginLimits()
    on_failure: Literal["disconnect", "defer", "skip", "deny"] = "disconnect"
    """What the client gets when it crashes, is late or is killed: 421 and the end of the session; 451 to the
    command, and the session goes on, but at `connect`, which is no command, 421 and the end as well; nothing;
    550 (at `connect` 554). At `auth` 454 and 535."""
    trusted: bool = False
    """Starts even where its file access cannot be confined (sandbox.require files)."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin of a group: what a zygote loads."""

    name: str
    version: str
    folder: Path
    module: str
    settings: dict[str, Any]
    hooks: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    """Names of settings that are never shown."""
    entry: Path | None = None
    """The admin's file that switched it on."""


class PluginConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One switched-on plugin or group, manifest and entry brought together and checked: what the program
    uses. What belongs to one plugin alone stands in its Member; a plugin without a group has one."""

    name: str
    """Of the plugin; of the group, where there is one."""
    version: str
    """Of the plugin; empty for a group."""
    folder: Path
    """Absolute; the plugin's module and manifest lie here. For a group: that of its first member."""
    module: str
    """File name of the module in `folder`, e.g. block_senders.py. For a group: that of its first member."""
    kind: Kind = "python"
    code: tuple[Path, ...] = ()
    """The files that are loaded, where that is not all of `folder`: compiled plugins in their order."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """That the admin gives it."""
    argv: tuple[str, ...] = ()
    unchanged_if_empty: bool = True
    """These two of kind program, as in the entry."""
    symbol: str = ""
    """These three of kind indimail, as in the entry."""
    refusal: Literal["command", "session"] = "command"
    data_at: Literal["end", "command"] = "end"
    order: int
    """For a group: the lowest of its members."""
    hooks: tuple[str, ...]
    """In the order of HOOKS."""
    settings: dict[str, Any]
    """Validated, defaults filled in, paths absolute; JSON-able. Empty for a group."""
    powers: Powers
    reads: tuple[str, ...]
    """Of envelope, headers, body."""
    files: tuple[Path, ...]
    """Granted for reading, absolute."""
    capabilities: Capabilities = Capabilities()
    limits: PluginLimits
    """Entry over suggestion over default; sandboxes 0 still means 64 per CPU."""
    on_failure: Literal["disconnect", "defer", "skip", "deny"] = "disconnect"
    mode: Literal["enforce", "shadow"] = "enforce"
    trusted: bool = False
    python: Path | None = None
    """Interpreter of its own; None: forkd's."""
    requires: tuple[str, ...] = ()
    """Distributions its members import beside the standard library."""
    libraries: tuple[Path, ...] = ()
    """Folders (site-packages) from which they do."""
    uid: int | None = None
    """Named by the admin; None: master chooses."""
    source: str = ""
    """The entry's file, for messages; of a group: its first member's."""
    group: str = ""
    scope: Scope = Scope()
    members: tuple[Member, ...] = ()
    """In the order in which they are asked; not given: the plugin itself."""

    def __post_init__(self) -> None:
        if not self.members:
            own = Member(
                name=self.name,
                version=self.version,
                folder=self.folder,
                module=self.module,
                settings=self.settings,
                hooks=self.hooks,
            )
            msgspec.structs.force_setattr(self, "members", (own,))
