"""What of the log counts as what? A row for each event that metrics are made of.

Metrics observe the log (log.observe), at whatever level it is written: so the two agree, and what is in
neither line nor event is counted where it happens (worker/measuring.py, qmgr/measuring.py).

Measured on this project's two-core machine: 3.2 µs of processor time for a session of one message, with its
seven replies, and 0.8 µs for each call of a plugin.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

from forkd import metrics
from forkd.metrics_slot import LOST, Slot

Fields = dict[str, Any]
Count = Callable[[Slot, Fields], None]

_MECHANISMS: Final = frozenset(
    {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "EXTERNAL",
     "OAUTHBEARER", "XOAUTH2"}
)  # fmt: skip
_NOT_MADE: Final = frozenset({"overload", "failed earlier", "breaker open"})
"""Calls that were not made: no line of the log says plugin_failure of them. Of the others it does, when it is
certain how the sandbox ended."""
_SIZES_SUM: Final = metrics.MESSAGE_SIZE.width - 1
_TIMES_SUM: Final = metrics.MESSAGE_SECONDS.width - 1


class Counting:
    """The observer (logwriter.Observer) that counts into `slot`. Threads log too: they take turns."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._turn = threading.Lock()
        self._counts: dict[str, Count] = {**EVENTS, "message": _Messages()}

    def __call__(self, event: str, fields: Fields) -> None:
        """Count what happened."""
        if (count := self._counts.get(event)) is not None:
            with self._turn:
                count(self._slot, fields)


def counting(slot: Slot) -> Counting | None:
    """For log.observe(); None: nobody reads what would be counted."""
    return Counting(slot) if slot.kept else None


def _connected(slot: Slot, fields: Fields) -> None:
    listener = fields.get("listener", "")
    if not _ours(listener):
        slot.add(metrics.CONNECTIONS, listener)


def _session(slot: Slot, fields: Fields) -> None:
    slot.add(metrics.SESSION_ENDS, fields["reason"])
    slot.observe(metrics.SESSION_SECONDS, fields["seconds"])
    if tls := fields.get("tls"):
        slot.add(metrics.TLS_SESSIONS, tls.partition(" ")[0])


def _message(slot: Slot, fields: Fields) -> None:
    code = fields["reply"][:1]
    result = {"2": "accepted", "4": "deferred"}.get(code, "rejected")
    if fields.get("discarded"):
        result = "discarded"
    slot.add(metrics.MESSAGES, result)
    if result == "accepted":
        size = fields.get("size", 0)
        slot.add(metrics.MESSAGE_BYTES, by=size)
        slot.observe(metrics.MESSAGE_SIZE, size)
        slot.add(metrics.RECIPIENTS, by=_length(fields["recipients"]))
    slot.observe(metrics.MESSAGE_SECONDS, fields["seconds"])


class _Messages:
    """_message(), for the one that is accepted: the places of its numbers are looked up once."""

    def __init__(self) -> None:
        self._places: tuple[int, ...] = ()

    def __call__(self, slot: Slot, fields: Fields) -> None:
        accepted = fields["reply"].startswith("2") and not fields.get("discarded")
        places = accepted and (self._places or self._look_up(slot))
        if not places:
            _message(slot, fields)
            return
        messages, octets, everybody, sizes, times = places
        size, seconds, numbers = fields.get("size", 0), fields["seconds"], slot.numbers
        numbers[messages] += 1
        numbers[octets] += size
        numbers[everybody] += _length(fields["recipients"])
        numbers[sizes + bisect_left(metrics.SIZES, size)] += 1
        numbers[sizes + _SIZES_SUM] += size
        numbers[times + bisect_left(metrics.QUICK, seconds)] += 1
        numbers[times + _TIMES_SUM] += seconds

    def _look_up(self, slot: Slot) -> tuple[int, ...]:
        """Nothing where the slot has no room for one of them."""
        families = (metrics.MESSAGE_BYTES, metrics.RECIPIENTS, metrics.MESSAGE_SIZE, metrics.MESSAGE_SECONDS)
        found = (slot.place(metrics.MESSAGES, ("accepted",)), *map(slot.place, families))
        self._places = () if LOST in found else found
        return self._places


