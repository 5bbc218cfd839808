"""Which events are there in the log?

One function per event, so that formats cannot drift; each writes one line, JSON or logfmt, or a record of
the journal's, through structlog. Ids join the lines: `session` and `id` (queue id). Arguments are
keyword-only; a field that is empty ("", 0, None, ()) and has a default is left out.

Those of a mail's life stand in logmail.py. What a line looks like is logline.py's, the process' one log
logwriter.py's, how a line leaves logsink.py's: what the reader does not take is kept up to LIMIT_BYTES,
then dropped and counted, so a stuck log never stalls mail. Loops call `flush()` on a timer (once a second
is enough). What the field `act` may say stands in logacts.py.
"""

from __future__ import annotations

import io
import sys
import traceback

from forkd.logacts import (
    AuthBackendAct,
    CertificateAct,
    CrashRecordAct,
    ProcessAct,
    ProgramAct,
    QueueAct,
    ServiceAct,
)
from forkd.logjournal import NoJournalError
from forkd.logline import MAX_LINE_BYTES, escape
from forkd.logmail import Who, connected, delivery, edited, message, queue_event, refused, session_end
from forkd.logsink import LIMIT_BYTES, Sink
from forkd.logwriter import change, descriptor, finish, flush, given, hold, identify, observe, setup, write

__all__ = [
    "LIMIT_BYTES",
    "MAX_LINE_BYTES",
    "AuthBackendAct",
    "NoJournalError",
    "ProcessAct",
    "QueueAct",
    "Sink",
    "Who",
    "change",
    "connected",
    "delivery",
    "descriptor",
    "edited",
    "escape",
    "finish",
    "flush",
    "hold",
    "identify",
    "message",
    "observe",
    "queue_event",
    "refused",
    "session_end",
    "setup",
]


# --- who clients are ----------------------------------------------------------------------------------


def tls_failure(*, session: str, client: str, reason: str, listener: str = "") -> None:
    """A TLS handshake came to nothing, and with it the connection."""
    write("warning", "tls_failure", session=session, client=client, reason=reason, **given(listener=listener))


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
    level = "info" if result == "ok" else "warning"
    fields = given(user=user[:256], reason=reason, by=by)
    write(level, "auth", session=session, client=client, result=result, mechanism=mechanism, **fields)


def auth_backend(*, backend: str, act: AuthBackendAct, reason: str = "", level: str = "info") -> None:
    """Who knows the passwords came or went."""
    write(level, "auth_backend", backend=backend, act=act, **given(reason=reason))


def certificate(
    *, act: CertificateAct, name: str = "", reason: str = "", level: str = "info", **fields: object
) -> None:
    """Something happened to a [certificate], or tls.client_ca (no name)."""
    write(level, "certificate", act=act, **given(name=name, reason=reason, **fields))


# --- plugins and their sandboxes ----------------------------------------------------------------------


def plugin_call(
    *,
    session: str,
    plugin: str,
    hook: str,
    verdict: str,
    ms: float,
    by: str = "",
    failure: str = "",
    edits: int = 0,
    about: str = "",
) -> None:
    """A plugin was asked; level debug, since the line of the message or the refusal tells it in short.

    Fields as hooks.decision.PluginRecord has them; what a failure is about, plugin_failure says.

    about  the sender at `mail`, the recipient at `rcpt`
    """
    fields = given(by=by, failure=failure, edits=edits, about=about)
    write("debug", "plugin_call", session=session, plugin=plugin, hook=hook, verdict=verdict, ms=ms, **fields)


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
    claimed_pid: int = 0,
    status: str = "",
    call: str = "",
    cpu_ms: float = 0.0,
    memory_kib: int = 0,
    output: str = "",
    record: str = "",
    limit: str = "",
) -> None:
    """A call brought no usable answer.

    cause       as rpc.calls.CallFailed names it
    on_failure  what was made of it; `shadow`: nothing
    call        the system call that it was killed for, or that its number is unknown
    pid         of its sandbox on this host, as the kernel told it with its first answer
    claimed_pid in its place where it never answered: its zygote's number for it, which is another one in a
                PID namespace of its own
    status, cpu_ms, memory_kib  how it ended and what it had used, as its zygote claims
    output      the last lines of the sandbox's stderr
    record      the id of its crash record
    limit       of its [limits], the one that it reached: `memory = 256MiB`
    """
    fields = given(
        session=session, version=version, detail=detail, call=call, on_failure=on_failure, reply=reply,
        pid=pid, claimed_pid=claimed_pid, status=status, cpu_ms=cpu_ms, memory_kib=memory_kib, output=output,
        record=record, limit=limit,
    )  # fmt: skip
    write("error", "plugin_failure", plugin=plugin, hook=hook, cause=cause, **fields)


def plugin_log(*, plugin: str, session: str, text: str) -> None:
    """A plugin said something for the log (session.log); escaped like everything."""
    write("info", "plugin_log", plugin=plugin, session=session, text=text)


def broker_refusal(*, plugin: str, session: str, kind: str, detail: str) -> None:
    """The broker did not do what a plugin asked for; once per session and kind.

    kind  not_granted | quota | state (what the store will not take) | target (no connection to it)
    """
    write("warning", "broker_refusal", plugin=plugin, session=session, kind=kind, detail=detail[:512])


def broker_breach(*, plugin: str, session: str, detail: str) -> None:
    """A sandbox broke the broker's protocol: its channel was closed, and nothing else."""
    write("error", "broker_breach", plugin=plugin, session=session, detail=detail)


