"""What is installed for an interpreter? Read from its metadata files: nothing is run, nothing is imported.

An interpreter and the packages beside it are a stranger's code until a zygote has confined itself, so
not even its version is asked of it: pyvenv.cfg says it, or the interpreter's name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import re
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

GROUP: Final = "forkd.plugins"
"""Of entry points: NAME = "the.package" that has plugin.toml in its folder."""

_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_NUMBERED = re.compile(r"python(3\.\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with what is installed for it.

    python   None: the one that runs forkd
    version  "3.11" or "3.11.2"; empty: only running it would tell
    folders  of packages (site-packages), in the order in which they are looked through
    """

    python: Path | None
    version: str
    folders: tuple[Path, ...]

    @property
    def command(self) -> str:
        """The interpreter as it is typed."""
        return str(self.python or sys.executable)

    def distributions(self) -> Iterator[importlib.metadata.Distribution]:
        """Everything installed."""
        yield from importlib.metadata.distributions(path=[str(folder) for folder in self.folders])

    def version_of(self, name: str) -> str:
        """Version of an installed distribution; empty: there is none of this name."""
        path = [str(folder) for folder in self.folders]
        for found in importlib.metadata.Distribution.discover(name=name, path=path):
            # What was removed half-way has a folder and no metadata.
            with contextlib.suppress(KeyError, TypeError):
                return found.version or ""
        return ""


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """An entry point of a plugin. `folder` is where its plugin.toml should be."""

    name: str
    distribution: str
    version: str
    folder: Path


def environment(python: Path | None) -> Environment:
    """Of this interpreter, as it was named: a link in a virtual environment is not followed."""
    if python is None:
        own = [Path(entry) for entry in sys.path]
        folders = [one for one in own if one.name in ("site-packages", "dist-packages") and one.is_dir()]
        return Environment(None, platform.python_version(), tuple(folders))
    settings = _pyvenv(python)
    if settings:
        version = settings.get("version") or settings.get("version_info", "")
        folders = sorted((python.parent.parent / "lib").glob("python3*/site-packages"))
        if settings.get("include-system-site-packages", "").lower() == "true" and "home" in settings:
            folders += _folders(Path(settings["home"]).parent, _minor(version))
        return Environment(python, _plain(version), tuple(folders))
    real = python.resolve()
    numbered = _NUMBERED.fullmatch(real.name)
    version = numbered.group(1) if numbered else ""
    return Environment(python, version, tuple(_folders(real.parent.parent, version)))


def looks_like_python(python: Path) -> bool:
    """Does its name say so, or a virtual environment around it? That it is one only its start will tell."""
    names = (python.name, python.resolve().name)
    return bool(_pyvenv(python)) or any(word in name for name in names for word in ("python", "pypy"))


def packages(where: Environment) -> list[Package]:
    """Plugins that are installed there as packages, by name."""
    found = []
    for distribution in where.distributions():
        text = distribution.read_text("entry_points.txt")
        if not text or GROUP not in text:
            continue
        for point in distribution.entry_points.select(group=GROUP):
            module = point.value.partition(":")[0].strip()
            if _MODULE.fullmatch(module):
                folder = _folder_of(distribution, module)
                found.append(Package(point.name, distribution.name, distribution.version, folder))
    return sorted(found, key=lambda one: (one.name, one.distribution))


def _folder_of(distribution: importlib.metadata.Distribution, module: str) -> Path:
    """Of an importable package: where it was installed, or where it is worked on (pip install --editable)."""
    relative = module.replace(".", "/")
    installed = Path(str(distribution.locate_file(relative)))
    if installed.is_dir():
        return installed
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        url = urllib.parse.urlsplit(origin.get("url", ""))
        if url.scheme == "file" and origin.get("dir_info", {}).get("editable"):
            project = Path(urllib.parse.unquote(url.path))
            for folder in (project / relative, project / "src" / relative):
                if folder.is_dir():
                    return folder
    return installed


def _pyvenv(python: Path) -> dict[str, str]:
    """Keys of the pyvenv.cfg that makes it a virtual environment's interpreter; empty: it is none's."""
    try:
        text = (python.parent.parent / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    rows = [row.partition("=") for row in text.splitlines() if "=" in row]
    return {key.strip().lower(): value.strip() for key, _, value in rows}


def _folders(prefix: Path, version: str) -> list[Path]:
    """Where an interpreter that is not a virtual environment's has its packages, Debian's included."""
    minor = _minor(version)
    candidates = [
        prefix / f"local/lib/python{minor}/dist-packages",
        prefix / f"lib/python{minor}/site-packages",
        prefix / "lib/python3/dist-packages",
    ]
    return [folder for folder in candidates if minor and folder.is_dir()]


def _plain(version: str) -> str:
    """3.11.2 of 3.11.2.final.0."""
    numbers = re.match(r"\d+(?:\.\d+){0,2}", version)
    return numbers.group() if numbers else ""


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
