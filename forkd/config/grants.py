"""Does the admin allow what a plugin wants, and does what he allows make sense?

One manifest beside one entry. Each want must be granted in so many words; what is granted and not
wanted is said, and widens nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.addresses import NetworkError, parse_network
from forkd.config.domains import EVERY_SUBDOMAIN, is_domain
from forkd.config.later import Document
from forkd.config.lines import KeyPath
from forkd.config.manifest import PluginFolder, export_slip, header_slip
from forkd.config.problems import NOT_GIVEN, Problems, display_path, toml_key, toml_value
from forkd.config.reader import Reader, nearest
from forkd.config.schema import Config, Entry, Powers, Scope, WantedNames
from forkd.config.settings import read_setting
from forkd.config.wants import FLAGS, PARTS, InForce, in_force, named
from forkd.smtp.address import a_labels

EDITS: Final = (
    "edit_headers",
    "edit_body",
    "add_recipient",
    "delete_recipient",
    "rewrite_recipient",
    "change_sender",
)
"""Powers that change a message or its envelope."""
_WITH_DOMAINS: Final = frozenset({"rcpt", "data", "message"})
"""Hooks at which recipients are known."""

_FOR_WHAT: Final = {
    "accept": "to end a hook early, so that later plugins are not asked",
    "discard": "to drop mail that was answered 250",
    "quarantine": "to hold messages back",
    "edit_headers": "to edit the header",
    "edit_body": "to replace the body of messages",
    "add_recipient": "to add recipients of",
    "delete_recipient": "to take recipients out",
    "rewrite_recipient": "to put other recipients in the place of given ones",
    "change_sender": "to change the sender",
    "export": "to set the fact",
    "auth": "to be shown passwords and to say whether they are right",
}
"""Powers, as a refusal to start names them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Around:
    """What stands in forkd.toml around the plugins."""

    config: Config
    sound: frozenset[str]
    """Of listener and domain: those without a problem, so that an admin sees causes, not consequences."""

    def has_listener(self, name: str) -> bool:
        """There is such a [listener], as far as one can tell."""
        return name in self.config.listener or "listener" not in self.sound

    def ours(self, name: str) -> bool:
        """A domain of ours, as far as one can tell. `name` is one."""
        wanted = a_labels(name)
        return (
            wanted in map(a_labels, self.domains())
            or any(wanted.endswith(parent) for parent in self.parents())
            or "domain" not in self.sound
        )

    def parents(self) -> list[str]:
        """`.example.org` of [domain."*.example.org"]: of whose sub-domains all are ours."""
        return [
            f".{a_labels(name[2:])}"
            for name in self.config.domain
            if name.startswith(EVERY_SUBDOMAIN) and is_domain(name[2:])
        ]

    def domains(self) -> list[str]:
        """Those of ours, as they are written."""
        return [name for name in self.config.domain if is_domain(name)]


