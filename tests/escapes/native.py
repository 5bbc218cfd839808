"""How do acts that need C come into a plugin? Compiled once here, put beside it as a shared object."""

from __future__ import annotations

import functools
import platform
import subprocess
import tempfile
from pathlib import Path

X86_64 = platform.machine() == "x86_64"
_SOURCE = Path(__file__).with_name("acts.c")

LOAD = 'acts = ctypes.CDLL(os.path.dirname(__file__) + "/acts.so", use_errno=True)\n'
"""In the plugin's source: its constructor runs now, in the zygote."""


@functools.cache
def acts() -> bytes:
    """acts.c as a shared object, without the hardening that would end some acts before the kernel does."""
    return shared_object(_SOURCE.read_text())


@functools.cache
def shared_object(source: str) -> bytes:
    """C source as a shared object."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.so"
        command = [
            "cc",
            "-x",
            "c",
            "-O1",
            "-w",
            "-U_FORTIFY_SOURCE",
            "-fno-stack-protector",
            "-shared",
            "-fPIC",
        ]
        subprocess.run([*command, "-o", made, "-"], input=source.encode(), check=True)
        return made.read_bytes()
