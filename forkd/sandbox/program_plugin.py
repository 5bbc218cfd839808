"""How is a program plugin asked? As any plugin: a sandbox, a call, an answer; behind it a run of the program.

The program is a filter: the message on descriptor 0, what becomes of it on 1, its say in its exit status
(program_exits.py). It does not speak our protocol. So the worker itself reads the call's frame, with the code
that reads it in a plugin's sandbox, starts the program, takes its output (program_output.py), and answers.

Descriptor 0 is a sealed file: a program that writes before it reads, or never reads, waits for nobody, and
nobody for it. Its group is killed when it has ended, is late, or writes too much; what it left in its pipe is
read when it has ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from forkd.rpc.calls import MAX_PIECE_BYTES, Answer, CallFailed, Overloaded, ReplaceMessage
from forkd.sandbox import output, program_exits
from forkd.sandbox.program_environment import environment
from forkd.sandbox.program_output import Output, Room, Taker
from forkd.sandbox.program_runs import Run, Runs
from forkd.sandbox.report import Report, cause, report
from forkd.sandbox.shares import Place
from forkd.sandbox.turns import Turns
from forkd.sandbox.wire import Death
from forkd.sdk.plugin import Plugin
from forkd.sdk.runner import Runner
from forkd.sdk.views import Envelope, Message, Session

if TYPE_CHECKING:
    from forkd.sandbox.host import Host

READS = ("envelope", "headers", "body")
CPU_SHARE = 0.6
"""Of its allowance: killed with so much used, it was for that. RLIMIT_CPU counts whole ticks, of which a busy
machine has taken a part; and nothing else that is not ours kills a program, but for want of memory."""
LAST_REPORT_S = 2.0
"""How long last_report() waits for the zygote's word on a program that was killed (as deaths.py)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostFilter:
    """What a worker knows of a program plugin.

    sandboxes     runs at once in this worker.
    cpu_s         of processor time that it may use: names the cause when it is used up.
    environment   what the admin adds to it.
    unchanged_if_empty  no output with exit status 0 is no opinion; else an empty message.
    message_size  octets that it may write.
    room          where those of them are counted that lie in the worker's memory; None: nowhere.
    """

    name: str
    socket_path: str
    sandboxes: int = 128
    cpu_s: float = 2.0
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unchanged_if_empty: bool = True
    message_size: int = 50 << 20
    room: Room | None = None


class Filters(Turns["Filter"]):
    """One program plugin's runs in this worker."""

    def __init__(self, host: Host, plugin: HostFilter) -> None:
        super().__init__(host, plugin.name, sandboxes=plugin.sandboxes)
        self.plugin = plugin
        self.runs = Runs(host, plugin.socket_path)
        self.meter = output.Meter(time.monotonic())
        self._held: set[Filter] = set()

    @property
    def alive(self) -> int:
        """Those held by sessions."""
        return len(self._held)

    async def take(
        self,
        session: str,
        *,
        network: str,
        evict: Callable[[], bool] | None,
        in_mail: Callable[[], bool] | None = None,
    ) -> Filter:
        """Host.take(); the program is started by the call."""
        return await self._take(Place(session, network, evict, time.monotonic(), in_mail=in_mail))

    def _hand_out(self, place: Place) -> Filter:
        made = Filter(self, place)
        self._shares.take(place)
        self._held.add(made)
        return made

    def _unwanted(self, sandbox: Filter) -> None:
        sandbox.close()

    def released(self, made: Filter, place: Place, *, well: bool) -> None:
        """It was closed."""
        self._held.discard(made)
        self._free(place, well=well)

    def close(self) -> None:
        """End all runs."""
        self._closing = True
        self.runs.close()

    def disconnect(self) -> None:
        """The worker ends: no connection stays open."""
        self.runs.disconnect()


