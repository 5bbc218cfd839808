"""Requests about sessions: workers answer them, all at once, each for its own."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec

from forkd.admin.access import Access
from forkd.admin.peers import Refused
from forkd.admin.rows import Arguments, Context, Row, always
from forkd.admin.workers import Silent
from forkd.rpc.messages_sessions import MOST, SessionEntry, SessionFilter, Sort, is_of


class SessionsArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "sessions", …}; fields as in rpc.messages_sessions."""

    filter: SessionFilter = SessionFilter()
    sort: Sort = "age"
    limit: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 100


class KickArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "kick", "ids": […]}"""

    ids: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Z]{15,20}\Z")], ...],
        msgspec.Meta(min_length=1, max_length=100),
    ]


_SORTS: dict[Sort, Callable[[SessionEntry], Any]] = {
    "age": lambda entry: -entry.age_s,
    "idle": lambda entry: -entry.idle_s,
    "client": lambda entry: _address(entry.client),
    "messages": lambda entry: -entry.messages,
    "errors": lambda entry: -entry.errors,
    "octets": lambda entry: -entry.octets,
}
"""As each worker sorts its own (worker/showing.py)."""


async def _sessions(context: Context, arguments: SessionsArguments) -> Any:
    if arguments.filter.client:
        try:
            ipaddress.ip_network(arguments.filter.client, strict=False)
        except ValueError as error:
            raise Refused(f"client: {error}; it is an address or a network, as 192.0.2.0/24") from error
    found = await context.others.workers.sessions(arguments.filter, arguments.sort, arguments.limit)
    key = _SORTS[arguments.sort]
    first = sorted(found.entries, key=lambda each: key(each[1]))[: arguments.limit]
    return {
        "sessions": [msgspec.to_builtins(entry) | {"worker": slot} for slot, entry in first],
        "fit": found.fit,
        "total": found.total,
        "silent": _shown(found.silent),
    }


async def _kick(context: Context, arguments: KickArguments) -> Any:
    ids = tuple(dict.fromkeys(arguments.ids))
    done, silent = await context.others.workers.kick(ids)
    left = [each for each in ids if each not in done]
    unknown = [each for each in left if any(is_of(each, worker.slot) for worker in silent)]
    return {
        "kicked": [each for each in ids if each in done],
        "not_there": [each for each in left if each not in unknown],
        "unknown": unknown,
        "silent": _shown(silent),
    }


def _kick_said(arguments: KickArguments, result: Any) -> str:
    """`2 of 3: ID ID`"""
    if result is None:
        return " ".join(arguments.ids)
    return f"{len(result['kicked'])} of {len(set(arguments.ids))}: {' '.join(result['kicked'])}".rstrip(": ")


def _shown(silent: Iterable[Silent]) -> list[dict[str, Any]]:
    return [{"worker": each.slot, "pid": each.pid, "why": each.why} for each in silent]


def _address(text: str) -> tuple[int, Any]:
    """A worker wrote it: what is none goes last."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 9, 0
    return address.version, int(address)


ROWS: dict[str, Row] = {
    "sessions": Row(SessionsArguments, _sessions, always(Access.VIEW)),
    "kick": Row(KickArguments, _kick, always(Access.OPERATE), _kick_said),
}
