"""How is each event of the log told to eyes? One row per event; one that is not here is shown as it is.

What is missing in a line of the log (log.py: what is empty is left out) is missing here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from forkd.cli.tables import octets

Fields = dict[str, Any]


def count(number: int, noun: str) -> str:
    """`1 edit`, `2 edits`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(words: Iterable[object]) -> str:
    """Those that say something, as one sentence's parts."""
    return "; ".join(str(word) for word in words if word)


def _list(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")


def _connected(f: Fields) -> tuple[str, str]:
    return "connected", f"{f.get('client')} to listener {f.get('listener')}"


def _plugin(f: Fields) -> str:
    by = f" (its member {f['by']})" if f.get("by") else ""
    return f"plugin {f.get('plugin')}{by}"


def _call(f: Fields) -> tuple[str, str]:
    verdict = f"{_plugin(f)}: {f.get('verdict')}"
    return f"{f.get('hook')} hook", _some(
        (
            verdict,
            f"failed: {f['failure']}" if f.get("failure") else "",
            count(f["edits"], "edit") if f.get("edits") else "",
            f"{f.get('ms', 0):.1f} ms",
        )
    )


def _failure(f: Fields) -> tuple[str, str]:
    return "failure", _some(
        (
            f"{_plugin(f)} {f.get('version', '')} at {f.get('hook')}: {f.get('cause')}",
            f.get("detail"),
            f"system call {f['call']}" if f.get("call") else "",
            f"its sandbox ended: {f['status']}" if f.get("status") else "",
            _used(f.get("cpu_ms", 0), f.get("memory_kib", 0)),
            f"made of it: {f['on_failure']}" if f.get("on_failure") else "",
            f"crash record {f['record']}" if f.get("record") else "",
            f"it printed: {f['output']}" if f.get("output") else "",
        )
    )


def _used(cpu_ms: float, memory_kib: int) -> str:
    if not cpu_ms and not memory_kib:
        return ""
    return f"{cpu_ms:.1f} ms of processor time, {octets(memory_kib << 10)}"


def _sandbox(f: Fields) -> tuple[str, str]:
    used = _used(f.get("user_ms", 0) + f.get("system_ms", 0), f.get("memory_kib", 0))
    return "sandbox", _some((f"of plugin {f.get('plugin')}, {f.get('status')}", used))


def _shadow(f: Fields) -> tuple[str, str]:
    would = f"{_plugin(f)} in shadow would have said {f.get('would')}"
    return f"{f.get('hook')} hook", _some(
        (
            would,
            f.get("reply"),
            f"and it was {f.get('did')}" if f.get("differs") else "as it was decided",
            f"{f.get('ms', 0):.1f} ms",
        )
    )


def _auth(f: Fields) -> tuple[str, str]:
    return f"AUTH {f.get('mechanism')}", _some(
        (
            f"{f.get('result')}" + (f" as {f['user']}" if f.get("user") else ""),
            f"by {f['by']}" if f.get("by") else "",
            f.get("reason"),
        )
    )


def _refused(f: Fields) -> tuple[str, str]:
    command = str(f.get("command") or "-")
    about = ""
    if command == "RCPT":
        about = f"to {f.get('recipient')} from {f.get('sender')}"
    elif command == "MAIL":
        about = f"from {f.get('sender')}"
    return "greeting" if command == "-" else command, _some(
        (f"refused: {f.get('reply')}", about, f"said: {f['said']}" if f.get("said") else "")
    )


def _message(f: Fields) -> tuple[str, str]:
    return "message", _some(
        (
            f.get("reply"),
            f"from {f.get('sender')} to {_list(f.get('recipients')) or 'nobody'}",
            f"the client said from {f['original_sender']}" if f.get("original_sender") else "",
            f"rewritten: {_list(f['rewritten'])}" if f.get("rewritten") else "",
            f"dropped: {_list(f['dropped'])}" if f.get("dropped") else "",
            "discarded" if f.get("discarded") else "",
            count(f["edits"], "edit") if f.get("edits") else "",
            octets(f.get("size", 0)),
            f"{f['seconds']:.3f} s since the data began" if f.get("seconds") else "",
        )
    )


def _delivery(f: Fields) -> tuple[str, str]:
    host = f" at {f['host']}" if f.get("host") else ""
    return str(f.get("status")), _some(
        (
            f"{f.get('recipient')} by {f.get('transport')}{host}",
            f"{f.get('enhanced', '')} {f.get('text', '')}".strip(),
            f"TLS {f['tls']}" if f.get("tls") else "in the clear" if host else "",
            f"attempt {f.get('attempt', 1)} took {f.get('seconds', 0):.3f} s",
            f"next try in {f['next_try_s']:.0f} s" if f.get("next_try_s") else "",
        )
    )


def _queue(f: Fields) -> tuple[str, str]:
    return str(f.get("act")), _some((f.get("detail"), f"by {f['who']}" if f.get("who") else "")) or "-"


def _session(f: Fields) -> tuple[str, str]:
    return "end", _some(
        (
            f"{f.get('reason')} after {f.get('seconds', 0):.3f} s",
            count(f.get("messages", 0), "message") + " taken",
            count(f["errors"], "command") + " refused" if f.get("errors") else "",
            f"last reply: {f['last_reply']}" if f.get("last_reply") else "",
        )
    )


TOLD: dict[str, Callable[[Fields], tuple[str, str]]] = {
    "connected": _connected,
    "tls_failure": lambda f: ("TLS", f"handshake failed: {f.get('reason')}"),
    "auth": _auth,
    "plugin_call": _call,
    "plugin_failure": _failure,
    "plugin_log": lambda f: ("said", f"{_plugin(f)}: {f.get('text')}"),
    "plugin_output": lambda f: ("printed", f"{_plugin(f)}: {f.get('text')}"),
    "shadow": _shadow,
    "sandbox_end": _sandbox,
    "broker_refusal": lambda f: ("broker", f"{_plugin(f)}, {f.get('kind')}: {f.get('detail')}"),
    "broker_breach": lambda f: ("broker", f"{_plugin(f)} broke the protocol: {f.get('detail')}"),
    "overload": lambda f: ("overload", _some((f.get("what"), f.get("detail")))),
    "refused": _refused,
    "edited": lambda f: ("edited", _list(f.get("edits"))),
    "message": _message,
    "delivery": _delivery,
    "queue": _queue,
    "session": _session,
    "bug": lambda f: ("bug", f"of forkd's: {f.get('error')} in {f.get('where')}; the log has the traceback"),
}
"""Event of the log -> what happened, and how it went."""


def told(event: str, fields: Fields) -> tuple[str, str]:
    """What happened, and how it went."""
    tell = TOLD.get(event)
    if tell is not None:
        try:
            return tell(fields)
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
            pass  # a process taken over tells what it likes: then it is shown as it came
    return event, " ".join(f"{name}={value}" for name, value in fields.items())
