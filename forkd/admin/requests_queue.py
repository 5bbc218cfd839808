"""Requests about the queue: qmgr answers them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forkd.admin.access import Access
from forkd.admin.peers import Refused
from forkd.admin.rows import Arguments, Context, Row, without_envelope
from forkd.rpc.messages import QueueFilter, QueueRequest

MAX_SAID = 2000
"""Characters of an audit line's detail."""

_Act = Literal["list", "show", "stat", "remove", "bounce", "flush", "hold", "release"]

_NEEDS: dict[_Act, Access] = {
    "list": Access.VIEW,
    "show": Access.VIEW,
    "stat": Access.VIEW,
    "flush": Access.OPERATE,
    "hold": Access.OPERATE,
    "release": Access.OPERATE,
    "remove": Access.ADMIN,
    "bounce": Access.ADMIN,
}
"""Postfix: anybody may list and flush, root alone removes. Here nobody looks unasked, since a queue tells
who writes to whom."""


class QueueArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "queue", "act": …}; fields as in rpc.messages.QueueRequest."""

    act: _Act
    ids: tuple[str, ...] = ()
    limit: int = 100
    after: str = ""
    filter: QueueFilter | None = None
    by_sender: bool = False
    at: float = 0.0
    destination: str = ""


async def _queue(context: Context, arguments: QueueArguments) -> Any:
    if arguments.act in ("show", "remove", "bounce", "hold", "release") and not (
        arguments.ids or arguments.destination
    ):
        raise Refused(f"queue {arguments.act}: ids are missing")
    answer = await context.others.qmgr.ask(
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
    result = without_envelope(msgspec.to_builtins(answer))
    for entry in result["entries"]:
        del entry["t"]
    return result


def _said(arguments: QueueArguments, result: Any) -> str:
    """`remove: 498 of 500 ids; senders=*@example.org`: what an act reached, and how it was chosen."""
    said: str = arguments.act
    if arguments.destination:
        said += f": destination {arguments.destination}"
    elif result is not None and arguments.act not in ("list", "stat"):
        said += f": {result['count']} of {len(arguments.ids) or 'all'}"
    if arguments.filter is None:
        return said
    chosen = msgspec.to_builtins(arguments.filter).items()
    words = (f"{name}={','.join(each) if isinstance(each, (list, tuple)) else each}" for name, each in chosen)
    return f"{said}; {' '.join(words)}"[:MAX_SAID]


ROWS: dict[str, Row] = {
    "queue": Row(QueueArguments, _queue, lambda arguments: _NEEDS[arguments.act], _said),
}
