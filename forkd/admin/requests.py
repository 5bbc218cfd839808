"""What may an admin ask? One row per request: its name, its arguments' type, who answers, whether it acts.

What is not in the table, or does not fit its type, is refused with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from forkd import log
from forkd.admin.peers import Away, Master, Qmgr, Refused
from forkd.rpc.messages import AskStatus, AskStop, QueueFilter, QueueRequest

MAX_LINE_BYTES = 32_768
"""Of a request; below rpc's MAX_RECORD_BYTES, since ids are handed on to qmgr in one record."""


MAX_SAID = 2000
"""Characters of an audit line's detail."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests' arguments; `request` is the row's name."""

    request: str


class StatusArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "status"}"""


class StopArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "stop", "mode": "stop" | "drain"}"""

    mode: Literal["stop", "drain"] = "stop"


class QueueArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "queue", "act": …}; fields as in rpc.messages.QueueRequest."""

    act: Literal["list", "show", "stat", "remove", "bounce", "flush", "hold", "release"]
    ids: tuple[str, ...] = ()
    limit: int = 100
    after: str = ""
    filter: QueueFilter | None = None
    by_sender: bool = False
    at: float = 0.0
    destination: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """Who is there to be asked, and who asks (for the log and the audit)."""

    master: Master
    qmgr: Qmgr
    who: str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """answer   gives the result, JSON-able; raises Refused
    acts     true where it changes something: logged at info
    said     what was asked for and done, for the audit: arguments, result -> detail
    """

    arguments: type[Arguments]
    answer: Callable[[Context, Any], Awaitable[Any]]
    acts: Callable[[Any], bool]
    said: Callable[[Any, Any], str]


async def _status(context: Context, _arguments: StatusArguments) -> Any:
    answer = msgspec.to_builtins(await context.master.ask(lambda n: AskStatus(n=n)))
    return _without_envelope(answer)


async def _stop(context: Context, arguments: StopArguments) -> Any:
    await context.master.ask(lambda n: AskStop(n=n, mode=arguments.mode, who=context.who))
    return {"stopping": arguments.mode}


async def _queue(context: Context, arguments: QueueArguments) -> Any:
    if arguments.act in ("show", "remove", "bounce", "hold", "release") and not (
        arguments.ids or arguments.destination
    ):
        raise Refused(f"queue {arguments.act}: ids are missing")
    answer = await context.qmgr.ask(
        lambda n: QueueRequest(
            n=n,
            act=arguments.act,
            ids=arguments.ids,
            who=context.who,
            limit=arguments.limit,
            after=arguments.after,
            filter=arguments.filter,
            by_sender=arguments.by_sender,
            at=arguments.at,
            destination=arguments.destination,
        )
    )
    return _without_envelope(msgspec.to_builtins(answer))


def _queue_said(arguments: QueueArguments, result: Any) -> str:
    """`remove: 498 of 500 ids; senders=*@example.org`: what an act reached, and how it was chosen."""
    said: str = arguments.act
    if arguments.destination:
        said += f": destination {arguments.destination}"
    elif arguments.act not in ("list", "stat"):
        said += f": {result['count']} of {len(arguments.ids) or 'all'}"
    if arguments.filter is None:
        return said
    chosen = msgspec.to_builtins(arguments.filter).items()
    words = (f"{name}={','.join(each) if isinstance(each, (list, tuple)) else each}" for name, each in chosen)
    return f"{said}; {' '.join(words)}"[:MAX_SAID]


def _without_envelope(answer: dict[str, Any]) -> dict[str, Any]:
    for key in ("t", "n"):
        del answer[key]
    for each in (*answer.get("processes", ()), *answer.get("entries", ())):
        each.pop("t", None)
    return answer


REQUESTS: dict[str, Row] = {
    "status": Row(StatusArguments, _status, lambda _: False, lambda _, __: ""),
    "stop": Row(StopArguments, _stop, lambda _: True, lambda arguments, _: arguments.mode),
    "queue": Row(
        QueueArguments,
        _queue,
        lambda arguments: arguments.act not in ("list", "show", "stat"),
        _queue_said,
    ),
}


class _Name(msgspec.Struct):
    request: str


async def answer(line: bytes, context: Context) -> bytes:
    """One request line -> one answer line, whatever the line holds."""
    name = "?"
    try:
        name, arguments = _decode(line)
        row = REQUESTS[name]
        result = await row.answer(context, arguments)
    except Refused as error:
        log.admin_request(request=name, who=context.who, result="refused", detail=str(error), level="warning")
        return refusal(str(error), away=isinstance(error, Away))
    log.admin_request(
        request=name,
        who=context.who,
        detail=row.said(arguments, result),
        level="info" if row.acts(arguments) else "debug",
    )
    return _line({"ok": True, "result": result})


def refusal(why: str, *, away: bool = False) -> bytes:
    """The line that says no; `away`: since who should answer is not there."""
    return _line({"ok": False, "error": why} | ({"away": True} if away else {}))


def _decode(line: bytes) -> tuple[str, Arguments]:
    try:
        name = msgspec.json.decode(line, type=_Name).request
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f'not a request: {error}; one is written {{"request": "status"}}') from error
    if name not in REQUESTS:
        raise Refused(f"unknown request {name!r}; there are {', '.join(REQUESTS)}")
    try:
        return name, msgspec.json.decode(line, type=REQUESTS[name].arguments)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{name}: {error}") from error


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
