"""What does fork, exit and wait cost with an interpreter like a zygote's? The floor under a fresh sandbox.

Run as a script it measures itself: bare_fork.py CHECKOUT MODULES COUNT [FOLDER ...] imports the modules
named in the file MODULES and the benchmark's plugins from the FOLDERs, forks COUNT times, and prints CPU
milliseconds per fork, both processes together.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

FORKS: Final = 1000


def cpu_ms() -> float:
    """CPU milliseconds, user and system, of this process and its children so far."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage) * 1000


def measure(checkout: str, modules: str, count: int, plugins: list[str]) -> float:
    """Become like a zygote, then fork; CPU milliseconds of one fork with its child's exit and the wait."""
    sys.path.insert(0, checkout)
    for name in Path(modules).read_text().split():
        if name != "__main__":
            try:
                importlib.import_module(name)
            except ImportError:
                continue  # a module of this very interpreter build
    for folder in plugins:
        sys.path.insert(0, folder)
        importlib.import_module(Path(folder).name)
    gc.collect()
    gc.freeze()
    before = cpu_ms()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return (cpu_ms() - before) / count


def ask(checkout: Path, plugins: list[Path]) -> float:
    """measure() in a fresh process; raises subprocess.CalledProcessError. Blocks for about a second."""
    modules = checkout / "tests" / "sandbox" / "zygote_modules.txt"
    words = [sys.executable, "-S", __file__, checkout, modules, str(FORKS), *plugins]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    print(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