def crash_record(*, act: CrashRecordAct, record: str, reason: str = "") -> None:
    """What became of a crash record."""
    write("warning", "crash_record", act=act, record=record, **given(reason=reason))


def breaker(*, plugin: str, state: str, reason: str) -> None:
    """A plugin's breaker in one worker is now open | half_open | closed."""
    write("error" if state == "open" else "info", "breaker", plugin=plugin, state=state, reason=reason)


def shadow(
    *,
    plugin: str,
    hook: str,
    session: str,
    differs: bool,
    would: str,
    did: str,
    reply: str = "",
    edits: int = 0,
    ms: float = 0.0,
) -> None:
    """A shadow plugin answered; level debug where it had no opinion.

    would, did  go on | deny | defer | disconnect | discard | quarantine | ok: what it would have made of the
                command, and what was made of it
    reply       what the client would have been told; edits: how many of the message it would have made
    """
    level = "info" if differs or reply or edits else "debug"
    write(level, "shadow", plugin=plugin, hook=hook, session=session, differs=differs, would=would, did=did,
          **given(reply=reply, edits=edits, ms=ms))  # fmt: skip


def plugin_loaded(*, plugin: str, version: str, sha256: str, group: str = "") -> None:
    """A zygote has loaded these files behind its walls (master/plugin_files.py says of what the hash is)."""
    write("info", "plugin_loaded", plugin=plugin, version=version, sha256=sha256, **given(group=group))


def plugin_output(*, plugin: str, text: str, session: str = "", pid: int = 0, dropped: int = 0) -> None:
    """A plugin wrote to its stdout or stderr. `dropped`: octets beyond its rate, thrown away."""
    write(
        "warning",
        "plugin_output",
        plugin=plugin,
        text=text,
        **given(session=session, pid=pid, dropped=dropped),
    )


def sandbox_end(
    *,
    plugin: str,
    status: str,
    pid: int = 0,
    claimed_pid: int = 0,
    session: str = "",
    user_ms: float = 0.0,
    system_ms: float = 0.0,
    memory_kib: int = 0,
) -> None:
    """A sandbox is dead, as its zygote claims it; `status`: `exit 0`, `SIGKILL` … Level debug.

    pid, claimed_pid  as in plugin_failure
    """
    fields = given(
        pid=pid, claimed_pid=claimed_pid, session=session, user_ms=user_ms, system_ms=system_ms,
        memory_kib=memory_kib,
    )  # fmt: skip
    write("debug", "sandbox_end", plugin=plugin, status=status, **fields)


def self_test(*, layer: str, result: str, required: bool = False, detail: str = "") -> None:
    """One layer of the sandbox at start-up: enforced (debug) | absent | failed | unverified."""
    level = "debug" if result == "enforced" else "error" if required or result == "failed" else "warning"
    write(level, "self_test", layer=layer, result=result, **given(required=required or None, detail=detail))


# --- the service itself -------------------------------------------------------------------------------


def service(*, act: ServiceAct, detail: str = "", level: str = "info", **fields: object) -> None:
    """The daemon as a whole."""
    write(level, "service", act=act, **given(detail=detail, **fields))


def process(
    *,
    act: ProcessAct,
    role: str,
    pid: int = 0,
    slot: int | None = None,
    name: str = "",
    status: str = "",
    reason: str = "",
    after_s: float = 0.0,
    level: str = "info",
) -> None:
    """One process' life."""
    if slot is not None:
        role = f"{role}.{slot}"
    write(level, "process", act=act, role=role,
           **given(name=name, pid=pid, status=status, reason=reason, after_s=after_s))  # fmt: skip


def program(
    *,
    act: ProgramAct,
    transport: str = "",
    pid: int = 0,
    detail: str = "",
    level: str = "info",
) -> None:
    """A queue program, as launcher tells it."""
    write(level, "program", act=act, **given(transport=transport, pid=pid, detail=detail))


def listening(*, listener: str, address: str, inherited: bool = False) -> None:
    """A listening socket is there; `inherited`: from systemd."""
    write("info", "listening", listener=listener, address=address, **given(inherited=inherited or None))


def readiness(*, ready: bool, reason: str = "") -> None:
    """Clients should be sent to us no more, or again (admin/readiness.py)."""
    write("info" if ready else "warning", "readiness", ready=ready, **given(reason=reason))


def config_note(*, note: str, level: str = "warning") -> None:
    """What an admin should know about how we run."""
    write(level, "config", note=note)


def admin_request(
    *, request: str, who: str, uid: int, role: str, result: str = "ok", detail: str = "", level: str = "info"
) -> None:
    """Somebody asked for something over the control socket: the audit line."""
    write(level, "admin", request=request, who=who, uid=uid, role=role, result=result, **given(detail=detail))


def overload(*, what: str, detail: str = "", session: str = "", client: str = "") -> None:
    """Work was refused because a limit of ours is reached (not a fault of the client's)."""
    write("warning", "overload", what=what, **given(detail=detail, session=session, client=client))


def bug(*, where: str, error: BaseException, session: str = "") -> None:
    """Our fault, logged once, where it was caught, with its traceback's end."""
    text = io.StringIO()
    traceback.print_exception(error, limit=-8, file=text)
    write(
        "error",
        "bug",
        where=where,
        error=type(error).__name__,
        **given(session=session),
        traceback=text.getvalue(),
    )


def debug(text: str, **fields: object) -> None:
    """For whoever turned debug on."""
    write("debug", "debug", text=text, **fields)


def to_terminal() -> bool:
    """True when a person reads our stderr directly (start-up text is then worth printing)."""
    return sys.stderr is not None and sys.stderr.isatty()