def _length(recipients: list[str]) -> int:
    """Of a list that the log cuts after ten, `+N` then says how many there are beyond."""
    if len(recipients) == 11 and recipients[10].startswith("+"):
        return 10 + int(recipients[10][1:])
    return len(recipients)


def _refused(slot: Slot, fields: Fields) -> None:
    command = fields["command"]
    slot.add(metrics.REFUSALS, "" if command == "-" else command, fields["reply"][:3])


def _tls_failure(slot: Slot, fields: Fields) -> None:
    slot.add(metrics.TLS_FAILURES, fields.get("listener", ""))


def _auth(slot: Slot, fields: Fields) -> None:
    mechanism = fields["mechanism"].upper()
    slot.add(metrics.AUTHS, mechanism if mechanism in _MECHANISMS else "other", fields["result"])


def _overload(slot: Slot, _: Fields) -> None:
    slot.add(metrics.OVERLOADS)


def _bug(slot: Slot, _: Fields) -> None:
    slot.add(metrics.BUGS)


def _ours(name: str) -> bool:
    """The probe's listener and plugin, programs that are no plugins: no name of an admin's has an @."""
    return name.startswith("@")


def _plugin_call(slot: Slot, fields: Fields) -> None:
    plugin = fields["plugin"]
    if _ours(plugin):
        return
    slot.add(metrics.PLUGIN_CALLS, plugin, fields["hook"], fields["verdict"])
    slot.observe(metrics.PLUGIN_SECONDS, fields["ms"] / 1000, plugin)
    if (failure := fields.get("failure")) in _NOT_MADE:
        slot.add(metrics.PLUGIN_FAILURES, plugin, failure.replace(" ", "_"))


def _plugin_failure(slot: Slot, fields: Fields) -> None:
    if not _ours(fields["plugin"]):
        slot.add(metrics.PLUGIN_FAILURES, fields["plugin"], fields["cause"].replace(" ", "_"))


def _sandbox_end(slot: Slot, fields: Fields) -> None:
    plugin = fields["plugin"]
    if not _ours(plugin):
        cpu_ms = fields.get("user_ms", 0.0) + fields.get("system_ms", 0.0)
        slot.observe(metrics.PLUGIN_CPU, cpu_ms / 1000, plugin)
        slot.observe(metrics.PLUGIN_MEMORY, fields.get("memory_kib", 0) * 1024, plugin)


def _breaker(slot: Slot, fields: Fields) -> None:
    if not _ours(fields["plugin"]):
        slot.add(metrics.PLUGIN_BREAKER_CHANGES, fields["plugin"], fields["state"])


def _shadow(slot: Slot, fields: Fields) -> None:
    plugin = fields["plugin"].partition(".")[0]
    slot.add(metrics.PLUGIN_SHADOWED, plugin, "yes" if fields["differs"] else "no")


def _delivery(slot: Slot, fields: Fields) -> None:
    transport, status = fields["transport"], fields["status"]
    slot.add(metrics.DELIVERIES, transport, status)
    slot.observe(metrics.DELIVERY_SECONDS, fields.get("seconds", 0.0), transport)
    if status == "delivered":
        slot.observe(metrics.DELIVERY_AGE, fields.get("age_s", 0.0))


def _queue(slot: Slot, fields: Fields) -> None:
    slot.add(metrics.QUEUE_EVENTS, fields["act"])


def _process(slot: Slot, fields: Fields) -> None:
    slot.add(metrics.PROCESS_EVENTS, fields["role"].partition(".")[0], fields["act"])


def _log_dropped(slot: Slot, fields: Fields) -> None:
    slot.add(metrics.LOG_DROPPED, fields["process"].partition(".")[0], by=fields["lines"])


EVENTS: Final[dict[str, Count]] = {
    "connected": _connected,
    "session": _session,
    "message": _message,
    "refused": _refused,
    "tls_failure": _tls_failure,
    "auth": _auth,
    "overload": _overload,
    "bug": _bug,
    "plugin_call": _plugin_call,
    "plugin_failure": _plugin_failure,
    "sandbox_end": _sandbox_end,
    "breaker": _breaker,
    "shadow": _shadow,
    "delivery": _delivery,
    "queue": _queue,
    "process": _process,
    "log_dropped": _log_dropped,
}
"""Event of log.py, or log_dropped of logwriter.flush() -> who counts it."""
