"""Which files does a program need to be started? Itself, its interpreter, their loader; and what it may read.

Asked by master before the walls are built. Execution is given file by file; reading also of the
folders where a system keeps libraries and the modules of its languages, which hold nothing of anybody's.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

SYSTEM_PATHS = (
    *map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")),
    *map(Path, ("/usr/share/perl", "/usr/share/perl5", "/etc/localtime", "/usr/share/zoneinfo")),
)
"""Readable for every program."""
WRITABLE = (Path("/dev/null"),)
"""What every program may write."""

_SEARCH = "/usr/local/bin:/usr/bin:/bin"
_PT_INTERP = 3
_MOST_HOPS = 4
"""Scripts whose interpreter is a script: as many as the kernel follows."""


class ExecutableError(Exception):
    """The program cannot be started as it is; the text is for the admin."""


def needed(argv: Sequence[str], granted: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Every file that must be executable for `argv` to start, absolute, links followed too.

    argv     its first entry is the program; others that name an executable file are such as well
             (checkpassword's second is what it starts when the password is right).
    granted  files and folders that the admin gave it.
    Raises   ExecutableError.
    """
    if not argv or not Path(argv[0]).is_absolute():
        raise ExecutableError(f"a program is named by its whole path, not {' '.join(argv)!r}")
    found: dict[Path, None] = {}
    _follow(Path(argv[0]), found, _MOST_HOPS)
    for word in (*argv[1:], *map(str, granted)):
        path = Path(word)
        if path.is_absolute() and path.is_file() and os.access(path, os.X_OK):
            _follow(path, found, _MOST_HOPS)
    return tuple(found)


def _follow(path: Path, found: dict[Path, None], hops: int) -> None:
    """Note `path`, and what the kernel would open to start it."""
    if path in found or hops < 0:
        return
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ExecutableError(f"{path} cannot be read: {error.strerror}") from error
    found[path] = None
    found[path.resolve()] = None
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].decode("utf-8", "surrogateescape").split(None, 1)
        if not words:
            return
        _follow(Path(words[0]), found, hops - 1)
        if Path(words[0]).name == "env" and len(words) > 1:
            named = shutil.which(words[1].strip().rpartition(" ")[2], path=_SEARCH)
            if named:
                _follow(Path(named), found, hops - 1)
    elif head.startswith(b"\x7fELF") and (loader := _loader(path, head)):
        _follow(loader, found, hops - 1)


def _loader(path: Path, head: bytes) -> Path | None:
    """The dynamic loader that a 64-bit ELF file names (elf(5)); None: it is linked statically."""
    if head[4] != 2 or len(head) < 64:
        raise ExecutableError(f"{path} is no 64-bit program")
    offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    for index in range(count):
        at = offset + index * size
        if at + 40 > len(head):
            return None
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", head, at)
        if kind == _PT_INTERP and start + length <= len(head):
            return Path(head[start : start + length].rstrip(b"\0").decode())
    return None
