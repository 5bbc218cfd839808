"""Which events does a mail's life have in the log, and how do they get out without ever blocking?

One function per event, so that formats cannot drift; each writes one line, JSON or logfmt, through
structlog. Ids join the lines: `session` and `id` (queue id). Arguments are keyword-only; a field that
is empty ("", 0, None, ()) and has a default is left out. Text may be hostile: control characters are
escaped and lines are cut, so one call is always exactly one line of at most MAX_LINE_BYTES.

The sink writes to a file description of its own, so that no other process' stderr becomes
non-blocking. What the reader does not take is kept up to LIMIT_BYTES, then dropped and counted: a
stuck log never stalls mail. Loops call `flush()` on a timer (once a second is enough).
"""

from __future__ import annotations

import collections
import io
import os
import re
import select
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import msgspec
import structlog

MAX_LINE_BYTES = 4096
"""PIPE_BUF: a write of so much to a pipe is whole or not at all, so lines of several processes never mix."""

LIMIT_BYTES = 1 << 20
"""Kept per process for a reader that is slow; then lines are dropped and counted."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Sink:
    """A bounded, non-blocking way to `fd`. Usable from several threads. Never raises for a bad reader.

    fd      a pipe, file, terminal or socket; it is duplicated or opened anew, never changed.
    limit   octets kept while the reader takes nothing.
    """

    def __init__(self, fd: int = 2, *, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._waiting: collections.deque[bytes] = collections.deque()
        self._waiting_bytes = 0
        self.dropped = 0
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._poll_first = False
        self._fd = -1
        self._open(fd)

    def _open(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            # A file never makes a writer wait for a reader, and whoever else writes through this
            # description (a shell's `2>file`) shares its offset: opened anew, one would overwrite the other.
            self._fd = os.dup(fd)
            return
        if stat.S_ISSOCK(mode):
            # A journal stream. A socket cannot be opened anew, but one send can be told not to wait.
            self._socket = socket.socket(fileno=os.dup(fd))
            self._fd = self._socket.fileno()
            return
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
            self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            # No /proc, or a terminal of another user: then ask before each write. A pipe that polls
            # writable takes PIPE_BUF octets without waiting.
            self._fd = os.dup(fd)
            self._poll_first = True

    @property
    def descriptor(self) -> int:
        """Our own descriptor: whoever closes descriptors after a fork keeps this one."""
        return self._fd

    def write(self, line: bytes) -> None:
        """Write `line` (ends in a newline) now, or keep it, or drop and count it."""
        with self._lock:
            if self._waiting or self.dropped:
                self._drain()
            if not self._waiting and not self.dropped:
                line = line[self._put(line) :]
                if not line:
                    return
            if self._waiting_bytes + len(line) > self._limit:
                self.dropped += 1
                return
            self._waiting.append(line)
            self._waiting_bytes += len(line)

    def flush(self) -> bool:
        """Write what waits, as far as it goes without blocking; true when nothing is left."""
        with self._lock:
            self._drain()
            return not self._waiting and not self.dropped

    def forget(self) -> None:
        """Drop what waits: after a fork it is the parent's to write."""
        self._lock = threading.Lock()
        self._waiting.clear()
        self._waiting_bytes = 0
        self.dropped = 0

    def close(self) -> None:
        """Flush once and close."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _drain(self) -> None:
        while self._waiting:
            line = self._waiting[0]
            written = self._put(line)
            self._waiting_bytes -= written
            if written < len(line):
                self._waiting[0] = line[written:]
                return
            self._waiting.popleft()
        if self.dropped:
            note = _render_now("error", "log", {"dropped_lines": self.dropped})
            if self._put(note) == len(note):
                self.dropped = 0

    def _put(self, line: bytes) -> int:
        """Octets the kernel took, now. A reader that is gone takes everything: there is nobody to tell."""
        try:
            if self._socket is not None:
                return self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if self._poll_first:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                if not poll.poll(0):
                    return 0
            return os.write(self._fd, line)
        except BlockingIOError:
            return 0
        except OSError:
            return len(line)


# --- rendering ----------------------------------------------------------------------------------------

_NEEDS_QUOTES = re.compile(r"[^!#-<>-\[\]-~]")
"""Anything but visible ASCII without space, quote, equals sign and backslash."""

_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
"""C0, DEL, C1, line separators, bidirectional overrides (they make a log lie on a terminal), surrogates."""


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in '"\\':
        return "\\" + character
    number = ord(character)
    return {10: "\\n", 13: "\\r", 9: "\\t"}.get(number) or (
        f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    )


def escape(text: str) -> str:
    """`text` with control characters made visible: one line, whatever it holds."""
    return _UNSAFE.sub(_escape, text)


def _logfmt_value(value: object) -> str:
    if isinstance(value, str):
        if value and not _NEEDS_QUOTES.search(value):
            return value
        return f'"{_UNSAFE.sub(_escape, value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return _logfmt_value(",".join(str(item) for item in value))
    return _logfmt_value(str(value)) if not isinstance(value, int) else str(value)


def _logfmt(fields: Mapping[str, Any]) -> bytes:
    line = " ".join([f"{key}={_logfmt_value(value)}" for key, value in fields.items()])
    return line.encode("utf-8", "backslashreplace") + b"\n"


_JSON_UNSAFE = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_json_encoder = msgspec.json.Encoder()


def _json(fields: Mapping[str, Any]) -> bytes:
    try:
        line = _json_encoder.encode(fields)
    except (UnicodeEncodeError, TypeError):
        line = _json_encoder.encode({key: escape(str(value)) for key, value in fields.items()})
    if not line.isascii():
        # The encoder escapes C0 itself; what is left to escape is beyond ASCII.
        line = _JSON_UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", line.decode()).encode()
    return line + b"\n"


_RENDERERS = {"logfmt": _logfmt, "json": _json}


def _shortened(value: object, room: int) -> object:
    if isinstance(value, str):
        return value if len(value) <= room else value[:room] + "…"
    if isinstance(value, list | tuple):
        kept = [_shortened(item, room) for item in value[: max(1, room // 64)]]
        return kept if len(kept) == len(value) else [*kept, f"… {len(value)} in all"]
    return value


class _Renderer:
    """The processor at the end of structlog's chain: time, level and process in front, one bounded line."""

    def __init__(self, form: str, process: str = "") -> None:
        self._render = _RENDERERS[form]
        self.process = process
        self._second = 0
        self._stamp = ""

    def __call__(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> bytes:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second
        fields = {"time": f"{self._stamp}{int((now - second) * 1000):03d}Z", "level": level}
        if self.process:
            fields["process"] = self.process
        fields["event"] = event.pop("event")
        fields.update(event)
        line = self._render(fields)
        room = 2048
        while len(line) > MAX_LINE_BYTES and room:
            room //= 2
            line = self._render({key: _shortened(value, room) for key, value in fields.items()})
        return line


class _SinkLogger:
    """What structlog calls at the end: every level is one write."""

    def __init__(self, sink: Sink) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = sink.write


_sink: Sink | None = None
_renderer = _Renderer("logfmt")
_bound: Any = structlog.make_filtering_bound_logger
"""Any: structlog types the class by a protocol that hides its constructor."""

_log: Any = _bound(50)(structlog.ReturnLogger(), [], {})
"""Silent until setup(): a library user or a test that does not ask for a log gets none."""


def setup(format: str = "logfmt", level: str = "info", fd: int = 2) -> None:
    """Open the log of this process and of those it forks. May be called again."""
    global _sink, _renderer, _log  # noqa: PLW0603 - one process has one log
    old, _sink = _sink, Sink(fd)
    if old is not None:
        old.close()
    _renderer = _Renderer(format, _renderer.process)
    _log = _bound(LEVELS[level])(_SinkLogger(_sink), [_renderer], {})


def identify(process: str) -> None:
    """Name this process in its lines, e.g. `worker.0`; called once after the fork."""
    _renderer.process = process


def flush() -> bool:
    """Write what waits, without blocking; true when nothing is left. For every loop's timer."""
    return _sink is None or _sink.flush()


def finish(timeout_s: float = 1.0) -> None:
    """Before the process exits: give a slow reader a last chance, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not flush() and time.monotonic() < deadline:
        time.sleep(0.02)


def descriptor() -> int:
    """The log's own descriptor, to be kept when others are closed; -1: no log is set up."""
    return -1 if _sink is None else _sink.descriptor


def _after_fork() -> None:
    if _sink is not None:
        _sink.forget()


os.register_at_fork(after_in_child=_after_fork)


def _render_now(level: str, event: str, fields: dict[str, Any]) -> bytes:
    return _renderer(None, level, {"event": event, **fields})


def _given(**fields: object) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value or value is False}


