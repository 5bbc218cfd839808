"""How does a program get a message, once for each recipient or for all of them? (transport "pipe")

The message is made whole before the program starts: a sealed memory file is its standard input. So a message
that turns out to be damaged reaches no program; one that writes before it reads, or never reads, waits for
nobody; and when qmgr is killed in the middle, no program takes the first half of a message for all of it.
Who starts it, behind which walls, a ProgramRunner knows.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from forkd.config.pipe_schema import Pipe as Settings
from forkd.deliver import fields, pipe_exits, pipe_words
from forkd.deliver.programs import Ending, HostGone
from forkd.deliver.transport import Delivery, Result, Target, refused_by_system
from forkd.message.edits import LineEnd, stream
from forkd.queue.format import Damaged
from forkd.queue.stored import StoredMessage
from forkd.sealed import sealed

MOST_TOGETHER: Final = 100
"""Recipients of one run: all of them must fit a command line, and one variable (execve(2))."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run of a transport's program.

    message    a descriptor of the message at its beginning: its standard input; stays the caller's.
    timeout_s  then it and what it started are killed.
    """

    message: int
    arguments: Sequence[str]
    environment: Mapping[str, str]
    timeout_s: float


class ProgramRunner(Protocol):
    """Starts the programs that the configuration names, and no others."""

    async def run(self, transport: str, run: Run) -> tuple[Ending, bytes]:
        """How it ended, and the beginning of what it wrote to its descriptors 1 and 2.

        Raises HostGone, OSError. Cancelled: the program is killed.
        """
        ...

    async def close(self) -> None:
        """No program runs any more. Idempotent."""
        ...


class Pipe:
    """[transport.NAME] kind = "pipe". An AsyncTransport."""

    def __init__(self, name: str, settings: Settings, programs: ProgramRunner) -> None:
        self.name = name
        self.connections = settings.connections
        self._settings = settings
        self._programs = programs
        self._delivered_to = settings.delivered_to and settings.per == "recipient"

    def destination(self, target: Target) -> str:  # noqa: ARG002 - AsyncTransport
        """One for all: a program that fails for one domain may do well for another."""
        return ""

    async def close(self) -> None:
        """As AsyncTransport.close."""
        await self._programs.close()

    async def deliver(self, delivery: Delivery) -> list[Result] | Damaged:
        """One run after the other: what is at once is `connections`, over all messages.

        Cancelled: the results of the runs that had ended, where there are any.
        """
        results: list[Result] = []
        together = 1 if self._settings.per == "recipient" else MOST_TOGETHER
        for at in range(0, len(delivery.targets), together):
            try:
                results += await self._run(delivery.message, delivery.targets[at : at + together])
            except asyncio.CancelledError:
                if not results:
                    raise
                return results  # who has it does not get it again because qmgr was started anew
            except Damaged as damage:
                if not results:
                    return damage
                # The disk told another story a moment ago; the next try tells what is true.
                rest = delivery.targets[at:]
                return results + [Result(target, "deferred", "4.3.0", str(damage)) for target in rest]
        return results

    async def _run(self, message: StoredMessage, targets: tuple[Target, ...]) -> list[Result]:
        """Raises Damaged."""
        fd = -1
        try:
            if self._delivered_to and await _read(message, fields.passed_here, message, targets[0]):
                text = "mail loop: Delivered-To is there already"
                return [Result(targets[0], "failed", "5.4.6", text)]
            fd = await _read(message, _sealed, self._octets(message, targets))
            size = os.fstat(fd).st_size
            words = pipe_words.arguments(
                self._settings.argv,
                pipe_words.of_message(message, size),
                [pipe_words.of_recipient(target) for target in targets],
            )
            variables = pipe_words.environment(message, size, targets, self._settings.environment)
            timeout_s = float(self._settings.timeout)
            ending, said = await self._programs.run(self.name, Run(fd, words, variables, timeout_s))
        except pipe_words.UnfitError as slip:
            return [Result(target, "failed", "5.1.3", str(slip)) for target in targets]
        except HostGone as gone:
            return [
                Result(target, "deferred", "4.3.0", f"it did not run, or nobody knows how it ended: {gone}")
                for target in targets
            ]
        except OSError as error:
            return [refused_by_system(target, error) for target in targets]
        finally:
            if fd >= 0:
                os.close(fd)
        status, enhanced, text = pipe_exits.meaning(ending, said, timeout_s=timeout_s)
        return [Result(target, status, enhanced, text) for target in targets]

    def _octets(self, message: StoredMessage, targets: Sequence[Target]) -> Iterable[bytes]:
        settings, envelope = self._settings, message.envelope
        top = fields.from_line(envelope.sender, envelope.received_at) if settings.from_line else ""
        top += fields.return_path(envelope.sender) if settings.return_path else ""
        top += fields.delivered_to(targets[0]) if self._delivered_to else ""
        return stream(message.chunks(), envelope.trace, envelope.edits, line_end=LineEnd.LF, top=top)


async def _read(message: StoredMessage, function: Callable[..., T], *arguments: object) -> T:
    """What `function`, which reads the message, returns: at once where it is in memory, else in a thread."""
    if message.in_memory:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def _sealed(pieces: Iterable[bytes]) -> int:
    """A memory file of them that nobody can change, at its beginning. Raises OSError, and what they raise."""
    fd = sealed("message", pieces)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
