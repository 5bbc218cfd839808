"""forkd status, forkd stop, forkd drain: how is the running daemon, and how does it end?"""

from __future__ import annotations

import math
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from forkd.cli.control import request
from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say, tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.tables import ago, last_end, print_facts, print_table


@click.command()
@daemon_options
@json_option
def status(data_dir: Path, as_json: bool) -> int:
    """One screen: what runs, since when, what it did, what an admin should know."""
    answer = request(data_dir, "status")
    if as_json:
        print_json(answer)
        return 0
    print_facts(_facts(answer, data_dir))
    tell()
    last = sorted(answer.get("processes", ()), key=lambda process: process.get("state") == "draining")
    rows = [_process(process, answer.get("generation")) for process in last]
    print_table(
        ("process", "pid", "state", "up", "sessions", "restarts", "done"),
        rows,
        right=("pid", "sessions", "restarts"),
    )
    return 0


@click.command()
@daemon_options
@click.option("--drain", is_flag=True, help="Let transactions finish without a limit (else stop_timeout).")
@click.option("--no-wait", is_flag=True, help="Do not wait until it has stopped.")
@json_option
def stop(data_dir: Path, drain: bool, no_wait: bool, as_json: bool) -> int:
    """Stop: no new connections, 421 to idle sessions, transactions finish. Nothing accepted is lost."""
    return _stop(data_dir, "drain" if drain else "stop", wait=not no_wait, as_json=as_json)


@click.command()
@daemon_options
@click.option("--no-wait", is_flag=True, help="Do not wait until it has stopped.")
@json_option
def drain(data_dir: Path, no_wait: bool, as_json: bool) -> int:
    """Stop when the last transaction has finished, without a limit: as `forkd stop --drain`.

    No new connections; sessions without a transaction get their 421 now, others when it is done.
    `forkd sessions` shows for whom it waits, `forkd kick` ends one, `forkd stop` sets a limit after all.
    """
    return _stop(data_dir, "drain", wait=not no_wait, as_json=as_json)


def _stop(data_dir: Path, mode: str, *, wait: bool, as_json: bool) -> int:
    master = request(data_dir, "status").get("pid")
    watched = _watch(master) if isinstance(master, int) and wait else None
    try:
        request(data_dir, "stop", mode=mode)
        stopped = watched is not None and _wait(watched, as_json=as_json)
    finally:
        if watched is not None:
            os.close(watched)
    if as_json:
        print_json({"ok": True, "stopped": stopped})
    else:
        tell("stopped" if stopped else "stopping")
    return 0


def _facts(answer: dict[str, Any], data_dir: Path) -> list[tuple[str, object]]:
    counters = Counter[str](answer.get("ended", {}))
    for process in answer.get("processes", ()):
        counters.update(process.get("counters", {}))
    facts: list[tuple[str, object]] = [
        ("forkd", answer.get("version", "")),
        ("state", answer.get("state", "")),
        *_readiness(answer.get("readiness", {})),
        ("host name", answer.get("hostname", "")),
        ("master", f"pid {answer.get('pid')}, up {ago(answer['started_at'])}"),
        ("data", data_dir),
        *_configuration(answer),
        *_pool(answer),
    ]
    facts += [(f"listener {name}", where) for name, where in answer.get("listeners", {}).items()]
    facts.append(("durability", answer.get("durability", "")))
    facts.append(
        ("since start", _shown(counters, lambda name: not name.startswith(_PLUGIN)) or "nothing yet")
    )
    facts += _plugins(answer, counters)
    facts += [
        (f"restarts of {_name(process)}", f"{process.get('restarts', 0)}, the one before {end}")
        for process in answer.get("processes", ())
        if (end := last_end(process))
    ]
    walls: dict[str, list[str]] = {}
    for layer, held in answer.get("sandbox", {}).items():
        walls.setdefault(held, []).append(layer)
    facts += [(f"sandbox {held}", ", ".join(layers)) for held, layers in walls.items()]
    return facts + [("note", note) for note in answer.get("notes", ())]


def _configuration(answer: dict[str, Any]) -> list[tuple[str, object]]:
    """Which generation is in force, and whether it is what the files say."""
    number = answer.get("generation", 1)
    since = f", for {ago(answer['generation_at'])}" if answer.get("generation_at") else ""
    coming = "; a reload is under way" if answer.get("reloading") else ""
    facts: list[tuple[str, object]] = [("configuration", f"generation {number} is in force{since}{coming}")]
    if why := answer.get("not_reloaded"):
        when = ago(answer["not_reloaded_at"])
        what, *more = why.splitlines()
        facts.append(
            ("NOT RELOADED", f"{when} ago, the files are not what runs: {what}{' …' if more else ''}")
        )
    return facts