class Filter:
    """One message's program: what forkd.hooks.given.Sandbox promises.

    pid          0: no word of the kernel's says which it is.
    last_output  the last lines it printed to descriptor 2, escaped and bounded; once it has ended.
    untaken      its zygote did not start it.
    """

    pid = 0
    __slots__ = (
        "_by",
        "_envelope",
        "_failed",
        "_filters",
        "_output",
        "_place",
        "_reader",
        "_report",
        "_run",
        "_runner",
        "_said",
        "_session",
        "_size",
        "_source",
        "last_output",
        "untaken",
    )

    def __init__(self, filters: Filters, place: Place) -> None:
        self._filters = filters
        self._place: Place | None = place
        self._runner = Runner(Plugin(message=self._note), READS)
        self._session: Session | None = None
        self._envelope: Envelope | None = None
        self._size = 0
        self._source = -1
        """The message that it reads, with an offset of its own."""
        self._output: Output | None = None
        self._by = 0.0
        """Monotonic time by which all of it must have been fetched."""
        self._run: Run | None = None
        self._reader: Taker | None = None
        self._report: Report | None = None
        self._failed = False
        self._said = b""
        """What it wrote to descriptor 2."""
        self.last_output = ""
        self.untaken = False

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        """Run the program for the frame of the message hook; what others tell is kept for that.

        Raises CallFailed, Overloaded. Cancelled: the program is killed.
        """
        if self._output is not None:
            return await self._piece(self._output, frame, n, timeout_s=timeout_s)
        self._runner.handle(frame)
        assert not self._runner.failed, "a frame of ours that is none"
        session, envelope = self._session, self._envelope
        if session is None or envelope is None:
            return Answer(n)
        place = self._place
        assert place is not None and message_fd >= 0
        place.idle_since = None
        self._by = time.monotonic() + timeout_s
        try:
            return await self._ask(session, envelope, n, message_fd=message_fd, timeout_s=timeout_s)
        except BaseException:
            self._failed = True
            raise
        finally:
            place.idle_since = time.monotonic()

    async def _piece(self, made: Output, frame: bytes, n: int, *, timeout_s: float) -> Answer:
        """Some octets of the message that it made."""
        await asyncio.sleep(0)  # a message has hundreds of pieces, and other sessions want their turn
        if self._place is None:
            raise _closed()
        if timeout_s <= 0 or time.monotonic() > self._by:
            # The program has long ended: it is we who need so long.
            raise Overloaded("what is left of the call's time does not suffice to take its message")
        return Answer(n, piece=made.piece(json.loads(frame)["args"]["offset"], MAX_PIECE_BYTES))

    def _note(self, session: Session, envelope: Envelope, _message: Message) -> None:
        self._session, self._envelope = session, envelope

    async def _ask(
        self, session: Session, envelope: Envelope, n: int, *, message_fd: int, timeout_s: float
    ) -> Answer:
        plugin = self._filters.plugin
        try:
            # With an offset of its own: other programs read the same file.
            self._source = os.open(f"/proc/self/fd/{message_fd}", os.O_RDONLY | os.O_CLOEXEC)
            self._size = os.fstat(self._source).st_size
        except OSError as error:
            raise Overloaded(f"no way to give it the message: {error.strerror}") from error
        sender, recipients = envelope.sender, envelope.recipients
        variables = environment(session, sender, recipients, size=self._size, own=plugin.environment)
        try:
            written, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise Overloaded(f"no pipe for it: {error.strerror}") from error
        try:
            os.set_blocking(written, False)
            try:
                run = self._filters.runs.start({0: self._source, 1: write_end}, environment=variables)
            except CallFailed:
                self.untaken = True
                raise
            finally:
                os.close(write_end)
            self._run = run
            made = self._output = Output(
                self._source, source_size=self._size, limit=plugin.message_size, room=plugin.room
            )
            death = await self._watch(run, made, written, timeout_s=timeout_s)
            return self._judge(death, made, n)
        finally:
            os.close(written)
            self._log_output()

    async def _watch(self, run: Run, made: Output, written: int, *, timeout_s: float) -> Death:
        """Take its output until it has ended; then nothing of it lives any more, or will soon."""
        host = self._filters.host
        reader = self._reader = Taker(host, made, written, run)
        try:
            async with asyncio.timeout(timeout_s):
                death: Death = await asyncio.shield(run.ended)
        except (TimeoutError, CallFailed) as why:
            if self._place is None:
                raise _closed() from None
            failure = why if isinstance(why, CallFailed) else run.late(timeout_s)
            self.untaken = failure.cause == "unavailable"
            raise reader.failure or failure from None
        finally:
            reader.close()
            run.let_go()
            if self._place is not None:
                self._said = output.read(run.printed)
                self.last_output = output.last_lines(output.escape(self._said))
        self._note_end(death)
        if self._place is None:
            raise _closed()
        if reader.failure is not None:
            raise reader.failure
        made.drain(written)
        return death

    def _note_end(self, death: Death) -> None:
        ended = self._report = report(
            death, plugin=self._filters.plugin.name, session=self._session_id(), ours=False
        )
        self._filters.host.on_report(ended)

    def _judge(self, death: Death, made: Output, n: int) -> Answer:
        """What its end means."""
        plugin = self._filters.plugin
        if not os.WIFEXITED(death.status):
            raise CallFailed(*cause(death, cpu_s=CPU_SHARE * max(1.0, plugin.cpu_s)))
        code = os.WEXITSTATUS(death.status)
        if code == program_exits.PASS:
            if made.unchanged or (made.size == 0 and plugin.unchanged_if_empty):
                return Answer(n)
            return Answer(n, edits=(ReplaceMessage(made.size),))
        verdict = program_exits.verdict(code, self._said)
        if verdict is None:
            raise CallFailed("crash", f"exit {code}, which is no answer{program_exits.LIKELY.get(code, '')}")
        if code == program_exits.CUSTOM:
            self._said = b""  # it was for the client
        return Answer(n, verdict=verdict)

    def _log_output(self) -> None:
        said, filters = self._said, self._filters
        if said and filters.meter.take(len(said), time.monotonic()):
            dropped, filters.meter.dropped = filters.meter.dropped, 0
            pid = 0 if self._report is None else self._report.pid
            name = filters.plugin.name
            filters.host.on_output(name, self._session_id(), pid, output.escape(said), dropped)

    def _session_id(self) -> str:
        return "" if self._session is None else self._session.id

    def hide(self, arguments: bytes) -> None:
        """Programs are told no password."""

    def release(self) -> None:
        """The call is over. Idempotent."""
        self.close()

    def close(self) -> None:
        """Kill the program, if it lives. Idempotent."""
        place, self._place = self._place, None
        if place is None:
            return
        if self._reader is not None:
            self._reader.close()
        if self._run is not None:
            self._run.close()
        if self._output is not None:
            self._output.close()
        if self._source >= 0:
            os.close(self._source)
            self._source = -1
        self._filters.released(self, place, well=self._run is not None and not self._failed)

    async def last_report(self) -> Report | None:
        """How it ended; after close(). Waits for its zygote's word for a moment."""
        run = self._run
        if self._report is None and run is not None:
            try:
                async with asyncio.timeout(LAST_REPORT_S):
                    self._note_end(await asyncio.shield(run.ended))
            except (TimeoutError, CallFailed):
                return None
        return self._report


def _closed() -> CallFailed:
    return CallFailed("unavailable", "the session ended in the middle of the call")
