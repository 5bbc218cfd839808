"""What would forkd make of this plugin, if the admin granted all that it wants?

The answer comes from forkd's own reading of a configuration: a throw-away forkd.toml with one entry.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from forkd.config.capabilities import wished
from forkd.config.load import load, read_toml
from forkd.config.manifest import PluginFolder, read_manifest
from forkd.config.problems import Problems, toml_key, toml_value
from forkd.config.schema import Config, PluginConfig, Setting
from forkd.config.stock import PLUGINS
from forkd.config.wants import FLAGS, in_force

DOMAINS: Final = ("test.local", "localhost")
"""What mail is taken for in the kit: samples are for them."""
NOWHERE: Final = "127.0.0.1:9"
"""Where a wanted connection goes whose target was not given: nothing answers there."""


class Unusable(Exception):  # noqa: N818 - a state of what was given
    """This is no plugin's folder, or no value of a setting; the text is for the author."""


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """A plugin as the kit runs it.

    granted   the lines of [grants], as an admin would write them.
    data_dir  a throw-away folder, for as long as the context lasts.
    """

    plugin: PluginConfig
    config: Config
    granted: tuple[str, ...]
    data_dir: Path


def find(where: str) -> Path:
    """The plugin's folder: a path, or the name of a plugin that comes with forkd. Raises Unusable."""
    path = Path(where)
    if path.suffix == ".py" and path.is_file():
        path = path.parent
    for folder in (path, PLUGINS / where):
        if (folder / "plugin.toml").is_file():
            return folder.absolute()
    if path.is_dir():
        raise Unusable(f"{path} has no plugin.toml")
    raise Unusable(f"there is no folder {path}, and no plugin of this name comes with forkd")


@contextlib.contextmanager
def configured(
    folder: Path,
    *,
    settings: Sequence[str] = (),
    targets: Sequence[str] = (),
    name_servers: Sequence[str] = (),
    python: Path | None = None,
) -> Iterator[Given]:
    """The plugin in `folder`, with everything granted that its manifest wants with these settings.

    settings  `name=value`, as an admin would set them; a list's values apart by commas.
    targets   `name=HOST:PORT` or `name=unix:/path`, for what it wants to connect to.
    name_servers  for its lookups; none: those of this machine.
    python    its own interpreter; None: forkd's.
    Raises    Unusable; ConfigError for what forkd itself would not start with.
    """
    problems = Problems()
    found = read_manifest(folder, read_toml, problems)
    problems.raise_if_any()
    assert found is not None
    values = _values(found, settings)
    grants = list(_grants(found, _with_defaults(found, values), _pairs(targets, "--connect")))
    with tempfile.TemporaryDirectory(prefix="forkd-kit-") as name:
        place = Path(name)
        place.chmod(0o755)
        entries = place / "plugins.d"
        entries.mkdir()
        (place / "forkd.toml").write_text(
            '[server]\nhostname = "mx.test.local"\n'
            + "".join(f"[domain.{toml_value(domain)}]\n" for domain in DOMAINS)
            + f"[dns]\nservers = {toml_value(tuple(name_servers))}\n"
        )
        (entries / f"50-{folder.name}.toml").write_text(_entry(folder, values, grants, python))
        loaded = load(place / "forkd.toml")
        data_dir = place / "data"
        data_dir.mkdir(mode=0o755)
        yield Given(loaded.plugins[0], loaded.config, tuple(grants), data_dir)


def _entry(folder: Path, values: Mapping[str, Any], grants: Sequence[str], python: Path | None) -> str:
    lines = [f"plugin = {toml_value(str(folder))}"]
    if python is not None:
        lines.append(f"python = {toml_value(str(python.absolute()))}")
    lines.append("[settings]")
    lines += [f"{toml_key(name)} = {toml_value(value)}" for name, value in values.items()]
    lines += ["[grants]", *grants]
    return "\n".join(lines) + "\n"


def _grants(found: PluginFolder, values: Mapping[str, Any], targets: Mapping[str, str]) -> Iterator[str]:
    """Lines of [grants]: what the manifest wants, word for word."""
    wants = found.manifest.wants
    holds = in_force(wants, values)
    for power in FLAGS:
        if power in holds.powers:
            yield f"{power} = true"
    for power, names in holds.names.items():
        yield f"{power} = {toml_value(names)}"
    if holds.reads:
        yield f"reads = {toml_value(tuple(holds.reads))}"
    files = []
    for name in wants.files:
        value = values.get(name) or ()
        files += [value] if isinstance(value, str) else list(value)
    if files:
        yield f"files = {toml_value(files)}"
    asked = wished(wants, values)
    if asked.suffixes:
        yield f"dns = {toml_value(asked.suffixes)}"
    if "state" in asked.reasons:
        yield "state = true"
    if unknown := sorted(targets.keys() - set(asked.targets)):
        raise Unusable(f"plugin.toml wants no connection to {', '.join(unknown)}")
    if asked.targets:
        where = {name: targets.get(name, NOWHERE) for name in asked.targets}
        yield f"connect = {toml_value(where)}"
    if asked.threads:
        yield f"threads = {asked.threads}"


def _with_defaults(found: PluginFolder, values: Mapping[str, Any]) -> dict[str, Any]:
    declared = found.manifest.settings
    defaults = {name: one.default for name, one in declared.items() if _has_default(one)}
    return {**defaults, **values}


def _has_default(setting: Setting) -> bool:
    return type(setting.default).__name__ != "UnsetType"


def _values(found: PluginFolder, given: Sequence[str]) -> dict[str, Any]:
    """Texts of the command line as the types that the manifest declares."""
    values: dict[str, Any] = {}
    for name, text in _pairs(given, "--settings").items():
        setting = found.manifest.settings.get(name)
        if setting is None:
            known = ", ".join(found.manifest.settings) or "none"
            raise Unusable(f"the plugin has no setting {name} (it has: {known})")
        try:
            values[name] = _READ[setting.type](text)
        except ValueError:
            raise Unusable(f"setting {name}: {text!r} is no {setting.type}") from None
    for name, setting in found.manifest.settings.items():
        if name not in values and not _has_default(setting):
            about = f" ({setting.description})" if setting.description else ""
            raise Unusable(f"setting {name} has no default: give it with -s {name}=…{about}")
    return values


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _list(text: str) -> list[str]:
    """Apart by commas; with brackets around it as TOML writes it, for values that have commas in them."""
    if text.startswith("["):
        found = tomllib.loads(f"value = {text}")["value"]
        if not all(isinstance(one, str) for one in found):
            raise ValueError(text)
        return list(found)
    return [part.strip() for part in text.split(",") if part.strip()]


def _path(text: str) -> str:
    return str(Path(text).absolute()) if text else ""


_READ: Final[Mapping[str, Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": _flag,
    "strings": _list,
    "path": _path,
    "paths": lambda text: [_path(part) for part in _list(text)],
}
"""Type of a setting -> what makes a value of a text; ValueError: none."""


def _pairs(given: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Unusable(f"{option} {text}: write NAME=VALUE")
        pairs[name] = value
    return pairs