# --- the life of a mail -------------------------------------------------------------------------------


def session_end(
    *,
    session: str,
    client: str,
    reason: str,
    seconds: float,
    listener: str = "",
    helo: str = "",
    messages: int = 0,
    recipients: int = 0,
    errors: int = 0,
    octets_in: int = 0,
    last_reply: str = "",
    plugins: Sequence[str] = (),
) -> None:
    """A client's dialogue is over.

    client   ADDRESS:PORT
    reason   quit | lost | timeout | refused | shutdown | errors | plugin | overload | failed …
    plugins  one short text per call outside a transaction (connect, helo): `name:hook:verdict:1.2ms`
    """
    fields = _given(
        listener=listener, helo=helo, messages=messages, recipients=recipients, errors=errors,
        octets_in=octets_in, last_reply=last_reply, plugins=plugins,
    )  # fmt: skip
    _log.info("session", session=session, client=client, reason=reason, seconds=seconds, **fields)


def message(
    *,
    session: str,
    client: str,
    sender: str,
    recipients: Sequence[str],
    reply: str,
    seconds: float,
    id: str = "",
    helo: str = "",
    size: int = 0,
    refused_recipients: int = 0,
    plugins: Sequence[str] = (),
    edits: int = 0,
    discarded: bool = False,
) -> None:
    """A transaction is over: its whole story.

    id       the queue id where the message was committed, else empty
    sender   `<>` for the null sender
    reply    what the client was told, e.g. `250 2.0.0 queued as …`
    plugins  one short text per call: `name:hook:verdict:1.2ms`, failures as `name:hook:!cause:…`
    """
    fields = _given(
        helo=helo, size=size, refused_recipients=refused_recipients, plugins=plugins, edits=edits,
        discarded=discarded or None,
    )  # fmt: skip
    shown = list(recipients[:10])
    if len(recipients) > len(shown):
        shown.append(f"+{len(recipients) - len(shown)}")
    _log.info(
        "message", session=session, id=id or "-", client=client, sender=sender, recipients=shown, reply=reply,
        seconds=seconds, **fields,
    )  # fmt: skip


