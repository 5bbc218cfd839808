"""What do a fork, and a call in one process, cost with this plugin loaded? A plugin that measures another.

Loaded in a zygote, as any plugin is, so that the measured one runs behind its walls here too. It prints one
line of JSON to the zygote's output. Nothing of it is ever asked.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

from forkd.sandbox import linux
from forkd.sdk import Plugin
from forkd.sdk.plugin import load
from forkd.sdk.runner import Runner, warm


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Load the other plugin, measure, print."""
    plugin = load(settings["folder"], settings["module"], settings["settings"])
    warm()
    found: dict[str, Any] = {}
    if settings["frames"]:
        log, sys.stdout = sys.stdout, _Silence()
        found["calls"] = _in_process(plugin, settings)
        sys.stdout = log
    gc.collect()
    gc.freeze()
    found["fork"] = _forks(os.fork, settings["forks"])
    found["raw"] = _forks(linux.fork, settings["forks"])
    print("floor:" + json.dumps(found))
    return Plugin()


class _Silence:
    """What a hook prints a hundred thousand times is no part of this."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _forks(fork: Any, count: int) -> dict[str, float]:
    """CPU and wall seconds of one fork + exit + wait, and page faults of the child."""
    child_s, faults = 0.0, 0
    started, own = time.perf_counter(), time.process_time()
    for _ in range(count):
        pid = fork()
        if pid == 0:
            os._exit(0)
        usage = os.wait4(pid, 0)[2]
        child_s += usage.ru_utime + usage.ru_stime
        faults += usage.ru_minflt
    wall_s, own_s = time.perf_counter() - started, time.process_time() - own
    return {"wall_s": wall_s / count, "cpu_s": (own_s + child_s) / count, "faults": faults / count}


def _in_process(plugin: Plugin, settings: dict[str, Any]) -> dict[str, Any]:
    """A session's calls, again and again: seconds of each."""
    frames = [frame.encode() for frame in settings["frames"]]
    message = os.open(settings["message"], os.O_RDONLY)
    walls: list[float] = []
    runner = Runner(plugin, settings["reads"])
    until = time.perf_counter() + settings["seconds"]
    own = time.process_time()
    while time.perf_counter() < until and len(walls) < settings["most"]:
        for frame in frames:
            started = time.perf_counter()
            runner.handle(frame, message)
            walls.append(time.perf_counter() - started)
    cpu_s = (time.process_time() - own) / max(1, len(walls))
    os.close(message)
    walls.sort()
    middle, late = walls[len(walls) // 2], walls[len(walls) * 99 // 100]
    return {"p50_s": middle, "p99_s": late, "cpu_s": cpu_s, "count": len(walls)}
