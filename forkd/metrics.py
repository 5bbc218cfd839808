"""Which metrics are there? Every one in one table: name, kind, labels, help, buckets.

What a process has counted lies in its slot (metrics_slot.py), what of the log counts as what says
metrics_events.py, admin/exposition.py adds up and shows. `etc/prometheus/forkd.rules.yml` has alerts.

Counters never fall: a slot outlasts the process that fills it, and its successor goes on with it. They begin
at nothing with master. Gauges are of processes that live, added up.

Sets of labels are bounded: names come from the configuration, everything else from tables of ours or the
protocol's. A client can make none.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

QUICK: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: what a client waits for."""
LONG: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds: sessions."""
DAYS: Final = (0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 432_000.0)
"""Seconds: from received to delivered."""
SIZES: Final = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)
MEMORY: Final = tuple(float(mib << 20) for mib in (8, 16, 32, 64, 128, 256, 512, 1024))

Labels = tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric; its series differ by the values of its labels.

    by       roles whose processes count it, it is taken of no other's slot; none: what admin itself says
    buckets  of a histogram: their upper bounds, rising; the last one, +Inf, goes without saying
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    help: str
    by: frozenset[str]
    buckets: tuple[float, ...] = ()

    def told_by(self, role: str, labels: Labels) -> bool:
        """May a process of that role have counted such a series? Of processes it counts its own; master all."""
        if role not in self.by:
            return False
        return role == "master" or "role" not in self.labels or labels[self.labels.index("role")] == role

    @property
    def width(self) -> int:
        """Numbers of one series: one; of a histogram one for each bucket, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


FAMILIES: Final[dict[str, Family]] = {}


_WORKER: Final = frozenset({"worker"})
_QMGR: Final = frozenset({"qmgr"})
_MASTER: Final = frozenset({"master"})
_ADMIN: Final[frozenset[str]] = frozenset()
_ALL: Final = frozenset({"worker", "qmgr", "broker", "master"})


def _counter(name: str, labels: str, help: str, by: frozenset[str] = _WORKER) -> Family:
    return _row(Family(f"forkd_{name}_total", "counter", tuple(labels.split()), help, by))


def _gauge(name: str, labels: str, help: str, by: frozenset[str] = _WORKER) -> Family:
    return _row(Family(f"forkd_{name}", "gauge", tuple(labels.split()), help, by))


def _histogram(
    name: str, labels: str, help: str, buckets: tuple[float, ...], by: frozenset[str] = _WORKER
) -> Family:
    return _row(Family(f"forkd_{name}", "histogram", tuple(labels.split()), help, by, buckets))


def _row(family: Family) -> Family:
    assert family.name not in FAMILIES
    FAMILIES[family.name] = family
    return family


# ruff: noqa: E501 - a row is a line
# fmt: off
# --- clients ------------------------------------------------------------------------------------------

CONNECTIONS = _counter("connections", "listener", "Connections accepted.")
SESSION_ENDS = _counter("session_ends", "reason", "Sessions that ended, by why (reason of the log's session).")
SESSION_SECONDS = _histogram("session_seconds", "", "How long sessions lasted.", LONG)
SESSIONS = _gauge("sessions", "", "Sessions now.")
TRANSACTIONS = _gauge("transactions", "", "Sessions in the middle of a mail now.")
SESSION_PLACES = _gauge("session_places", "", "Sessions that all workers together may have (limits.sessions).")
REPLIES = _counter("replies", "code", "Replies to clients, greetings included.")
REFUSALS = _counter("refusals", "command code", "Commands refused (refused in the log); empty command: at the greeting, or unknown.")
MESSAGES = _counter("messages", "result", "Ends of data answered: accepted, discarded, deferred (4xx), rejected (5xx).")
MESSAGE_BYTES = _counter("message_bytes", "", "Octets of accepted messages.")
RECIPIENTS = _counter("recipients", "", "Recipients of accepted messages.")
MESSAGE_SIZE = _histogram("message_size_bytes", "", "Sizes of accepted messages.", SIZES)
MESSAGE_SECONDS = _histogram("message_seconds", "", "From MAIL's data to the reply to its end: the client's, the plugins' and the spool's time.", QUICK)
COMMIT_SECONDS = _histogram("spool_commit_seconds", "", "From handing a message to the spool until it is durable.", QUICK)
TLS_SESSIONS = _counter("tls_sessions", "version", "Sessions that ended and had TLS.")
TLS_FAILURES = _counter("tls_failures", "listener", "TLS handshakes that came to nothing.")
AUTHS = _counter("auths", "mechanism result", "AUTH commands by how they ended: ok, refused, limited, temporary.")
OVERLOADS = _counter("overloads", "", "Work refused because a limit of ours was reached.", _ALL)