@dataclasses.dataclass(frozen=True, slots=True)
class Joining:
    """One entry beside one manifest; each method is one question about the two."""

    around: Around
    reader: Reader
    entry: Entry
    plugin: PluginFolder
    notes: list[str]

    def settings(self) -> dict[str, Any]:
        """The entry's settings over the manifest's defaults, each of its declared type."""
        declared = self.plugin.manifest.settings
        self.reader.unknown_keys(("settings",), self.entry.settings, list(declared))
        by_author = Reader(self.plugin.source, self.reader.problems, Document.MANIFEST)
        values: dict[str, Any] = {}
        for name, setting in declared.items():
            path: KeyPath = ("settings", name)
            if name in self.entry.settings:
                given = self.entry.settings[name]
                trial = (
                    Reader(self.reader.source, Problems(), Document.ENTRY) if setting.secret else self.reader
                )
                values[name] = read_setting(trial, path, setting, given)
                if setting.secret and len(trial.problems):
                    rule = f"this does not fit the type {setting.type}"
                    self.reader.problems.add(self.reader.source, path, rule, secret=True)
            elif setting.default is not msgspec.UNSET:
                values[name] = read_setting(by_author, path, setting, setting.default)
            else:
                said = f": {setting.description}" if setting.description else ""
                self.reader.bad(path, f"this setting must be given ({setting.type}){said}")
        return values

    def wants(self, settings: dict[str, Any]) -> InForce:
        """What it wants with these settings; names that the admin's settings give are names."""
        powers = self.plugin.manifest.wants.powers
        for power, wrong in (("edit_headers", header_slip), ("export", export_slip)):
            wanted: WantedNames | None = getattr(powers, power)
            for key in wanted.names_in if wanted else ():
                for name in named(settings.get(key)):
                    if wrong(name):
                        self.reader.bad(("settings", key), wrong(name), value=name)
        return in_force(self.plugin.manifest.wants, settings)

    def powers(self, wants: InForce) -> Powers:
        """Every wanted power is granted; a grant beyond that is said and does nothing."""
        granted = self.entry.grants
        for power in FLAGS:
            if power in wants.powers and not getattr(granted, power):
                self.not_granted(power, _FOR_WHAT[power], f"{power} = true", wants.powers[power])
            elif getattr(granted, power) and power not in wants.powers:
                self.not_wanted(power)
        for power, wrong in (("edit_headers", header_slip), ("export", export_slip)):
            for name in getattr(granted, power):
                if wrong(name):
                    self.reader.bad(("grants", power), wrong(name), value=name)
        for name in granted.add_recipient:
            self._ours(name)
        self._list("edit_headers", wants, covers)
        self._list("export", wants, str.__eq__)
        self._list("add_recipient", wants, _domain_covers)
        flags = {power: power in wants.powers for power in FLAGS}
        return Powers(
            **flags,
            edit_headers=wants.names.get("edit_headers", ()),
            add_recipient=self._domains(wants.names.get("add_recipient", ())),
            export=wants.names.get("export", ()),
        )

    def _list(self, power: str, wants: InForce, covered: Callable[[str, str], bool]) -> None:
        granted: tuple[str, ...] = getattr(self.entry.grants, power)
        names = wants.names.get(power, ())
        missing = [name for name in names if not any(covered(grant, name) for grant in granted)]
        if missing:
            line = f"{power} = {toml_value([*granted, *missing])}"
            what = f"{_FOR_WHAT[power]} {', '.join(missing)}"
            self.not_granted(power, what, line, wants.powers[power])
        elif granted and not names:
            self.not_wanted(power)
        else:
            within = [grant for grant in granted if any(covered(name, grant) for name in names)]
            beyond = [grant for grant in granted if grant not in within or grant == "*" not in names]
            self.wider(power, beyond, names)

    def _ours(self, name: str) -> None:
        """Recipients are added where we deliver, so that no plugin can send mail to the world."""
        if name != "*" and not (is_domain(name) and self.around.ours(name)):
            rule = "recipients can only be added in domains of ours"
            hint = nearest(name, [*self.around.domains(), "*"])
            self.reader.bad(("grants", "add_recipient"), rule, value=name, hint=hint)

    def _domains(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """A plugin that wants "*" gets what is granted; one that names its domains gets these."""
        names = self.entry.grants.add_recipient if "*" in wanted else wanted
        return ("*",) if "*" in names else tuple(a_labels(name) for name in names if is_domain(name))

    def reads(self, wants: InForce) -> tuple[str, ...]:
        """Every part of the mail it wants to read is granted."""
        granted = self.entry.grants.reads
        missing = [part for part in wants.reads if part not in granted]
        whole = [part for part in PARTS if part in granted or part in missing]
        for part in missing:
            line = f"reads = {toml_value(whole)}"
            self.not_granted("reads", f"to read the {part}", line, wants.reads[part])
        for part in granted:
            if part not in wants.reads:
                self.not_wanted(f"reads {part}")
        return tuple(wants.reads)

    def files(self, settings: dict[str, Any]) -> tuple[Path, ...]:
        """Files that settings name can be read, and are there; of what is granted these, and nothing beside.

        Only where a link leads to one is the grant left as it is: what stands behind the link is then
        read where that one is granted, as the kernel looks at it.
        """
        wanted, granted = self.plugin.manifest.wants.files, self.entry.grants.files
        given: dict[Path, list[Path]] = {root: [] for root in granted}
        whole: set[Path] = set()
        for file in granted:
            if not file.exists():
                self.reader.bad(("grants", "files"), "there is no such file", value=file)
        for name, reason in wanted.items():
            value = settings.get(name)
            for text in [value] if isinstance(value, str) else value or []:
                file = Path(text)
                inside = [*granted, self.plugin.folder]
                if text and not any(file == root or root in file.parents for root in inside):
                    line = f"files = {toml_value([self._written(f) for f in (*granted, file)])}"
                    self.not_granted("files", f"to read {display_path(file)}", line, reason)
                elif text and not file.exists():
                    self.reader.bad(("settings", name), "there is no such file", value=file)
                for root in granted if text else ():
                    if root == file or (root in file.parents and _without_links(root, file)):
                        given[root].append(file)
                    elif root in file.parents or file.resolve().is_relative_to(root.resolve()):
                        whole.add(root)
        self._beyond(given, whole)
        found = [file for root, files in given.items() for file in ([root] if root in whole else files)]
        return tuple(dict.fromkeys(found))

    def _beyond(self, given: Mapping[Path, Sequence[Path]], whole: set[Path]) -> None:
        """Say what of the granted files is more than is wanted."""
        if given and not whole and not any(given.values()):
            self.not_wanted("files")
            return
        for root, files in given.items():
            if root in whole and root not in files:
                text = f"grants files {display_path(root)}, where links are that settings name"
                self._say(f"{text}: {self.plugin.manifest.name} may read all of it")
            elif root not in files:
                self.wider("files", [display_path(root)], [display_path(file) for file in files])

    def _written(self, file: Path) -> str:
        """As it can stand in the entry: relative to the entry's folder where the file lies in there."""
        folder = self.reader.source.folder
        return str(file.relative_to(folder) if file.is_relative_to(folder) else file)

    def failure_policy(self, wants: InForce) -> None:
        """A message whose edit is missing is not the message the admin asked for."""
        edits = [power for power in EDITS if power in wants.powers]
        if self.entry.on_failure == "skip" and edits:
            rule = (
                f"a plugin that edits messages ({edits[0]}) cannot be skipped: "
                "mail would go on without its edit"
            )
            self.reader.bad(("on_failure",), rule, value="skip", hint='write "disconnect", "defer" or "deny"')

    def mode(self) -> None:
        """A plugin that is only watched is said, so that nobody takes it for a wall."""
        if self.entry.mode == "shadow":
            self.notes.append(
                f"plugin {self.plugin.manifest.name} is asked in shadow: what it says, and what it would "
                "change, is logged and never obeyed, and nobody waits for it"
            )

    def scope(self) -> Scope:
        """For whom it is asked: what is named exists, and some hook is left. Returns it in one form."""
        scope, hooks = self.entry.scope, self.plugin.manifest.hooks
        for name in scope.listeners:
            if not self.around.has_listener(name):
                rule = f"there is no [listener.{toml_key(name)}]"
                hint = nearest(name, self.around.config.listener)
                self.reader.bad(("scope", "listeners"), rule, value=name, hint=hint)
        networks = []
        for text in scope.networks:
            try:
                networks.append(str(parse_network(text)))
            except NetworkError as error:
                self.reader.bad(("scope", "networks"), str(error), value=text, hint=error.hint)
        domains = [a_labels(name) for name in scope.domains if self._in_scope(name)]
        if scope.domains and not _WITH_DOMAINS & set(hooks):
            rule = (
                "a plugin with domains is asked at rcpt, data and message only, and this one has "
                f"none of these hooks: it would never be asked (it has {', '.join(hooks)})"
            )
            self.reader.bad(("scope", "domains"), rule, value=scope.domains)
        elif scope.domains and set(hooks) - _WITH_DOMAINS - {"disconnect"}:
            left_out = [hook for hook in hooks if hook not in {*_WITH_DOMAINS, "disconnect"}]
            self.notes.append(
                f"plugin {self.plugin.manifest.name} has scope.domains: "
                f"it is not asked at {', '.join(left_out)}"
            )
        return Scope(listeners=scope.listeners, networks=tuple(networks), domains=tuple(domains))

    def _in_scope(self, name: str) -> bool:
        """A domain that a recipient can have: one of ours, or any where mail is relayed."""
        if not is_domain(name):
            rule = "this is a domain name"
            self.reader.bad(("scope", "domains"), rule, value=name)
            return False
        if self.around.config.queue.relay_transport or self.around.ours(name):
            return True
        rule = "this is no domain of ours, and no mail is relayed: it would never be asked"
        self.reader.bad(("scope", "domains"), rule, value=name, hint=nearest(name, self.around.domains()))
        return False

    def not_granted(self, key: str, what: str, line: str, reason: str) -> None:
        """Say what is wanted and not granted, and which line below [grants] would grant it."""
        name = self.plugin.manifest.name
        rule = f'the plugin {name} wants {what}, which is not granted; its reason: "{reason}"'
        self.reader.bad(
            ("grants", key), rule, value=NOT_GIVEN, hint=f"write {line} below [grants], or switch it off"
        )

    def not_wanted(self, what: str) -> None:
        """Say that a grant gives nothing."""
        self._say(f"grants {what}, which {self.plugin.manifest.name} does not want")

    def wider(self, what: str, grants: Sequence[str], wanted: Sequence[str]) -> None:
        """Say that grants go beyond what is wanted, and are cut to that."""
        if grants:
            name, in_force = self.plugin.manifest.name, ", ".join(wanted) or "nothing of it"
            self._say(f"grants {what} {', '.join(grants)}, more than {name} wants: it gets {in_force}")

    def _say(self, text: str) -> None:
        self.notes.append(f"{display_path(self.reader.source.path)}: {text}")


def _without_links(root: Path, file: Path) -> bool:
    """Is `file`, below `root`, nothing else than what it says? A link could lead to what nobody granted."""
    return file.resolve() == root.resolve() / file.relative_to(root)


def covers(granted: str, wanted: str) -> bool:
    """Does a granted header name, or its beginning with a *, allow a wanted one? Case does not count."""
    granted, wanted = granted.lower(), wanted.lower()
    if granted.endswith("*"):
        return wanted.startswith(granted[:-1])
    return granted == wanted


def _domain_covers(granted: str, wanted: str) -> bool:
    """An author who wants "*" cannot know the admin's domains: any that are granted are what he gets."""
    if "*" in (granted, wanted):
        return True
    return is_domain(granted) and is_domain(wanted) and a_labels(granted) == a_labels(wanted)
