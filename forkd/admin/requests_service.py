"""Requests about the service as a whole: master answers them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forkd.admin.access import Access
from forkd.admin.peers import RELOAD_TIMEOUT_S
from forkd.admin.rows import Arguments, Context, Row, always, without_envelope
from forkd.rpc.messages import AskStop
from forkd.rpc.messages_reload import AskReload


class StatusArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "status"}"""


class StopArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "stop", "mode": "stop" | "drain"}"""

    mode: Literal["stop", "drain"] = "stop"


async def _status(context: Context, _arguments: StatusArguments) -> Any:
    answer = msgspec.to_builtins(await context.others.master.status())
    for process in answer["processes"]:
        del process["t"]
    return {**without_envelope(answer), "readiness": await context.others.prober.shown()}


async def _stop(context: Context, arguments: StopArguments) -> Any:
    await context.others.master.ask(lambda n: AskStop(n=n, mode=arguments.mode, who=context.who))
    return {"stopping": arguments.mode}


class ReloadArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """{"request": "reload"}; answered when it is over: rpc.messages_reload.Reloaded, or why not."""


async def _reload(context: Context, _arguments: ReloadArguments) -> Any:
    master = context.others.master
    answer = await master.ask(lambda n: AskReload(n=n, who=context.who), RELOAD_TIMEOUT_S)
    return without_envelope(msgspec.to_builtins(answer))


def _reload_said(_arguments: ReloadArguments, result: Any) -> str:
    return "" if result is None else f"generation {result['generation']}"


ROWS: dict[str, Row] = {
    "status": Row(StatusArguments, _status, always(Access.VIEW)),
    "reload": Row(ReloadArguments, _reload, always(Access.ADMIN), _reload_said),
    "stop": Row(StopArguments, _stop, always(Access.ADMIN), lambda arguments, _: arguments.mode),
}
