"""Virtual environments for tests, with packages made by hand: no network, no pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def make(folder: Path) -> Path:
    """An empty virtual environment; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    return folder / "bin" / "python"


def site(python: Path) -> Path:
    """Where its packages lie."""
    (found,) = (python.parent.parent / "lib").glob("python3*/site-packages")
    return found


def install(python: Path, name: str, version: str, *, entry_points: str = "", **files: str) -> Path:
    """A distribution as pip leaves it: metadata, and `files` (`__` for `/`, `_py`, `_toml` for endings)."""
    where = site(python)
    for path, text in files.items():
        file = where / path.replace("__", "/").replace("_py", ".py").replace("_toml", ".toml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    metadata = where / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    if entry_points:
        (metadata / "entry_points.txt").write_text(f"[forkd.plugins]\n{entry_points}\n")
    return metadata
