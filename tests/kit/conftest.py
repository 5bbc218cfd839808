"""Plugins' folders where every user may read: a sandbox has a uid of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WritePlugin = Callable[..., Path]


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder."""
    folder = Path(tempfile.mkdtemp(prefix="forkd-kit-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def write_plugin(place: Path) -> WritePlugin:
    """Write the plugin `name` with this code and the hooks it has; more of plugin.toml behind."""

    def write(code: str, *, hooks: tuple[str, ...] = ("mail",), more: str = "", name: str = "sample") -> Path:
        folder = place / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(code)
        listed = ", ".join(f'"{hook}"' for hook in hooks)
        (folder / "plugin.toml").write_text(
            f'name = "{name}"\nversion = "1.0.0"\napi = 1\nkind = "python"\nhooks = [{listed}]\n{more}'
        )
        return folder

    return write
