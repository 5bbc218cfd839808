"""What does a plugin do in a real sandbox, over a number of sessions? The answer of `forkd plugin test`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from forkd.kit.advice import Advice, advise
from forkd.kit.configured import Given
from forkd.kit.drive import Meter, Step, dispatcher, play
from forkd.kit.samples import Sample
from forkd.kit.stage import Stage
from forkd.kit.watch import WatchedHost
from forkd.sandbox.learn import Frame, Refusal


@dataclasses.dataclass(frozen=True, slots=True)
class Noted:
    """A refused call, as its author is told: where in his code, how often, and what to do instead."""

    refusal: Refusal
    where: Frame | None
    times: int
    advice: Advice

    @property
    def harmless(self) -> bool:
        """A library asked, and goes on without."""
        return self.refusal.harmless


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """One sample's steps, and what was refused on the way."""

    sample: Sample
    steps: tuple[Step, ...]
    refused: tuple[Noted, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Tested:
    """All of it.

    loading  what was refused while the plugin was loaded.
    printed  what it printed, escaped.
    """

    given: Given
    loading: tuple[Noted, ...]
    sessions: tuple[Session, ...]
    printed: tuple[str, ...]
    notes: tuple[str, ...]
    uid: int | None

    @property
    def failures(self) -> int:
        """Hooks that brought no answer."""
        return sum(bool(step.failure) for session in self.sessions for step in session.steps)

    @property
    def killed(self) -> int:
        """Calls that end a process."""
        every = [*self.loading, *(noted for session in self.sessions for noted in session.refused)]
        return sum(noted.refusal.result == "killed" for noted in every)


async def test(given: Given, samples: Iterable[Sample]) -> Tested:
    """Run the plugin over the samples. Raises NotStarted, SampleError."""
    plugin = given.plugin
    folders = [member.folder for member in plugin.members]
    async with Stage(plugin, given.config, data_dir=given.data_dir, learning=True) as stage:
        meter = Meter()
        asked = dispatcher(given, WatchedHost(stage.host, meter))
        loading = _noted(stage.refusals(), folders)
        sessions = []
        for sample in samples:
            before = len(stage.refusals())
            steps = await play(asked, sample, meter.take, power_auth=plugin.powers.auth)
            refused = _noted(stage.refusals()[before:], folders)
            sessions.append(Session(sample, tuple(_named(step, refused) for step in steps), refused))
    # Only now: what a sandbox printed is read when it is let go.
    return Tested(given, loading, tuple(sessions), tuple(stage.outputs), tuple(stage.notes), stage.uid)


def _named(step: Step, refused: Iterable[Noted]) -> Step:
    """A death by a refused call, with its name."""
    killed = [noted for noted in refused if noted.refusal.result == "killed"]
    if step.failure == "syscall" and killed:
        return dataclasses.replace(step, detail=f"refused system call {killed[-1].refusal.text}")
    return step


def _noted(refusals: Iterable[Refusal], folders: list[Path]) -> tuple[Noted, ...]:
    """Alike ones once, with how often."""
    counted: dict[tuple[Any, ...], list[Refusal]] = {}
    for refusal in refusals:
        where = refusal.frame_in(folders)
        counted.setdefault((refusal.name, refusal.text, refusal.result, where), []).append(refusal)
    return tuple(
        Noted(alike[0], where, len(alike), advise(alike[0])) for (_, _, _, where), alike in counted.items()
    )
