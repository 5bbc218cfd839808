"""Which acts are there? What the field `act` of an event may say, with its meaning; nothing else is logged.

Alert rules (etc/prometheus) and searches in the log go by these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

ProcessAct = Literal[
    "started", "ready", "exited", "died", "killed", "not_started", "blamed", "changed", "unverified"
]
ServiceAct = Literal[
    "starting", "self_tested", "ready", "failed", "stopping", "draining", "stopped", "left_over",
    "reloading", "reloaded", "not_reloaded", "generation_over", "hurried",
    "worker_added", "worker_leaves", "worker_unasked",
    "spool_failed", "not_handed_on", "proxy_refused", "no_resolver", "resolver_silent", "resolver_answers",
    "state_unavailable", "state_available", "traces_lost", "traces_not_kept", "traces_kept",
]  # fmt: skip
QueueAct = Literal[
    "recovered", "quarantined", "not_quarantined", "unreadable", "unrecorded", "emptied", "clock", "locked",
    "flushed", "held", "released", "removed", "not_removed", "bounced",
    "destination_flush", "destination_hold", "destination_release",
    "reported", "untold", "unreported", "not_delivered", "bad_request", "refused",
]  # fmt: skip
ProgramAct = Literal["not_started", "killed", "not_killed", "refused"]
CertificateAct = Literal["replaced", "kept", "not_loaded", "note"]
AuthBackendAct = Literal["read", "unreadable", "connected", "lost", "unreachable"]
CrashRecordAct = Literal["lost"]

PROCESS: Final[dict[ProcessAct, str]] = {
    "started": "master has made it",
    "ready": "it serves",
    "exited": "it ended as it was told to: a stop, a reload, a retirement, a kill of ours",
    "died": "it ended and nobody had told it to; `status` says how, the next one is started after `after_s`",
    "killed": "master ended it, for `reason`: silent, too late, out of protocol, or not to be trusted",
    "not_started": "the system made no process, for `reason`; the next try is after `after_s`",
    "blamed": "it told of a plugin whose process outlives its sessions",
    "changed": "files of a plugin that runs are not those that it was loaded from any more",
    "unverified": "some walls of this zygote cannot be looked at from outside",
}
SERVICE: Final[dict[ServiceAct, str]] = {
    "starting": "master begins: version, configuration",
    "self_tested": "the walls were tried; those that hold",
    "ready": "every role serves",
    "failed": "the start came to nothing",
    "stopping": "told to stop; transactions have `server.stop_timeout`",
    "draining": "told to stop without a limit",
    "stopped": "master ends",
    "left_over": "master was killed, and a process of it does not end",
    "reloading": "a reload begins, and who asked for it",
    "reloaded": "the new configuration is in force",
    "not_reloaded": "the old configuration stays in force, and why",
    "generation_over": "the last process of an old configuration has ended",
    "hurried": "so many old configurations have sessions that the oldest ones get `server.stop_timeout`",
    "worker_added": "the pool grows",
    "worker_leaves": "a worker is retired, or the pool shrinks: it accepts nobody new",
    "worker_unasked": "a worker answered out of protocol: it is asked for its sessions no more",
    "spool_failed": "a message could not be kept: 451 or 452 was answered",
    "not_handed_on": 'accept = "proxy", and qmgr could not be asked',
    "proxy_refused": "a connection without the PROXY header that it must have, or with a wrong one",
    "no_resolver": "there is no name server to ask",
    "resolver_silent": "name servers do not answer: clients have no names meanwhile",
    "resolver_answers": "they answer again",
    "state_unavailable": "what plugins keep cannot be reached",
    "state_available": "it can again",
    "traces_lost": "what `forkd explain` knew was damaged, and was put aside",
    "traces_not_kept": "what happens to sessions cannot be kept now",
    "traces_kept": "it can again",
}
QUEUE: Final[dict[QueueAct, str]] = {
    "recovered": "what dead processes had not finished was removed: it was never answered 250",
    "quarantined": "a file of the spool that is no message of ours was put into bad/",
    "not_quarantined": "it could not be put there",
    "unreadable": "a file or folder of the spool cannot be read now",
    "unrecorded": "what became of a message could not be written",
    "emptied": "an empty file was removed: its message was delivered",
    "clock": "the machine's clock was set back",
    "locked": "another qmgr has this spool",
    "flushed": "an admin had messages tried now",
    "held": "a message is kept back, by a plugin or an admin",
    "released": "it is no more",
    "removed": "an admin deleted it",
    "not_removed": "it could not be deleted",
    "bounced": "an admin sent it back",
    "destination_flush": "an admin had a next hop tried now",
    "destination_hold": "an admin keeps back what goes to it",
    "destination_release": "he does no more",
    "reported": "a report to a sender is in the queue",
    "untold": "a sender is told nothing of a failure, and why",
    "unreported": "a report could not be written",
    "not_delivered": 'accept = "proxy": a message could not be given over',
    "bad_request": "a worker or admin asked out of protocol",
    "refused": "a connection to qmgr was not taken",
}
PROGRAM: Final[dict[ProgramAct, str]] = {
    "not_started": "a queue program could not be started",
    "killed": "it did not end in time",
    "not_killed": "it could not be ended",
    "refused": "a request that launcher does not do",
}
CERTIFICATE: Final[dict[CertificateAct, str]] = {
    "replaced": "changed files were taken",
    "kept": "changed files are wrong: the old ones stay",
    "not_loaded": "a worker could not take it",
    "note": "what an admin should know of it: it ends soon, names a wrong host",
}
AUTH_BACKEND: Final[dict[AuthBackendAct, str]] = {
    "read": "the users file is right again",
    "unreadable": "it cannot be read: the old one stays",
    "connected": "Dovecot answers",
    "lost": "Dovecot closed the connection",
    "unreachable": "it cannot be reached",
}
CRASH_RECORD: Final[dict[CrashRecordAct, str]] = {"lost": "it could not be written"}

ACTS: Final[dict[str, tuple[object, Mapping[Any, str]]]] = {
    "process": (ProcessAct, PROCESS),
    "service": (ServiceAct, SERVICE),
    "queue": (QueueAct, QUEUE),
    "program": (ProgramAct, PROGRAM),
    "certificate": (CertificateAct, CERTIFICATE),
    "auth_backend": (AuthBackendAct, AUTH_BACKEND),
    "crash_record": (CrashRecordAct, CRASH_RECORD),
}
"""Event -> its acts. The types are for mypy, which holds every caller to them."""