def refused(
    *,
    session: str,
    client: str,
    sender: str,
    reply: str,
    recipient: str = "",
    helo: str = "",
    plugins: Sequence[str] = (),
) -> None:
    """MAIL or RCPT was refused: the line that answers "why was this refused?"."""
    fields = _given(recipient=recipient, helo=helo, plugins=plugins)
    _log.info("refused", session=session, client=client, sender=sender, reply=reply, **fields)


def delivery(
    *,
    id: str,
    recipient: str,
    transport: str,
    status: str,
    enhanced: str = "",
    text: str = "",
    session: str = "",
    attempt: int = 1,
    seconds: float = 0.0,
    age_s: float = 0.0,
    next_try_s: float = 0.0,
) -> None:
    """One recipient's outcome of one attempt.

    status      delivered (info) | deferred (warning) | failed (error)
    age_s       since the message was received
    next_try_s  from now; 0: no further try
    """
    write = _log.info if status == "delivered" else _log.error if status == "failed" else _log.warning
    fields = _given(enhanced=enhanced, text=text, session=session, seconds=seconds, age_s=age_s,
                    next_try_s=next_try_s)  # fmt: skip
    write(
        "delivery", id=id, recipient=recipient, transport=transport, status=status, attempt=attempt, **fields
    )


def queue_event(
    *,
    act: str,
    id: str = "",
    detail: str = "",
    count: int = 0,
    who: str = "",
    level: str = "info",
) -> None:
    """Something happened to the queue as such: recovered, quarantined, removed, flushed, given_up …"""
    _write(level, "queue", act=act, **_given(id=id, detail=detail, count=count, who=who))


# --- plugins and their sandboxes ----------------------------------------------------------------------