def _pool(answer: dict[str, Any]) -> list[tuple[str, object]]:
    """How many workers there may be, and how near the next one is."""
    pool = answer.get("pool")
    if not pool:
        return []
    serving = [
        each
        for each in answer.get("processes", ())
        if each.get("role") == "worker" and each.get("state") == "running"
    ]
    places = len(serving) * pool["sessions"]
    free = max(0, places - sum(each.get("sessions", 0) for each in serving))
    shown = f"{len(serving)} of {pool['min']} to {pool['max']}; {free} of {places} sessions free"
    if pool["min"] < pool["max"]:
        shown += f", one more worker below {math.ceil(places * pool['spare'] / 100)}"
    return [("workers", shown)]


def _readiness(said: dict[str, Any]) -> list[tuple[str, object]]:
    """Whether clients should be sent here, and if not, each reason in a line."""
    wrong = [("not ready", f"{check}: {why}") for check, why in said.get("checks", {}).items() if why]
    if wrong or not said:
        return list(wrong)
    tried = f", probed {ago(said['probed_at'])} ago in {said['took_ms']:g} ms" if "probed_at" in said else ""
    return [("ready", f"yes{tried}")]


_PLUGIN = "plugin."
"""Counters of one plugin: plugin.NAME.WHAT (forkd/worker/failures.py); info of its breaker: breaker.NAME."""
_BREAKER = "breaker."


def _shown(counters: Mapping[str, int], wanted: Callable[[str], bool]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {number}"
        for name, number in sorted(counters.items())
        if number and wanted(name)
    )


def _plugins(answer: dict[str, Any], counters: Mapping[str, int]) -> list[tuple[str, object]]:
    """A line for each plugin of which there is something to tell: failures, breaker, shadow."""
    told: dict[str, dict[str, int]] = {}
    for name, number in counters.items():
        if name.startswith(_PLUGIN) and name.count(".") >= 2:
            plugin, what = name.removeprefix(_PLUGIN).split(".", 1)
            told.setdefault(plugin, {})[what] = number
    workers = [process for process in answer.get("processes", ()) if process.get("role") == "worker"]
    open_ = Counter(
        name.removeprefix(_BREAKER)
        for process in workers
        for name in process.get("info", {})
        if name.startswith(_BREAKER)
    )
    lines: list[tuple[str, object]] = []
    for plugin in sorted(told.keys() | open_.keys()):
        counted = dict(told.get(plugin, {}))
        took = counted.pop("us", 0) / 1000
        said = [_shown({what.replace(".", " "): n for what, n in counted.items()}, lambda _: True)]
        if calls := counted.get("calls", 0):
            said.append(f"{took / calls:.1f} ms each")
        if open_[plugin]:
            said.insert(0, f"BREAKER OPEN in {open_[plugin]} of {len(workers)} workers")
        lines.append((f"plugin {plugin}", "; ".join(part for part in said if part)))
    return lines


def _process(process: dict[str, Any], in_force: int | None) -> tuple[object, ...]:
    state, generation = process.get("state", ""), process.get("generation", in_force)
    done = _shown(process.get("counters", {}), lambda name: not name.startswith(_PLUGIN))
    info = ", ".join(f"{key} {value}" for key, value in process.get("info", {}).items())
    return (
        _name(process),
        process.get("pid", ""),
        state if generation == in_force else f"{state} gen {generation}",
        ago(process["started_at"]) if process.get("started_at") else "",
        process.get("sessions", 0),
        process.get("restarts", 0),
        "; ".join(part for part in (done, info) if part),
    )


def _name(process: dict[str, Any]) -> str:
    return f"{process.get('role', '')} {process.get('name') or process.get('slot', '')}".strip()


def _watch(pid: int) -> int | None:
    """A descriptor of the master that tells when it is gone, whatever becomes of its number."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # gone already, or not to be seen from this container
        return None


def _wait(watched: int, *, as_json: bool) -> bool:
    """Until the master is gone; Ctrl-C ends the waiting, not the stopping."""
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    said = time.monotonic() + 2
    try:
        while not poll.poll(500):
            if not as_json and time.monotonic() > said:
                say("waiting for transactions to finish (Ctrl-C: stop waiting, it goes on stopping)")
                said = float("inf")
    except KeyboardInterrupt:
        raise CommandFailed("not waited for: forkd goes on stopping") from None
    return True
