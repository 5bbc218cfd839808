"""What does a plugin say about itself? plugin.toml, written by its author, read without running it.

name = "block_senders"          # also its module, block_senders.py, unless `module` says otherwise
version = "1.0.0"
api = 1                         # of forkd.sdk
kind = "python"
description = "Refuses listed senders"
hooks = ["mail"]
python = ">=3.11"               # versions of Python it runs under; left out: any that forkd does
requires = ["dkimpy>=1.1"]      # distributions it imports beside the standard library

[settings.list]                 # one table per setting
type = "path"                   # string integer number boolean strings path paths
default = ""                    # none: the admin must give it
# min = 1                       # integer, number: the least it may be
# max = 100                     # likewise the most
# choices = ["refuse", "pass"]  # string, strings: the words it may be, or each of them
description = "A list file"
secret = false                  # true: never shown, as for a password

[wants.powers]                  # everything it wants, each with the reason an admin reads
accept = "known partners skip the later checks"     # the same: discard quarantine edit_body
                                # delete_recipient rewrite_recipient change_sender auth
quarantine = { reason = "holds mail", when = { action = "quarantine" } }    # with these settings only
edit_headers = { names = ["X-Score", "X-Spam-*"], reason = "shows the score" }
                                # { names_in = ["add"], … }: those that the admin's setting `add` names
add_recipient = { domains = ["*"], reason = "an archive gets a copy" }      # "*": those the admin grants
export = { names = ["SCORE"], reason = "later plugins go by it" }
[wants.reads]
headers = "the score looks at Subject"
[wants.files]
list = "the listed senders"     # the files that the setting `list` names
[wants.capabilities]            # what it asks of the world beside the mail
dns = { suffixes = ["zen.example"], suffixes_in = ["zones"], reason = "looks clients up" }
                                # suffixes_in: those in the admin's setting `zones` too; ["any"]: every name
state = "remembers who came before"
connect = { targets = ["clamd"], reason = "the scanner" }   # where that is, the admin says
threads = { count = 4, reason = "scans parts side by side" }

[limits]                        # suggested; see entry.py
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.capabilities import check_wanted
from forkd.config.later import Document
from forkd.config.lines import KeyPath
from forkd.config.problems import Problems, Source, display_path
from forkd.config.reader import Reader, nearest
from forkd.config.requirements import check_requires
from forkd.config.schema import API_VERSION, Manifest, Wanted
from forkd.config.settings import check_bounds, read_setting, setting_type
from forkd.config.wants import is_wanted_domain

FILE_NAME: Final = "plugin.toml"
PLUGIN_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""It becomes part of socket names, log fields and process titles."""
HEADER_NAMES: Final = re.compile(r"[!-)+-9;-~]+\*?|\*")
"""RFC 5322 3.6.8 field name; a * at the end stands for any rest."""
EXPORT_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""A session fact; compiled plugins see it in their environment."""
KEPT_HEADERS: Final = frozenset({"received", "return-path", "delivered-to"})
"""Nobody edits these: the detection of loops and delivery rest on them. A `*` does not cover them."""

_RESERVED: Final = re.compile(
    r"(TCP|LD_|DYLD_|PYTHON|GCONV_|MALLOC_|GLIBC_|QMAIL).*|PATH|HOME|SHELL|IFS|ENV|BASH_ENV|USER|LOGNAME|TMPDIR"
    r"|RELAYCLIENT|AUTHENTICATED|LOCPATH|NLSPATH",
)
"""What loaders, shells and we ourselves set: a plugin that could would decide for others."""

_HOOKS_FOR: Final[dict[str, tuple[str, ...]]] = {
    "discard": ("rcpt", "data", "message"),
    "quarantine": ("data", "message"),
    "edit_headers": ("message",),
    "edit_body": ("message",),
    "add_recipient": ("message",),
    "delete_recipient": ("message",),
    "rewrite_recipient": ("rcpt",),
    "change_sender": ("message",),
    "export": ("connect", "helo", "auth", "mail", "rcpt", "data", "message"),
    "auth": ("auth",),
}
"""Power -> hooks at which it can be used; `accept` can be at all."""

ReadToml = Callable[[Path, Problems], tuple[Source, dict[str, Any]]]


@dataclasses.dataclass(frozen=True, slots=True)
class PluginFolder:
    """A plugin as its author made it: a folder whose manifest was read and checked."""

    folder: Path
    manifest: Manifest
    source: Source
    suggested: frozenset[str]
    """Limits that the manifest itself sets."""

    @property
    def module(self) -> str:
        """File name of the plugin's module in its folder."""
        return self.manifest.module or f"{self.manifest.name}.py"


