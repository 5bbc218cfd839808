"""How is each event of the log told to eyes? One row per event; one that is not here is shown as it is.

What is missing in a line of the log (log.py: what is empty is left out) is missing here too.
"""

from __future__ import annotations

import re
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


_VERDICTS = {"none": "no objection", "accept": "accept, and no plugin behind it is asked"}
"""What may not be understood as it stands in the log."""


def _call(f: Fields) -> tuple[str, str]:
    verdict = str(f.get("verdict"))
    said = f"failed ({f['failure']}), made of it: {verdict}" if f.get("failure") else ""
    return f"{f.get('hook')} hook", _some(
        (
            f"{_plugin(f)}: {said or _VERDICTS.get(verdict, verdict)}",
            f"about {f['about']}" if f.get("about") else "",
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
            f"it reached its limit {f['limit']}" if f.get("limit") else "",
            _ended(f.get("status")),
            _used(f.get("cpu_ms", 0), f.get("memory_kib", 0)),
            f"made of it: {f['on_failure']}" if f.get("on_failure") else "",
            f"crash record {f['record']}" if f.get("record") else "",
            f"it printed: {_last(f['output'])}" if f.get("output") else "",
        )
    )


def _ended(status: object) -> str:
    """Of a sandbox that failed: forkd kills it, where it has not died by itself."""
    if not status:
        return ""
    return "its sandbox was killed" if status == "SIGKILL" else f"its sandbox ended: {status}"


def _last(output: object) -> str:
    """The line in which a traceback says what went wrong."""
    return ([line.strip() for line in str(output).splitlines() if line.strip()] or [""])[-1]


def _used(cpu_ms: float, memory_kib: int) -> str:
    if not cpu_ms and not memory_kib:
        return ""
    return f"used {cpu_ms:.1f} ms of processor time and {octets(memory_kib << 10)} of memory"


def _sandbox(f: Fields) -> tuple[str, str]:
    used = _used(f.get("user_ms", 0) + f.get("system_ms", 0), f.get("memory_kib", 0))
    status = f.get("status")
    # Each is killed when it is not needed any more: that is no news.
    return "sandbox", _some((f"of plugin {f.get('plugin')}", used, "" if status == "SIGKILL" else status))


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
            _answer(str(f.get("enhanced") or ""), str(f.get("text") or "")),
            f"TLS {f['tls']}" if f.get("tls") else "in the clear" if _spoken(f) else "",
            f"attempt {f.get('attempt', 1)} took {f.get('seconds', 0):.3f} s",
            f"next try in {f['next_try_s']:.0f} s" if f.get("next_try_s") else "",
        )
    )


def _answer(enhanced: str, text: str) -> str:
    """As a rule the next hop's reply has the code in it."""
    return text if enhanced in text.split() else f"{enhanced} {text}".strip()


def _spoken(f: Fields) -> bool:
    """A next hop has said something; else it was not reached, or only by a part of the way."""
    return bool(f.get("host")) and re.match(r"[245]\d\d[ -]", str(f.get("text"))) is not None


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
