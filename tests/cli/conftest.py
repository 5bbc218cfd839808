"""The command line as its users have it: a process, its output, its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Forkd = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def forkd(tmp_path: Path) -> Forkd:
    """Run `python -m forkd ARGUMENTS` in an empty folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "forkd", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "LANG": "C.UTF-8",
                "FORKD_CONFIG": "",  # whatever forkd this machine has
                **environment,
            },
        )

    return run