# --- plugins ------------------------------------------------------------------------------------------

PLUGIN_CALLS = _counter("plugin_calls", "plugin hook verdict", "Calls, by what was made of the answer.")
PLUGIN_FAILURES = _counter("plugin_failures", "plugin cause", "Calls without a usable answer, by cause; those that were not made too.")
PLUGIN_SECONDS = _histogram("plugin_call_seconds", "plugin", "Wall time of calls, waiting for a sandbox included.", QUICK)
PLUGIN_CPU = _histogram("plugin_sandbox_cpu_seconds", "plugin", "Processor time of ended sandboxes, as their zygote tells it.", QUICK)
PLUGIN_MEMORY = _histogram("plugin_sandbox_memory_bytes", "plugin", "Most resident memory of ended sandboxes, as their zygote tells it.", MEMORY)
PLUGIN_SANDBOXES = _gauge("plugin_sandboxes", "plugin", "Sandboxes alive, spares included: the most in the last second.")
PLUGIN_SPARES = _gauge("plugin_spare_sandboxes", "plugin", "Warm sandboxes that wait for a session.")
PLUGIN_WAITING = _gauge("plugin_waiting_sessions", "plugin", "Sessions that wait for a sandbox.")
PLUGIN_BREAKERS = _gauge("plugin_open_breakers", "plugin", "Workers whose breaker for the plugin is not closed.")
PLUGIN_BREAKER_CHANGES = _counter("plugin_breaker_changes", "plugin state", "Changes of breakers, by what they are since.")
PLUGIN_SHADOWED = _counter("plugin_shadow_answers", "plugin differs", "Answers of shadow plugins, by whether they differ from what was done.")
PLUGIN_COUNTS = _counter("plugin_counts", "plugin metric", "What plugins count themselves (session.count).")

# --- the queue ----------------------------------------------------------------------------------------

QUEUE_MESSAGES = _gauge("queue_messages", "state", "Messages queued: active, deferred, hold. Looked at every 15 s or less often.", _QMGR)
QUEUE_DEPTH = _gauge("queue_depth", "", "Messages queued, all states.", _QMGR)
QUEUE_OLDEST = _gauge("queue_oldest_seconds", "", "Age of the oldest message queued and not held. Looked at every 15 s or less often.", _QMGR)
DELIVERIES = _counter("deliveries", "transport status", "Outcomes, one for each recipient and attempt: delivered, deferred, failed.", _QMGR)
DELIVERY_SECONDS = _histogram("delivery_attempt_seconds", "transport", "How long attempts took.", LONG, _QMGR)
DELIVERY_AGE = _histogram("delivery_age_seconds", "", "From received to delivered, for each recipient.", DAYS, _QMGR)
QUEUE_EVENTS = _counter("queue_events", "act", "What happened to the queue as such (queue in the log).", _QMGR)

# --- the service --------------------------------------------------------------------------------------

INFO = _gauge("build_info", "version", "1.", _ADMIN)
UP = _gauge("master_up", "", "Does master answer admin?", _ADMIN)
START_TIME = _gauge("start_time_seconds", "", "When master started, Unix time.", _ADMIN)
PROCESSES = _gauge("processes", "role state", "Processes, by state as forkd status shows it.", _ADMIN)
PROCESS_EVENTS = _counter("process_events", "role act", "What happened to processes (process in the log).", _MASTER)
PROCESS_CPU = _counter("process_cpu_seconds", "role", "Processor time of workers and of qmgr, sandboxes not included; of other processes it is not counted.", _WORKER | _QMGR)
PROCESS_MEMORY = _gauge("process_memory_bytes", "role", "Memory of their own of workers.")
BUGS = _counter("bugs", "", "Faults of our own that the log tells as bug.", _ALL)
LOG_DROPPED = _counter("log_lines_dropped", "role", "Lines of the log dropped since its reader is too slow, by processes that count (others say it in the log alone).", _ALL)
LOST_SERIES = _counter("metrics_lost", "", "What was not counted since a process had no room for one more series.", _ALL)
# fmt: on
