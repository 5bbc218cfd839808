"""Which events does a mail's life have in the log?

One function per event, so that formats cannot drift; each writes one line, JSON or logfmt, through
structlog. Ids join the lines: `session` and `id` (queue id). Arguments are keyword-only; a field that
is empty ("", 0, None, ()) and has a default is left out.

What a line looks like is logline.py's; how it leaves is logsink.py's: what the reader does not take is
kept up to LIMIT_BYTES, then dropped and counted, so a stuck log never stalls mail. Loops call `flush()`
on a timer (once a second is enough).
"""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import structlog

from forkd.logline import MAX_LINE_BYTES, Renderer, escape
from forkd.logsink import LIMIT_BYTES, Sink

__all__ = ["LIMIT_BYTES", "MAX_LINE_BYTES", "Sink", "escape"]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _SinkLogger:
    """What structlog calls at the end: every level is one write."""

    def __init__(self, sink: Sink) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = sink.write


_sink: Sink | None = None
_renderer = Renderer("logfmt")
_bound: Any = structlog.make_filtering_bound_logger
"""Any: structlog types the class by a protocol that hides its constructor."""

_log: Any = _bound(50)(structlog.ReturnLogger(), [], {})
"""Silent until setup(): a library user or a test that does not ask for a log gets none."""


def setup(format: str = "logfmt", level: str = "info", fd: int = 2) -> None:
    """Open the log of this process and of those it forks. May be called again."""
    global _sink, _renderer, _log  # noqa: PLW0603 - one process has one log
    old, _sink = _sink, Sink(fd, note=_dropped_note)
    if old is not None:
        old.close()
    _renderer = Renderer(format, _renderer.process)
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


def _dropped_note(dropped: int) -> bytes:
    return _renderer(None, "error", {"event": "log", "dropped_lines": dropped})


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


# --- who clients are ----------------------------------------------------------------------------------


def tls_failure(*, session: str, client: str, reason: str, listener: str = "") -> None:
    """A TLS handshake came to nothing, and with it the connection."""
    _log.warning("tls_failure", session=session, client=client, reason=reason, **_given(listener=listener))


def auth(
    *,
    session: str,
    client: str,
    result: str,
    mechanism: str,
    user: str = "",
    reason: str = "",
    by: str = "",
) -> None:
    """An AUTH command came to its end. Never a secret, whole or in part.

    result  ok (info) | refused | limited | temporary (warning)
    user    as the client named itself; with `ok` as the backend knows it
    reason  for us, never for the client
    by      users | checkpassword | dovecot | the plugin that decided
    """
    write = _log.info if result == "ok" else _log.warning
    fields = _given(user=user[:256], reason=reason, by=by)
    write("auth", session=session, client=client, result=result, mechanism=mechanism, **fields)


def auth_backend(*, backend: str, act: str, reason: str = "", level: str = "info") -> None:
    """Who knows the passwords came or went: read | unreadable | connected | lost | unreachable."""
    _write(level, "auth_backend", backend=backend, act=act, **_given(reason=reason))


def certificate(*, act: str, name: str = "", reason: str = "", level: str = "info", **fields: object) -> None:
    """A [certificate], or tls.client_ca (no name): loaded | replaced | kept | not_loaded | note."""
    _write(level, "certificate", act=act, **_given(name=name, reason=reason, **fields))


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