def plugin_failure(
    *,
    plugin: str,
    hook: str,
    cause: str,
    session: str = "",
    version: str = "",
    detail: str = "",
    on_failure: str = "",
    reply: str = "",
    pid: int = 0,
    signal: str = "",
    cpu_ms: float = 0.0,
    memory_kib: int = 0,
    output: str = "",
) -> None:
    """A call brought no usable answer.

    cause   as rpc.calls.CallFailed names it
    output  the last lines of the sandbox's stderr
    """
    fields = _given(
        session=session, version=version, detail=detail, on_failure=on_failure, reply=reply, pid=pid,
        signal=signal, cpu_ms=cpu_ms, memory_kib=memory_kib, output=output,
    )  # fmt: skip
    _log.error("plugin_failure", plugin=plugin, hook=hook, cause=cause, **fields)


def plugin_output(*, plugin: str, text: str, session: str = "", pid: int = 0, dropped: int = 0) -> None:
    """A plugin wrote to its stdout or stderr. `dropped`: octets beyond its rate, thrown away."""
    _log.warning(
        "plugin_output", plugin=plugin, text=text, **_given(session=session, pid=pid, dropped=dropped)
    )


def sandbox_end(
    *,
    plugin: str,
    pid: int,
    status: str,
    session: str = "",
    user_ms: float = 0.0,
    system_ms: float = 0.0,
    memory_kib: int = 0,
) -> None:
    """A sandbox is dead, as its zygote claims it; `status`: `exit 0`, `SIGKILL` … Level debug."""
    fields = _given(session=session, user_ms=user_ms, system_ms=system_ms, memory_kib=memory_kib)
    _log.debug("sandbox_end", plugin=plugin, pid=pid, status=status, **fields)


def self_test(*, layer: str, result: str, required: bool = False, detail: str = "") -> None:
    """One layer of the sandbox at start-up: enforced (debug) | absent | failed | unverified."""
    level = "debug" if result == "enforced" else "error" if required or result == "failed" else "warning"
    _write(level, "self_test", layer=layer, result=result, **_given(required=required or None, detail=detail))


# --- the service itself -------------------------------------------------------------------------------


def service(*, act: str, detail: str = "", level: str = "info", **fields: object) -> None:
    """The daemon as a whole: starting | ready | stopping | stopped | signal …"""
    _write(level, "service", act=act, **_given(detail=detail, **fields))


def process(
    *,
    act: str,
    role: str,
    pid: int = 0,
    slot: int | None = None,
    name: str = "",
    status: str = "",
    reason: str = "",
    after_s: float = 0.0,
    level: str = "info",
) -> None:
    """One process' life: started | ready | exited | stalled | killed | backoff | failed."""
    if slot is not None:
        role = f"{role}.{slot}"
    _write(level, "process", act=act, role=role,
           **_given(name=name, pid=pid, status=status, reason=reason, after_s=after_s))  # fmt: skip


def listening(*, listener: str, address: str, inherited: bool = False) -> None:
    """A listening socket is there; `inherited`: from systemd."""
    _log.info("listening", listener=listener, address=address, **_given(inherited=inherited or None))


def config_note(*, note: str, level: str = "warning") -> None:
    """What an admin should know about how we run."""
    _write(level, "config", note=note)


def admin_request(
    *, request: str, who: str, result: str = "ok", detail: str = "", level: str = "info"
) -> None:
    """An admin asked for something over the control socket."""
    _write(level, "admin", request=request, who=who, result=result, **_given(detail=detail))


def overload(*, what: str, detail: str = "", session: str = "", client: str = "") -> None:
    """Work was refused because a limit of ours is reached (not a fault of the client's)."""
    _log.warning("overload", what=what, **_given(detail=detail, session=session, client=client))


def bug(*, where: str, error: BaseException, session: str = "") -> None:
    """Our fault, logged once, where it was caught, with its traceback's end."""
    text = io.StringIO()
    traceback.print_exception(error, limit=-8, file=text)
    _log.error(
        "bug", where=where, error=type(error).__name__, **_given(session=session), traceback=text.getvalue()
    )


def debug(text: str, **fields: object) -> None:
    """For whoever turned debug on."""
    _log.debug("debug", text=text, **fields)


def _write(level: str, event: str, **fields: object) -> None:
    getattr(_log, level)(event, **fields)


def to_terminal() -> bool:
    """True when a person reads our stderr directly (start-up text is then worth printing)."""
    return sys.stderr is not None and sys.stderr.isatty()
