"""What is a request? A row of a table: its arguments, the role it needs, who answers, what the audit says.

The rows stand in requests.py; each part of the service has its own beside it (requests_*.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from forkd.admin.access import Access
from forkd.admin.peers import Master, Qmgr
from forkd.admin.prober import Prober
from forkd.admin.traces import TraceStore
from forkd.admin.workers import Workers


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests' arguments; `request` is the row's name."""

    request: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """Who is there to be asked; `traces`: None where nothing is kept."""

    master: Master
    qmgr: Qmgr
    prober: Prober
    workers: Workers
    traces: TraceStore | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Who asks: for the log and the audit; what he may; whom one can ask for him."""

    who: str
    uid: int
    access: Access
    others: Others


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """answer   gives the result, JSON-able; raises Refused
    needs    the role for this, by its arguments. More than `view`: it is an act, and has a line in the log
             at info; else at debug
    said     what was asked for and done, for the audit: arguments, result -> detail. Of a refused request the
             result is None
    """

    arguments: type[Arguments]
    answer: Callable[[Context, Any], Awaitable[Any]]
    needs: Callable[[Any], Access]
    said: Callable[[Any, Any], str] = lambda _arguments, _result: ""


def always(access: Access) -> Callable[[Any], Access]:
    """The same role, whatever the arguments."""
    return lambda _: access


def without_envelope(answer: dict[str, Any]) -> dict[str, Any]:
    """What a message between our processes says, without what only they need."""
    for key in ("t", "n"):
        del answer[key]
    return answer
