"""How do configuration files become the one value that everybody works from?

load() reads forkd.toml and the plugin entries beside it, checks all of it, and returns a LoadedConfig
or raises one ConfigError with every problem of every file. Without a file it returns the defaults:
127.0.0.1:2525, localhost and test.local, Maildirs below ./var, the stock plugins switched on.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.alias_checks import check_aliases
from forkd.config.aliases import NO_ALIASES, Aliases, read
from forkd.config.checks import check, check_with_plugins
from forkd.config.domains import DOMAIN_NAME, server_name
from forkd.config.entry import read_entries
from forkd.config.grants import Around
from forkd.config.later import Document
from forkd.config.lines import key_lines
from forkd.config.problems import Problems, Source, display_path, toml_key, toml_value
from forkd.config.qmail import Said
from forkd.config.qmail_lists import lists_entry
from forkd.config.qmail_merge import with_control
from forkd.config.reader import Reader
from forkd.config.recipients import Recipients
from forkd.config.schema import (
    Config,
    Domain,
    Listener,
    Maildir,
    NextHop,
    PluginConfig,
    Plugins,
    QmailQueue,
    Server,
    Transport,
)
from forkd.config.stock import ENTRIES

DEFAULT_DOMAINS: Final = ("localhost", "test.local")
"""Without a file: names that no mail from outside can be for (RFC 6761, RFC 6762)."""

QMAIL_QUEUE: Final = "/var/qmail/bin/qmail-queue"
"""Where qmail has its queue program (qmail(7))."""

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_UNQUOTED = re.compile(r"""\s*[\w."'-]+\s*=\s*([A-Za-z0-9.*/:@\[\]_+-]*[A-Za-z0-9*/])\s*(?:#.*)?""")
_COLON = re.compile(r"\s*([\w-]+)\s*:\s")


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration that was checked; all paths absolute, all names resolved, defaults filled in; names of
    domains and certificates in A-labels and lower case.

    plugins   switched on, in the order in which they are asked
    aliases   what the files of aliases.files say
    file      absolute path of forkd.toml; None: defaults, there is no file
    notes     what is legal but an admin should know; one line each
    """

    config: Config
    plugins: tuple[PluginConfig, ...]
    file: Path | None
    notes: tuple[str, ...] = ()
    aliases: Aliases = NO_ALIASES


def load(path: Path | None, *, cwd: Path | None = None) -> LoadedConfig:
    """Read and check the configuration at `path`; None: the defaults.

    cwd      where a relative `path` starts, and ./var when there is no file; default: the current folder
    Blocks   for reading a few small files.
    Raises   ConfigError with every problem found -> exit status 78.
    """
    start = Path.cwd() if cwd is None else cwd
    problems = Problems()
    notes: list[str] = []
    raw: dict[str, Any] = {}
    if path is None:
        source = Source(None, folder=start)
    else:
        source, raw = read_toml(Path(os.path.normpath(start / path)), problems)
    whole = problems.clean(source, ())
    _misplaced_plugins(source, raw, problems)
    _unquoted_domains(source, raw, problems)
    config = Reader(source, problems, Document.CONFIG).table((), raw, Config) or Config()
    before = len(problems)
    config, control = with_control(config, source, raw, problems, notes)
    config = _filled(config, source, notes)
    aliases = NO_ALIASES
    if whole and len(problems) == before:
        check(config, source, problems, notes)
        if len(problems) == before:
            aliases = _aliases(config, problems, notes)
    folder = _plugins_dir(config, source, problems, notes)
    config = msgspec.structs.replace(config, plugins=Plugins(dir=folder))
    before = len(problems)
    plugins = _plugins(config, source, problems, notes, control)
    if whole and len(problems) == before:
        check_with_plugins(config, source, problems, notes, plugins)
    problems.raise_if_any()
    config = msgspec.structs.replace(
        config,
        domain={server_name(name): domain for name, domain in config.domain.items()},
        certificate={server_name(name): pair for name, pair in config.certificate.items()},
    )
    return LoadedConfig(config, plugins, source.path, tuple(notes), aliases)


def data_dir_of(path: Path | None, *, cwd: Path | None = None) -> Path:
    """Where a daemon with this configuration keeps its files, even when the rest of the file is broken.

    For commands that only look for a running daemon: it was started when the file was still good.
    Raises ConfigError when the file cannot be read as TOML at all.
    """
    return _path_of(path, cwd, ("server", "data_dir"), Config().server.data_dir)


def users_file_of(path: Path | None, *, cwd: Path | None = None) -> Path:
    """Where auth.users is, or will be: `forkd user add` makes the file that load() insists on.

    Raises ConfigError when the file cannot be read as TOML at all.
    """
    return _path_of(path, cwd, ("auth", "users"), Config().auth.users)


def _path_of(path: Path | None, cwd: Path | None, key: tuple[str, str], default: Path) -> Path:
    start = Path.cwd() if cwd is None else cwd
    if path is None:
        return Path(os.path.normpath(start / default))
    problems = Problems()
    source, raw = read_toml(Path(os.path.normpath(start / path)), problems)
    problems.raise_if_any()
    table = raw.get(key[0])
    given = table.get(key[1]) if isinstance(table, dict) else None
    return Path(os.path.normpath(source.folder / (given if isinstance(given, str) and given else default)))


def read_toml(file: Path, problems: Problems) -> tuple[Source, dict[str, Any]]:
    """The file with the lines of its keys; on a problem, which is noted, with an empty content."""
    bare = Source(file, folder=file.parent)
    try:
        data = file.read_bytes()
    except OSError as error:
        hint = _unread_hint(file, error)
        problems.add(bare, (), f"cannot be read: {(error.strerror or str(error)).lower()}", hint=hint)
        return bare, {}
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        shown = dataclasses.replace(bare, text=data.decode("utf-8", "replace"))
        problems.add_at_line(shown, line, "this is not UTF-8 text", hint="save the file as UTF-8")
        return bare, {}
    text = text.replace("\r\n", "\n")
    source = dataclasses.replace(bare, text=text)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _not_toml(source, str(error), problems)
        return source, {}
    return dataclasses.replace(source, lines=key_lines(text)), content


def _not_toml(source: Source, said: str, problems: Problems) -> None:
    where = _AT.search(said)
    rows = source.text.splitlines() or [""]
    line = int(where.group(1)) if where and where.group(1) else len(rows)
    reason = _AT.sub("", said)
    row = rows[line - 1] if line <= len(rows) else ""
    hint = ""
    if source.text.startswith("\ufeff"):
        hint = "remove the byte order mark at the beginning of the file"
    elif unquoted := _UNQUOTED.fullmatch(row):
        hint = f"a text needs quotes: write {toml_value(unquoted.group(1))}"
    elif colon := _COLON.match(row):
        hint = f"a key and its value are joined by =: write {colon.group(1)} = ..."
    problems.add_at_line(source, line, f"this is not TOML: {reason[:1].lower()}{reason[1:]}", hint=hint)


def _unread_hint(file: Path, error: OSError) -> str:
    if isinstance(error, IsADirectoryError) and (file / "forkd.toml").is_file():
        return f"did you mean {display_path(file / 'forkd.toml')}?"
    if isinstance(error, FileNotFoundError):
        near = [found for found in (file.parent / "forkd.toml", file.with_suffix(".toml")) if found.is_file()]
        return f"did you mean {display_path(near[0])}?" if near else "without --config forkd runs on defaults"
    if isinstance(error, PermissionError):
        return "run this as the user the file belongs to"
    return ""


def _misplaced_plugins(source: Source, raw: dict[str, Any], problems: Problems) -> None:
    """[plugin.NAME] is how `config show` prints plugins; they are switched on elsewhere."""
    if raw.pop("plugin", None) is not None:
        rule = "a plugin is switched on by a file of its own"
        problems.add(source, ("plugin",), rule, hint="write it to plugins.d/NN-name.toml beside this file")


def _unquoted_domains(source: Source, raw: dict[str, Any], problems: Problems) -> None:
    """[domain.example.org] is, to TOML, a table `org` in a table `example`: say what is meant."""
    domains = raw.get("domain")
    if not isinstance(domains, dict):
        return
    for name in list(domains):
        path: tuple[str, ...] = ("domain", name)
        table = domains[name]
        while isinstance(table, dict):
            inner = next((key for key, value in table.items() if isinstance(value, dict)), None)
            if inner is None:
                break
            path, table = (*path, inner), table[inner]
        if len(path) > 2:
            rule = "a name with dots in it needs quotes in a table's header"
            problems.add(source, path, rule, hint=f'write [domain."{".".join(path[1:])}"]')
            del domains[name]


def _filled(config: Config, source: Source, notes: list[str]) -> Config:
    """The defaults that depend on where we are and on what else is set."""
    server = config.server
    if not server.data_dir.is_absolute():
        server = msgspec.structs.replace(
            server, data_dir=Path(os.path.normpath(source.folder / server.data_dir))
        )
    if not server.hostname:
        server = msgspec.structs.replace(server, hostname=_machine_name(notes))
    auth = config.auth
    if not auth.users.is_absolute():
        auth = msgspec.structs.replace(auth, users=Path(os.path.normpath(source.folder / auth.users)))
    domains = config.domain
    ways = {
        name: _completed(name, table, server, notes)
        for name, table in {"local": Maildir(), **config.transport}.items()
    }
    if source.path is None:
        domains = {name: Domain() for name in DEFAULT_DOMAINS}
    return msgspec.structs.replace(
        config,
        server=server,
        auth=auth,
        listener=config.listener or {"default": Listener()},
        domain=domains,
        transport=ways,
    )


def _aliases(config: Config, problems: Problems, notes: list[str]) -> Aliases:
    """The files of aliases.files, which must fit the rest."""
    if not config.aliases.files:
        return NO_ALIASES
    before = len(problems)
    aliases = read(config.aliases.files, problems, detail_of=Recipients.from_config(config).detail_of)
    if len(problems) == before:
        check_aliases(config, aliases, problems, notes)
    return aliases


def _completed(name: str, table: Transport, server: Server, notes: list[str]) -> Transport:
    """A queue program that is not named: qmail's own variable, else where qmail has it. Who we are to other
    servers: who we are to clients."""
    if isinstance(table, NextHop) and not table.hostname:
        return msgspec.structs.replace(table, hostname=server.hostname)
    if not isinstance(table, QmailQueue) or table.argv:
        return table
    if wanted := tuple(os.environ.get("QMAILQUEUE", "").split()):
        notes.append(f"transport.{toml_key(name)}.argv comes from QMAILQUEUE in the environment: {wanted[0]}")
    return msgspec.structs.replace(table, argv=wanted or (QMAIL_QUEUE,))


def _machine_name(notes: list[str]) -> str:
    """gethostname, not getfqdn: a configuration must not wait for DNS."""
    name = socket.gethostname().rstrip(".")
    if DOMAIN_NAME.fullmatch(name):
        return name
    notes.append(f"the machine's name {name!r} is no host name: greeting as localhost; set server.hostname")
    return "localhost"


def _plugins_dir(config: Config, source: Source, problems: Problems, notes: list[str]) -> Path | None:
    """The folder of entries: the one set, else plugins.d beside the file, else none."""
    if source.path is None:
        return ENTRIES
    chosen = config.plugins.dir
    if chosen is None:
        beside = source.folder / "plugins.d"
        if not beside.is_dir():
            notes.append(f"no plugins: there is no folder {display_path(beside)}")
            return None
        return beside
    if not chosen.is_dir():
        rule = "there is no such folder" if not chosen.exists() else "this is not a folder"
        problems.add(source, ("plugins", "dir"), rule, value=chosen)
        return None
    return chosen


def _plugins(
    config: Config, source: Source, problems: Problems, notes: list[str], control: Said | None
) -> tuple[PluginConfig, ...]:
    """What the entries in plugins.dir switch on, and qmail's lists; a file that is hidden or no .toml is no
    entry."""
    folder = config.plugins.dir
    entries = []
    for file in sorted(folder.glob("[!.]*.toml")) if folder is not None else ():
        before = len(problems)
        entry, raw = read_toml(file, problems)
        if len(problems) == before:
            entries.append((entry, raw))
    if control is not None and (lists := lists_entry(control, entries, notes)):
        entries.append((dataclasses.replace(source, text="", lines={}), lists))
    sound = frozenset(table for table in ("listener", "domain") if problems.clean(source, (table,)))
    return read_entries(entries, Around(config, sound), read_toml, problems, notes)
