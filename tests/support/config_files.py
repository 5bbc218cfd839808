"""Configurations as an admin writes them: files in a folder, loaded for real."""

from __future__ import annotations

import textwrap
from pathlib import Path

from forkd.config.load import LoadedConfig, load
from forkd.config.problems import ConfigError, Problem

DOMAIN = '[domain."example.org"]\n'
"""The least a configuration needs, to follow what a test writes."""


def write(folder: Path, **files: str) -> Path:
    """Files by name, `__` for `/` and `_toml` for `.toml`; returns folder/forkd.toml."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_toml", ".toml").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder / "forkd.toml"


def loaded(folder: Path, text: str, **files: str) -> LoadedConfig:
    """forkd.toml of this text, and a domain of ours unless it has one."""
    text = textwrap.dedent(text)
    return load(write(folder, forkd_toml=text if "[domain" in text else text + "\n" + DOMAIN, **files))


def problems(folder: Path, text: str, **files: str) -> list[Problem]:
    """What is wrong with it; empty: nothing."""
    try:
        loaded(folder, text, **files)
    except ConfigError as error:
        return list(error.problems)
    return []


def problem(folder: Path, text: str, **files: str) -> Problem:
    """The one problem it has."""
    found = problems(folder, text, **files)
    assert len(found) == 1, "\n".join(map(str, found)) or "no problem was found"
    return found[0]
