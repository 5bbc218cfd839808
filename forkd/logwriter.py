"""How does an event get from a function of log.py to the sink? One process has one log.

setup() is called once in master, before it forks; children name themselves and go on with it. Nothing is
written before setup(): a library user or a test that does not ask for a log gets none.

A process may have observers beside the log: they are told every event, whatever the level. By one
`forkd explain` knows what the log knows (rpc/tracing.py), by another one metrics do (metrics_events.py).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

# structlog loads rich where it finds it, for tracebacks that we never print: a hundred modules
# and 40 ms of processor time, at each start and each command.
_without_rich = "rich" not in sys.modules
if _without_rich:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402

if _without_rich:
    del sys.modules["rich"]

from forkd import logjournal  # noqa: E402
from forkd.logline import Renderer  # noqa: E402
from forkd.logsink import Sink  # noqa: E402

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _SinkLogger:
    """What structlog calls at the end: every level is one write."""

    def __init__(self, sink: Sink) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = sink.write


class Observer(Protocol):
    """Is told every event as it happens, on the thread where it does; must neither wait nor raise."""

    def __call__(self, event: str, fields: dict[str, object], /) -> None: ...


_sink: Sink | None = None
_told_lost = 0
"""Of the sink's `lost`, what observers know."""
_observers: tuple[Observer, ...] = ()
_renderer = Renderer("logfmt")
_shows_info = False
_bound: Any = structlog.make_filtering_bound_logger
"""Any: structlog types the class by a protocol that hides its constructor."""

_log: Any = _bound(50)(structlog.ReturnLogger(), [], {})
"""Silent until setup()."""


def setup(format: str = "logfmt", level: str = "info", fd: int | None = None) -> None:
    """Open the log of this process and of those it forks. May be called again.

    fd   where lines go; None: the journal where `format` is that, else standard error
    Raises NoJournalError.
    """
    global _renderer, _sink, _told_lost  # noqa: PLW0603 - one process has one log
    with contextlib.ExitStack() as stack:
        if fd is None:
            fd = stack.enter_context(logjournal.connect()).fileno() if format == "journal" else 2
        old, _sink, _told_lost = _sink, Sink(fd, note=_dropped_note), 0
        if old is not None:
            old.close()
        _renderer = Renderer(format, _renderer.process, stream=format != "journal" and _is_stream(fd))
    change(format, level)


def change(format: str, level: str) -> None:
    """From now on lines are written so, to where they go already; what waits there is kept. What goes to the
    journal goes on as that, and nothing else becomes it."""
    global _renderer, _log, _shows_info  # noqa: PLW0603 - one process has one log
    if _sink is None:
        return
    if "journal" not in (format, _renderer.form):
        _renderer = Renderer(format, _renderer.process, stream=_renderer.stream)
    _shows_info = LEVELS[level] <= LEVELS["info"]
    _log = _bound(LEVELS[level])(_SinkLogger(_sink), [_renderer], {})


def _is_stream(fd: int) -> bool:
    """Did systemd connect it to the journal, as a stream of text (JOURNAL_STREAM, systemd.exec(5)), and is it
    still that?"""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def identify(process: str) -> None:
    """Name this process in its lines, e.g. `worker.0`; called once after the fork."""
    _renderer.process = process


def observe(*observers: Observer | None) -> None:
    """From now on this process' events go there too, and nowhere else; None: nobody. The fields of one are
    the observers' to keep, and not to change."""
    global _observers  # noqa: PLW0603 - as the log: one for a process
    _observers = tuple(each for each in observers if each is not None)


def hold(soon: Callable[[], object]) -> None:
    """For a loop with many sessions: what each of them and each message has leaves together (Sink.hold)."""
    if _sink is not None:
        _sink.hold(soon)


def flush() -> bool:
    """Write what waits, without blocking; true when nothing is left. For every loop's timer.

    Observers are told how many lines were dropped since: while nobody reads, the log itself cannot say it.
    """
    global _told_lost  # noqa: PLW0603 - as the log: one for a process
    if _sink is None:
        return True
    done = _sink.flush()
    if _sink.lost != _told_lost:
        fields: dict[str, object] = {"process": _renderer.process, "lines": _sink.lost - _told_lost}
        _told_lost = _sink.lost
        for observer in _observers:
            observer("log_dropped", fields)
    return done


def finish(timeout_s: float = 1.0) -> None:
    """Before the process exits: give a slow reader a last chance, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not flush() and time.monotonic() < deadline:
        time.sleep(0.02)


def descriptor() -> int:
    """The log's own descriptor, to be kept when others are closed; -1: no log is set up."""
    return -1 if _sink is None else _sink.descriptor


def _after_fork() -> None:
    global _told_lost  # noqa: PLW0603
    _told_lost = 0
    observe()  # master's own; what they hold is master's too
    if _sink is not None:
        _sink.forget()


os.register_at_fork(after_in_child=_after_fork)


def _dropped_note(dropped: int) -> bytes:
    return _renderer(None, "error", {"event": "log", "dropped_lines": dropped})


def given(**fields: object) -> dict[str, object]:
    """The fields that are not empty: the others are left out of the line."""
    return {key: value for key, value in fields.items() if value or value is False}


def write(level: str, event: str, **fields: object) -> None:
    """One line, at once."""
    for observer in _observers:
        observer(event, fields)
    getattr(_log, level)(event, **fields)


def often(event: str, **fields: object) -> None:
    """One line at info of what every session and message has; structlog's own work is a fifth of one."""
    for observer in _observers:
        observer(event, fields)
    if _sink is not None and _shows_info:
        _sink.write(_renderer.line("info", event, fields), at_once=False)
