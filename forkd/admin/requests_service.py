"""Requests about the service as a whole: master answers them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forkd.admin.access import Access
from forkd.admin.rows import Arguments, Context, Row, always, without_envelope
from forkd.rpc.messages import AskStop


class StatusArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "status"}"""


class StopArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "stop", "mode": "stop" | "drain"}"""

    mode: Literal["stop", "drain"] = "stop"


async def _status(context: Context, _arguments: StatusArguments) -> Any:
    answer = msgspec.to_builtins(await context.others.master.status())
    for process in answer["processes"]:
        del process["t"]
    return {**without_envelope(answer), "readiness": context.others.prober.shown()}


async def _stop(context: Context, arguments: StopArguments) -> Any:
    await context.others.master.ask(lambda n: AskStop(n=n, mode=arguments.mode, who=context.who))
    return {"stopping": arguments.mode}


ROWS: dict[str, Row] = {
    "status": Row(StatusArguments, _status, always(Access.VIEW)),
    "stop": Row(StopArguments, _stop, always(Access.ADMIN), lambda arguments, _: arguments.mode),
}
