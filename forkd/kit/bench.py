"""What does a plugin's call cost? Fresh sandboxes and reused ones, beside the floors of the same run.

A session is the hooks' calls over one plain mail, recorded once and then sent again and again. Processor
time is that of all who take part: the kit in the place of the worker, the zygote, the sandboxes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.schema import Capabilities
from forkd.kit.configured import Given
from forkd.kit.drive import dispatcher, play
from forkd.kit.samples import Sample
from forkd.kit.stage import NotStarted, Stage
from forkd.kit.watch import Cost, WatchedHost, page_faults, processor_s
from forkd.sealed import sealed

FORKS: Final = 300
REUSE: Final = 1_000_000
_numbers: Final = itertools.count(1)
_FLOOR: Final = Path(__file__).parent / "floor"
_AT_ONCE: Final = 2 * (os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """Of calls of one kind: seconds of wall time."""

    p50_s: float
    p99_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """Sessions of one kind, fresh or reused.

    rate          sessions a second, with two at once for each processor.
    session       wall time of a session that is alone; first, later: of its calls.
    cpu_s         processor time of a session.
    *_faults      page faults of a sandbox: until its first answer, by its other calls, and in all.
    """

    sessions: int
    rate: float
    session: Times
    first: Times
    later: Times | None
    cpu_s: float
    first_faults: float
    later_faults: float
    faults: float


@dataclasses.dataclass(frozen=True, slots=True)
class Floor:
    """fork + exit + wait in the loaded zygote, with and without Python's own work at a fork; a call in it."""

    fork_s: float
    fork_cpu_s: float
    fork_faults: float
    raw_cpu_s: float
    call: Times | None
    """None: its hooks ask the broker, which a process alone has not."""
    call_cpu_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """All of it, with the hooks of a session in their order."""

    hooks: tuple[str, ...]
    floor: Floor
    fresh: Kind
    reused: Kind
    notes: tuple[str, ...]


async def bench(given: Given, sample: Sample, *, seconds: float) -> Measured:
    """Measure for about that long. Raises NotStarted; ValueError where a hook fails or none is reached."""
    plugin, config = given.plugin, given.config
    letter = sample.mail[0].octets if sample.mail else b"\r\n"
    part = seconds / 5
    frames: list[bytes] = []
    async with Stage(plugin, config, data_dir=given.data_dir) as stage:
        frames = await _record(given, sample, stage)
        fresh = await _measure(stage, frames, letter, seconds=part)
        notes = tuple(stage.notes)
    async with Stage(plugin, config, data_dir=given.data_dir, reuse=REUSE) as stage:
        reused = await _measure(stage, frames, letter, seconds=part)
    floor = await _floor(given, frames, letter, seconds=part)
    hooks = tuple(str(json.loads(frame)["hook"]) for frame in frames)
    return Measured(hooks, floor, fresh, reused, notes)


async def _record(given: Given, sample: Sample, stage: Stage) -> list[bytes]:
    frames: list[bytes] = []
    failed: list[str] = []

    def keep(frame: bytes, _cost: Cost, failure: str) -> None:
        frames.append(frame)
        if failure:
            failed.append(failure)

    watched = dispatcher(given, WatchedHost(stage.host, keep))
    await play(watched, sample, Cost, power_auth=given.plugin.powers.auth)
    if failed:
        raise ValueError(f"a hook failed ({failed[0]}): forkd plugin test says more")
    if not frames:
        raise ValueError("no hook of the plugin was reached by a plain mail")
    return frames


@dataclasses.dataclass(slots=True)
class _Run:
    """What sessions left behind."""

    sessions: list[float] = dataclasses.field(default_factory=list)
    first: list[float] = dataclasses.field(default_factory=list)
    later: list[float] = dataclasses.field(default_factory=list)
    first_faults: int = 0
    later_faults: int = 0