def read_manifest(
    folder: Path, read_toml: ReadToml, problems: Problems, *, alone: bool = False
) -> PluginFolder | None:
    """The plugin in `folder`, or None when its manifest has a problem (which is noted).

    alone   `folder` is the manifest itself; nobody asks for the module beside it.
    """
    before = len(problems)
    file = folder if alone else folder / FILE_NAME
    folder = file.parent
    source, raw = read_toml(file, problems)
    if len(problems) > before:
        return None
    manifest = Reader(source, problems, Document.MANIFEST).table((), raw, Manifest)
    if manifest is None:
        return None
    suggested = raw.get("limits")
    plugin = PluginFolder(
        folder, manifest, source, frozenset(suggested if isinstance(suggested, dict) else ())
    )
    if len(problems) == before:
        _check_identity(plugin, problems)
        if not alone:
            _check_module(plugin, problems)
        check_requires(manifest, source, problems)
        _check_wants(plugin, problems)
        _check_settings(plugin, problems)
    return plugin if len(problems) == before else None


def _check_identity(plugin: PluginFolder, problems: Problems) -> None:
    manifest, source = plugin.manifest, plugin.source
    if not PLUGIN_NAME.fullmatch(manifest.name):
        rule = "a plugin's name is a small letter, then small letters, digits, - and _; 32 at most"
        problems.add(source, ("name",), rule, value=manifest.name)
    if manifest.api != API_VERSION:
        rule = f"this forkd has version {API_VERSION} of the plugin API"
        problems.add(source, ("api",), rule, value=manifest.api)


def _check_module(plugin: PluginFolder, problems: Problems) -> None:
    manifest, source = plugin.manifest, plugin.source
    if not manifest.module and not problems.clean(source, ("name",)):
        return  # the module's name comes from it
    module = plugin.folder / plugin.module
    if Path(plugin.module).name != plugin.module or module.suffix != ".py":
        rule = "this is the name of a .py file in the plugin's folder"
        problems.add(source, ("module",), rule, value=plugin.module)
    elif not module.is_file():
        found = sorted(file.name for file in plugin.folder.glob("*.py"))
        key = "module" if manifest.module else "name"
        rule = f"there is no {display_path(module)}"
        problems.add(source, (key,), rule, value=getattr(manifest, key), hint=nearest(plugin.module, found))


