"""What does a plugin do in a real sandbox, over a number of sessions? The answer of `forkd plugin test`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

import msgspec

from forkd.config.units import Seconds
from forkd.kit.configured import Given
from forkd.kit.drive import Meter, Step, dispatcher, play
from forkd.kit.noted import Noted, noted
from forkd.kit.samples import Sample
from forkd.kit.stage import NotStarted, Stage
from forkd.kit.watch import WatchedHost

LOADING: Final = Seconds(10)
"""For loading a plugin once more, only to see what it asks for."""


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
    printed  what it printed, while it was loaded and then in its sandboxes.
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
        printed = stage.said()
        meter = Meter()
        asked = dispatcher(given, WatchedHost(stage.host, meter))
        loading = noted(stage.refusals(), folders)
        sessions = []
        for sample in samples:
            before = len(stage.refusals())
            steps = await play(asked, sample, meter.take, power_auth=plugin.powers.auth)
            refused = noted(stage.refusals()[before:], folders)
            sessions.append(Session(sample, tuple(_named(step, refused) for step in steps), refused))
    # Only now: what a sandbox printed is read when it is let go.
    outputs = (f"{printed}\n" if printed else "", *stage.outputs)
    return Tested(given, loading, tuple(sessions), outputs, tuple(stage.notes), stage.uid)


async def refused_in_loading(given: Given) -> tuple[Noted, ...]:
    """Which calls are refused while the plugin is loaded, whether it starts or not?"""
    hurried = msgspec.structs.replace(given.config.sandbox, start_timeout=LOADING)
    config = msgspec.structs.replace(given.config, sandbox=hurried)
    try:
        async with Stage(given.plugin, config, data_dir=given.data_dir, learning=True) as stage:
            return noted(stage.refusals(), [member.folder for member in given.plugin.members])
    except NotStarted as why:
        return why.refused


def _named(step: Step, refused: Iterable[Noted]) -> Step:
    """A death by a refused call, with its name."""
    killed = [noted for noted in refused if noted.refusal.result == "killed"]
    # A plugin that blocks or catches SIGSYS dies by another signal here, and in production by that one.
    if step.failure in ("syscall", "memory") and killed:
        detail = f"refused system call {killed[-1].refusal.text}"
        return dataclasses.replace(step, failure="syscall", detail=detail)
    return step