async def _measure(stage: Stage, frames: Sequence[bytes], letter: bytes, *, seconds: float) -> Kind:
    message = sealed("message", [letter])
    try:
        await _sessions(stage, frames, message, _Run(), 0.1)  # a plugin's first sessions warm it up
        alone = _Run()
        await _sessions(stage, frames, message, alone, seconds)
        for _ in range(20):
            await _session(stage, frames, message, alone, count_faults=True)
        crowd = _Run()
        await _settled(stage)
        ended = len(stage.reports)
        own, zygote, started = time.process_time(), processor_s(stage.pid), time.perf_counter()
        sandboxes_before = _living(stage)
        await asyncio.gather(*(_sessions(stage, frames, message, crowd, seconds) for _ in range(_AT_ONCE)))
        wall_s = time.perf_counter() - started
        await _settled(stage)
        cpu_s = time.process_time() - own + processor_s(stage.pid) - zygote
        dead = stage.reports[ended:]
        cpu_s += sum(report.user_s + report.system_s for report in dead)
        cpu_s += _living(stage) - sandboxes_before
    finally:
        os.close(message)
    count = len(crowd.sessions)
    return Kind(
        sessions=len(alone.sessions) + count,
        rate=count / wall_s,
        session=_times(alone.sessions),
        first=_times(alone.first),
        later=_times(alone.later) if alone.later else None,
        cpu_s=max(0.0, cpu_s) / max(1, count),
        first_faults=alone.first_faults / 20,
        later_faults=alone.later_faults / 20,
        faults=sum(report.faults for report in dead) / len(dead) if dead else 0.0,
    )


async def _sessions(stage: Stage, frames: Sequence[bytes], message: int, run: _Run, seconds: float) -> None:
    until = time.perf_counter() + seconds
    while True:
        await _session(stage, frames, message, run)
        if time.perf_counter() >= until:
            return


async def _session(
    stage: Stage, frames: Sequence[bytes], message: int, run: _Run, *, count_faults: bool = False
) -> None:
    """One session's calls; what they took."""
    name = stage.plugin.name
    begun = at = time.perf_counter()
    sandbox = await stage.host.take(name, f"bench{next(_numbers)}")
    faults = 0
    for number, frame in enumerate(frames, start=1):
        fd = message if b'"hook":"message"' in frame else -1
        await sandbox.call(frame, number, timeout_s=60.0, message_fd=fd)
        now = time.perf_counter()
        (run.first if number == 1 else run.later).append(now - at)
        if number == 1 and count_faults:
            faults = page_faults(sandbox.pid)
            now = time.perf_counter()
        at = now
    if count_faults:
        run.first_faults += faults
        run.later_faults += page_faults(sandbox.pid) - faults
    sandbox.release()
    run.sessions.append(at - begun)


def _living(stage: Stage) -> float:
    """Processor time of the sandboxes that live."""
    children = Path(f"/proc/{stage.pid}/task/{stage.pid}/children")
    try:
        return sum(processor_s(int(pid)) for pid in children.read_text().split())
    except OSError:
        return 0.0


async def _settled(stage: Stage) -> None:
    """Wait until every sandbox that was let go is reported."""
    seen = -1
    while seen != len(stage.reports):
        seen = len(stage.reports)
        await asyncio.sleep(0.05)


async def _floor(given: Given, frames: Sequence[bytes], letter: bytes, *, seconds: float) -> Floor:
    plugin = given.plugin
    file = given.data_dir / "letter"
    file.write_bytes(letter)
    file.chmod(0o644)
    settings = {
        "folder": str(plugin.folder),
        "module": plugin.module,
        "settings": plugin.settings,
        "reads": plugin.reads,
        "frames": [] if plugin.capabilities.brokered else [frame.decode() for frame in frames],
        "message": str(file),
        "seconds": seconds / 2,
        "most": 200_000,
        "forks": FORKS,
    }
    measuring = msgspec.structs.replace(
        plugin,
        folder=_FLOOR,
        module="floor.py",
        hooks=(),
        settings=settings,
        files=(*plugin.files, plugin.folder, file),
        members=(),
        capabilities=Capabilities(),
    )
    async with Stage(measuring, given.config, data_dir=given.data_dir) as stage:
        said = stage.said()
    lines = [line for line in said.splitlines() if line.startswith("floor:")]
    if not lines:
        raise NotStarted("load", f"the floor could not be measured: {said[-500:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("floor:"))
    fork, raw, calls = found["fork"], found["raw"], found.get("calls")
    return Floor(
        fork_s=fork["wall_s"],
        fork_cpu_s=fork["cpu_s"],
        fork_faults=fork["faults"],
        raw_cpu_s=raw["cpu_s"],
        call=Times(calls["p50_s"], calls["p99_s"]) if calls else None,
        call_cpu_s=calls["cpu_s"] if calls else 0.0,
    )


def _times(walls: list[float]) -> Times:
    ordered = sorted(walls)
    return Times(ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])
