"""The request of `forkd explain`: the store of what happened answers it."""

from __future__ import annotations

from typing import Any

from forkd.admin.access import Access
from forkd.admin.peers import Refused
from forkd.admin.rows import Arguments, Context, Row, always
from forkd.admin.traces import Unavailable
from forkd.rpc.messages_trace import Id, Time


class ExplainArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "explain", "id": …}: a session's id or a message's; `since` as in TraceFile.find."""

    id: Id
    since: Time = 0.0


async def _explain(context: Context, arguments: ExplainArguments) -> Any:
    if context.others.traces is None:
        raise Refused("nothing is kept of what happens to sessions and messages (trace.keep = 0)")
    try:
        return await context.others.traces.find(arguments.id, since=arguments.since)
    except Unavailable as error:
        raise Refused(f"what was kept cannot be read now: {error}") from None


ROWS: dict[str, Row] = {
    # As queue show: it tells who writes to whom.
    "explain": Row(ExplainArguments, _explain, always(Access.VIEW), lambda arguments, _: arguments.id),
}
