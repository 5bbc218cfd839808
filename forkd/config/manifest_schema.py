"""What does a plugin's author say of it? plugin.toml: hooks, settings, wants, suggested limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from forkd.config.table import Between, CountOrNone, NotEmpty, Table, Text
from forkd.config.units import Bytes, Seconds

Hook = Literal["connect", "helo", "auth", "mail", "rcpt", "data", "message", "disconnect"]
HOOKS = ("connect", "helo", "auth", "mail", "rcpt", "data", "message", "disconnect")
"""In the order in which a session comes to them; `auth` only for plugins with the power of that name."""
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
