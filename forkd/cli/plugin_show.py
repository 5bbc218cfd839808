"""forkd plugin show: what may a plugin do, in plain words, and what else holds for it?"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import click
import msgspec

from forkd.cli.lines import tell
from forkd.cli.options import config_option, json_option, print_json
from forkd.cli.plugin_known import Known, find, manifest_of, zygotes
from forkd.cli.tables import print_facts, print_table
from forkd.config import plainly
from forkd.config.capabilities import wished
from forkd.config.differences import wants
from forkd.config.limits import in_words, origins
from forkd.config.load import LoadedConfig, load, read_toml
from forkd.config.plainly import May
from forkd.config.problems import Problems, display_path
from forkd.config.schema import Member, PluginConfig, PluginLimits
from forkd.config.wants import in_force
from forkd.master.plugin_files import CHANGED, digest, digest_of


@click.command()
@click.argument("name")
@config_option
@json_option
def show(name: str, config: Path | None, as_json: bool) -> int:
    """What the plugin NAME may do, in plain words: powers first.

    NAME is that of a plugin or group, or a plugin's folder. Of one that is switched on, what the admin
    granted; of any other, what it would want.
    """
    loaded = load(config)
    group = next((plugin for plugin in loaded.plugins if plugin.group == name), None)
    if group is not None:
        data = _in_force(group, loaded)
    else:
        one = find(name, loaded)
        data = _in_force(one.plugin, loaded, only=one.member) if one.plugin else _wanted(one)
    if as_json:
        print_json(data)
    else:
        _print(data)
    return 0


def _in_force(plugin: PluginConfig, loaded: LoadedConfig, only: Member | None = None) -> dict[str, Any]:
    """Of a plugin that is on; of a group the union, whichever member was named."""
    reasons: dict[str, str] = {}
    for member in plugin.members if plugin.kind == "python" else ():
        manifest = manifest_of(member.folder).manifest
        held = in_force(manifest.wants, member.settings)
        reasons |= {**held.powers, **held.reads, **wished(manifest.wants, member.settings).reasons}
    may = [
        *plainly.powers(plugin.powers, reasons),
        *plainly.capabilities(plugin.capabilities, reasons),
        *plainly.reads(plugin.reads, reasons),
        *plainly.files(plugin.files),
    ]
    members = [_member(plugin, member) for member in plugin.members]
    return {
        "plugin": only.name if only else plugin.name,
        "group": plugin.group,
        "kind": plugin.kind,
        "code": [str(file) for file in plugin.code],
        "argv": list(plugin.argv),
        "environment": plugin.environment,
        "on": True,
        "members": members,
        "mode": plugin.mode,
        "order": plugin.order,
        "hooks": list(plugin.hooks),
        "scope": {name: list(value) for name, value in msgspec.structs.asdict(plugin.scope).items() if value},
        "may": [dataclasses.asdict(one) for one in may],
        "together": plainly.together(plugin.capabilities, plugin.reads),
        "beyond": [text for member in plugin.members for text in _beyond(member, loaded)],
        "on_failure": {"policy": plugin.on_failure, "means": plainly.failure(plugin.on_failure, plugin.mode)},
        "limits": _limits(plugin),
        "python": str(plugin.python) if plugin.python else None,
        "requires": list(plugin.requires),
        "uid": plugin.uid,
        "trusted": plugin.trusted,
        "running": _running(zygotes(loaded).get(plugin.name), members),
    }


def _beyond(member: Member, loaded: LoadedConfig) -> list[str]:
    """Grants that give it nothing, or less than they say."""
    begins = f"{display_path(member.entry)}: grants "
    return [note for note in loaded.notes if note.startswith(begins)]


def _running(zygote: dict[str, Any] | None, members: list[dict[str, Any]]) -> dict[str, Any] | None:
    """As the daemon has it; `changed`: its files are not those that were loaded."""
    if zygote is None:
        return None
    shown = {key: zygote[key] for key in ("state", "pid", "restarts", "info", "failures", "breaker_open")}
    loaded = zygote["info"]
    changed = [one for one in members if loaded.get(f"sha256 {one['name']}", one["sha256"]) != one["sha256"]]
    return {**shown, "changed": bool(changed)}


def _wanted(one: Known) -> dict[str, Any]:
    """Of a plugin that is off: all that its manifest could ever want."""
    manifest = manifest_of(one.folder).manifest
    may = [May(want.kind, want.name, want.text, want.reason) for want in wants(manifest)]
    return {
        "plugin": one.name,
        "group": "",
        "on": False,
        "members": [
            {
                "name": one.name,
                "version": one.version,
                "folder": str(one.folder),
                "description": one.description,
                "sha256": digest(one.folder),
                "entry": str(one.entry) if one.entry else None,
            }
        ],
        "hooks": list(manifest.hooks),
        "may": [dataclasses.asdict(each) for each in may],
        "requires": list(manifest.requires),
        "limits": {
            name: {"value": in_words(name, getattr(manifest.limits, name)), "from": "suggested by its author"}
            for name in PluginLimits.__struct_fields__
            if name in manifest_of(one.folder).suggested
        },
    }


def _member(plugin: PluginConfig, member: Member) -> dict[str, Any]:
    bare = plugin.kind != "python"
    return {
        "name": member.name,
        "version": member.version,
        "folder": str(member.folder),
        "description": _WITHOUT_MANIFEST[plugin.kind]
        if bare
        else manifest_of(member.folder).manifest.description,
        "sha256": digest_of(plugin.code) if bare else digest(member.folder),
        "entry": str(member.entry) if member.entry else None,
    }


_WITHOUT_MANIFEST = {"indimail": "compiled for IndiMail's qmail-smtpd", "program": "a program"}


def _limits(plugin: PluginConfig) -> dict[str, dict[str, str]]:
    """Each with where it comes from."""
    members = []
    for member in plugin.members:
        raw = read_toml(member.entry, Problems())[1] if member.entry else {}
        given = frozenset(raw.get("limits", {}))
        bare = plugin.kind != "python"
        members.append((member.name, given, frozenset() if bare else manifest_of(member.folder).suggested))
    return {
        name: {"value": in_words(name, getattr(plugin.limits, name)), "from": said}
        for name, said in origins(plugin.limits, members).items()
    }


# --- for eyes -------------------------------------------------------------------------------------------


def _print(data: dict[str, Any]) -> None:
    for member in data["members"]:
        about = f": {member['description']}" if member["description"] else ""
        tell(f"{member['name']} {member['version']}".rstrip() + about, bold=True)
        tell(f"  {display_path(Path(member['folder']))}  sha256 {member['sha256']}")
        if member["entry"]:
            tell(f"  switched {'on' if data['on'] else 'off'} by {display_path(Path(member['entry']))}")
    if data["group"]:
        names = ", ".join(member["name"] for member in data["members"])
        tell()
        tell(f"One sandbox for the group {data['group']} ({names}): each may do what any of them may.")
    tell()
    tell("What it may do:" if data["on"] else "Switched on, it would want this to be granted:")
    tell(f"  - {plainly.EVERY}")
    for may in data["may"]:
        reason = f' (its reason: "{may["reason"]}")' if may["reason"] else ""
        tell(f"  - {may['text']}{reason}", fg="yellow" if may["kind"] != "reads" else "")
    if data.get("together"):
        tell(f"  {data['together']}", fg="yellow")
    for text in data.get("beyond", ()):
        tell(f"  note: {text}", fg="yellow")
    if not data["may"]:
        tell("  - nothing else: no power over mail, no network, no files")
    tell()
    _facts(data)
    if data["limits"]:
        tell()
        rows = [(name, limit["value"], limit["from"]) for name, limit in data["limits"].items()]
        print_table(("limit", "value", "from"), rows)


def _facts(data: dict[str, Any]) -> None:
    facts: list[tuple[str, object]] = [("asked at", ", ".join(data["hooks"]))]
    if data["requires"]:
        facts.append(("imports", ", ".join(data["requires"])))
    if data.get("code"):
        started = shlex.join(data["argv"])
        facts.append(("starts", started) if started else ("loads", ", ".join(data["code"])))
    if data.get("environment"):
        facts.append(("environment", ", ".join(f"{n}={v}" for n, v in data["environment"].items())))
    if data["on"]:
        scope = "; ".join(f"{name}: {', '.join(value)}" for name, value in data["scope"].items())
        facts += [
            ("asked for", scope or "everybody"),
            ("order", data["order"]),
            ("if it fails", data["on_failure"]["means"]),
            ("runs under", data["python"] or "the Python that runs forkd"),
            ("runs as", plainly.uid_text(data["uid"])),
        ]
        if data["trusted"]:
            facts.append(("trusted", "it starts even where its access to files cannot be confined"))
    if running := data.get("running"):
        failures = ", ".join(f"{cause} {count}" for cause, count in running["failures"].items())
        facts += [("zygote", f"{running['state']}, pid {running['pid']}, {running['restarts']} restarts")]
        facts += [("failures", failures or "none")]
        if running["breaker_open"]:
            facts.append(("breaker", f"open in {running['breaker_open']} workers: it is not asked there now"))
        if running["changed"]:
            facts.append(("files", CHANGED))
    print_facts(facts)
