"""Compiled plugins for tests: each source in c/, in every way it could have been, once in a process."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "c"

MANUAL = (
    ("-Wall", "-O2", "-fPIC", "-fno-strict-aliasing", "-c"),
    ("-shared", "-rdynamic", "-nostartfiles", "-fPIC", "-s", "-O4"),
)
"""Options that plugin_init(3) tells authors to compile with, and to link with."""
PLAIN = ("-shared", "-fPIC")
OLD_TEXT = "-DTEXT=char *"
"""Strings as in the header of 2011; without it as today."""


@functools.cache
def folder() -> Path:
    """Where they lie; every user can read there."""
    place = Path(tempfile.mkdtemp(prefix="forkd-so-", dir="/var/tmp"))
    place.chmod(0o755)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@functools.cache
def compiled(name: str, *defines: str, manual: bool = False) -> Path:
    """c/NAME.c as a shared object; `manual`: by the two steps of the manual page."""
    source = SOURCES / f"{name}.c"
    made = folder() / f"{name}-{len(list(folder().iterdir()))}.so"
    if manual:
        middle = made.with_suffix(".o")
        _run("cc", *MANUAL[0], *defines, "-o", str(middle), str(source))
        _run("cc", *MANUAL[1], "-o", str(made), str(middle))
        middle.unlink()
    else:
        _run("cc", *PLAIN, "-O1", "-w", *defines, "-o", str(made), str(source))
    made.chmod(0o755)
    return made


@functools.cache
def row(*numbers: int | None, base: str = "smtpd-plugin") -> Path:
    """A folder with numbered plugins, each of which refuses the sender of its number; None: the first, 99."""
    place = folder() / f"row-{len(list(folder().iterdir()))}"
    place.mkdir()
    for number in numbers:
        shutil.copy(compiled("numbered"), place / f"{base}{'' if number is None else number}.so")
    return place


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def entry(file: Path, more: str = "") -> str:
    """Of plugins.d: a file, or a folder of them."""
    return f'kind = "indimail"\n{"dir" if file.is_dir() else "so"} = "{file}"\n{more}\n'
