"""Which servers run in which workload? One row a workload; forkd's own come first."""

from __future__ import annotations

import dataclasses
from typing import Final

from tests.bench.forkd import (
    Forkd,
    ForkdChecks,
    ForkdDurable,
    ForkdFaults,
    ForkdGroup,
    ForkdIdle,
    ForkdReuse,
    ForkdUncounted,
    ForkdUnprobed,
    ForkdUnseen,
    ForkdUntraced,
)
from tests.bench.peers.aiosmtpd import (
    Aiosmtpd,
    AiosmtpdChecks,
    AiosmtpdDurable,
    AiosmtpdHooks,
    AiosmtpdSingle,
)
from tests.bench.peers.exim import Exim, EximQueue
from tests.bench.peers.haraka import (
    Haraka,
    HarakaChecks,
    HarakaChecksNodes,
    HarakaChecksQueue,
    HarakaNodes,
    HarakaQueue,
)
from tests.bench.peers.nodemailer import Nodemailer
from tests.bench.peers.opensmtpd import OpenSmtpd, OpenSmtpdDisk, OpenSmtpdFilter
from tests.bench.peers.postfix import Postfix, PostfixChecks, PostfixHold, PostfixIdle, PostfixQueue
from tests.bench.peers.qpsmtpd import Qpsmtpd, QpsmtpdChecks, QpsmtpdMaildir
from tests.bench.peers.sink import SmtpSink
from tests.bench.servers import Server


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """budget_s: what it may take in the full form; repeats that would go beyond it are left out, and told."""

    title: str
    budget_s: float
    servers: tuple[type[Server], ...]


WORKLOADS: Final[dict[str, Workload]] = {
    "A": Workload(
        "accept and discard",
        510,
        (
            Forkd, SmtpSink, Nodemailer, OpenSmtpd, Postfix, AiosmtpdSingle, Aiosmtpd, Haraka, HarakaNodes,
            Qpsmtpd, Exim,
        ),
    ),
    "B": Workload(
        "durable: 250 only after the disk has it",
        400,
        (
            ForkdDurable, OpenSmtpdDisk, PostfixQueue, PostfixHold, AiosmtpdDurable, HarakaQueue,
            QpsmtpdMaildir, EximQueue,
        ),
    ),
    "C": Workload(
        "three checks, at MAIL, RCPT and end of data, the last one reading the message; durable where not"
        " said otherwise",
        560,
        (
            ForkdGroup, ForkdReuse, ForkdChecks, ForkdDurable, PostfixChecks, PostfixQueue, AiosmtpdHooks,
            AiosmtpdChecks, HarakaChecks, HarakaChecksQueue, OpenSmtpdFilter, QpsmtpdChecks,
        ),
    ),
    "D": Workload("one plugin misbehaves while 20 other sessions deliver", 330, (ForkdFaults,)),
    "E": Workload(
        "idle connections, held while real mail goes on",
        280,
        (ForkdIdle, Nodemailer, AiosmtpdSingle, Haraka, HarakaNodes, OpenSmtpd, Exim, PostfixIdle, Qpsmtpd),
    ),
    "M": Workload(
        "memory at rest, all processes",
        60,
        (
            ForkdGroup, ForkdChecks, ForkdDurable, HarakaChecks, HarakaChecksNodes, AiosmtpdChecks,
            PostfixChecks, OpenSmtpdFilter, QpsmtpdChecks, EximQueue,
        ),
    ),
    "G": Workload("cost as work grows", 100, (Forkd, ForkdDurable)),
    "O": Workload(
        "what it costs to be watched: B with and without trace, metrics and probe",
        90,
        (ForkdDurable, ForkdUntraced, ForkdUncounted, ForkdUnprobed, ForkdUnseen),
    ),
}  # fmt: skip
FAULT_PEERS: Final[tuple[type[Server], ...]] = (
    PostfixChecks, AiosmtpdChecks, HarakaChecks, HarakaChecksNodes, OpenSmtpdFilter, QpsmtpdChecks,
)  # fmt: skip
"""Run in D with --fault-peers: a fresh start for every fault, since they may not survive the last one."""
