"""Where do peers lie that are not installed in the system? In one cache folder, made by setup.py."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

from tests.bench.servers import Missing

VARIABLE: Final = "FORKD_BENCH_PEERS"
PROGRAMS: Final = Path(__file__).resolve().parent / "programs"
"""What we give the peers to run: filters, handlers, plugins of theirs."""
SETUP: Final = "python -m tests.bench.peers"


def folder() -> Path:
    """$FORKD_BENCH_PEERS, else ~/.cache/forkd-bench."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "forkd-bench"


def debian(*parts: str) -> Path:
    """A file of an unpacked Debian package. Raises Missing."""
    path = folder().joinpath("debian", "root", *parts)
    if not path.exists():
        raise Missing(f"{parts[-1]} is not in {folder()}: {SETUP}")
    return path


def debian_root() -> Path:
    """The tree that all unpacked Debian packages share."""
    return folder() / "debian" / "root"


def debian_version(package: str) -> str:
    """The version that was unpacked; empty: none."""
    found = sorted((folder() / "debian").glob(f"{package}_*.deb"))
    return found[-1].name.split("_")[1].replace("%3a", ":") if found else ""


def npm(package: str) -> Path:
    """The folder of an npm package. Raises Missing."""
    if shutil.which("node") is None:
        raise Missing("node is not installed")
    path = folder() / "npm" / "node_modules" / package
    if not path.exists():
        raise Missing(f"{package} is not in {folder()}: {SETUP}")
    return path


def npm_version(package: str) -> str:
    """The version that lies there; empty: none."""
    try:
        return str(json.loads((npm(package) / "package.json").read_text())["version"])
    except Missing:
        return ""
