"""What does the admin say of a plugin, and what becomes of that and its manifest? Entry and PluginConfig."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from forkd.config.manifest_schema import PluginLimits
from forkd.config.table import Between, Table, Text

Kind = Literal["python", "indimail", "program"]
"""What a plugin is: a Python module, a compiled plugin of IndiMail's qmail-smtpd, any program."""


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