def _check_wants(plugin: PluginFolder, problems: Problems) -> None:
    manifest, source, wants = plugin.manifest, plugin.source, plugin.manifest.wants
    powers = wants.powers
    for power, hooks in _HOOKS_FOR.items():
        if getattr(powers, power) is not None and not set(hooks) & set(manifest.hooks):
            rule = f"this is for the hook {' or '.join(hooks)}, which is not in hooks"
            problems.add(source, ("wants", "powers", power), rule)
    if "auth" in manifest.hooks and powers.auth is None:
        rule = "the hook auth is shown passwords: it needs the power auth"
        hint = 'say why: auth = "..." below [wants.powers]'
        problems.add(source, ("hooks",), rule, value=manifest.hooks, hint=hint)
    for power, wrong in (("edit_headers", header_slip), ("export", export_slip)):
        _check_names(plugin, ("wants", "powers", power), wrong, problems)
    for name in powers.add_recipient.domains if powers.add_recipient else ():
        if not is_wanted_domain(name):
            rule = 'this is a domain name, or "*" for those the admin grants'
            problems.add(source, ("wants", "powers", "add_recipient"), rule, value=name)
    check_wanted(manifest, source, problems)
    for table in ("powers", "reads", "capabilities"):
        struct = getattr(wants, table)
        for key in struct.__struct_fields__:
            wanted = getattr(struct, key)
            if isinstance(wanted, Wanted):
                _check_when(plugin, ("wants", table, key, "when"), wanted, problems)
    for part in ("headers", "body"):
        if getattr(wants.reads, part) is not None and "message" not in manifest.hooks:
            rule = f"only the hook message sees the {part}, and it is not in hooks"
            problems.add(source, ("wants", "reads", part), rule)
    for name in wants.files:
        setting = manifest.settings.get(name)
        if setting is None:
            rule = "files are named by a setting, and there is none of this name"
            problems.add(source, ("wants", "files", name), rule, hint=nearest(name, manifest.settings))
        elif setting.type not in ("path", "paths"):
            rule = f"the setting {name} must be of type path or paths to name files"
            problems.add(source, ("wants", "files", name), rule)


def _check_names(
    plugin: PluginFolder, path: KeyPath, wrong: Callable[[str], str], problems: Problems
) -> None:
    """Names are such names, and settings that are to hold some are there and hold texts."""
    wanted, settings = getattr(plugin.manifest.wants.powers, path[-1]), plugin.manifest.settings
    if wanted is None:
        return
    for name in wanted.names:
        if wrong(name):
            problems.add(plugin.source, path, wrong(name), value=name)
    for name in wanted.names_in:
        setting = settings.get(name)
        if setting is None or setting.type not in ("string", "strings"):
            rule = "this is the name of a setting of type string or strings"
            problems.add(plugin.source, path, rule, value=name, hint=nearest(name, settings))
    if not wanted.names and not wanted.names_in:
        problems.add(plugin.source, path, "this wants nothing: there are neither names nor names_in")


def _check_when(plugin: PluginFolder, path: KeyPath, wanted: Wanted, problems: Problems) -> None:
    """Conditions are about settings that are there, and values these can have."""
    reader = Reader(plugin.source, problems, Document.MANIFEST)
    for name, value in wanted.when.items():
        setting = plugin.manifest.settings.get(name)
        if setting is None:
            hint = nearest(name, plugin.manifest.settings)
            problems.add(plugin.source, (*path, name), "there is no such setting", hint=hint)
        else:
            reader.value((*path, name), value, setting_type(setting))


def header_slip(name: str) -> str:
    """Why this is no header field that is edited; empty: it is one, or some, by a * at the end."""
    if not HEADER_NAMES.fullmatch(name):
        return "this is the name of a header field, or its beginning and a *"
    if name.lower() in KEPT_HEADERS:
        return "no plugin edits this field: the detection of loops and delivery rest on it"
    return ""


def export_slip(name: str) -> str:
    """Why no fact can have this name; empty: one can."""
    if not EXPORT_NAME.fullmatch(name):
        return "a fact's name is a capital letter, then capital letters, digits and _; 64 at most"
    return "this name is not a plugin's to set" if _RESERVED.fullmatch(name) else ""


def _check_settings(plugin: PluginFolder, problems: Problems) -> None:
    for name, setting in plugin.manifest.settings.items():
        path: KeyPath = ("settings", name)
        if setting.type in ("path", "paths") and name not in plugin.manifest.wants.files:
            rule = "a path can only be read when it is wanted"
            hint = f'say why: {name} = "..." below [wants.files]'
            problems.add(plugin.source, path, rule, hint=hint)
        check_bounds(plugin.source, path, setting, problems)
        if setting.default is not msgspec.UNSET:
            reader = Reader(plugin.source, problems, Document.MANIFEST)
            read_setting(reader, (*path, "default"), setting, setting.default)
