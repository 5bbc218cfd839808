"""What may be asked of a running forkd? One table; what is not in it, does not fit its type, or needs another
role than the asker's, is refused with the reason.
"""

from __future__ import annotations

from typing import Any

import msgspec

from forkd import log
from forkd.admin import requests_explain, requests_queue, requests_service, requests_sessions
from forkd.admin.access import Access
from forkd.admin.peers import Away, Refused
from forkd.admin.rows import Arguments, Context, Row

MAX_LINE_BYTES = 32_768
"""Of a request; below rpc's MAX_RECORD_BYTES, since ids are handed on to qmgr in one record."""

REQUESTS: dict[str, Row] = {
    **requests_service.ROWS,
    **requests_queue.ROWS,
    **requests_explain.ROWS,
    **requests_sessions.ROWS,
}


class _Name(msgspec.Struct):
    request: str


async def answer(asked: bytes, context: Context) -> bytes:
    """One request line -> one answer line, whatever the line holds; and its line in the log."""
    name, said = "?", ""
    try:
        name, arguments = _decode(asked)
        row = REQUESTS[name]
        said = row.said(arguments, None)
        needed = row.needs(arguments)
        if context.access < needed:
            raise Refused(f'this needs the role "{needed.word}"; you have "{context.access.word}"')
        result = await row.answer(context, arguments)
        told = row.said(arguments, result)
        line = _line({"ok": True, "result": result})
    except Refused as error:
        why = f"{said}: {error}" if said else str(error)
        _log(name, context, detail=why, result="refused", level="warning")
        return refusal(str(error), away=isinstance(error, Away))
    except Exception as error:  # the boundary of one request: logged, and the next one is answered
        log.bug(where=f"request {name}", error=error)
        _log(name, context, detail=said, result="failed", level="error")
        return refusal("a bug of forkd's own kept it from answering; the log has its traceback")
    level = "info" if needed > Access.VIEW else "debug"
    _log(name, context, detail=told, level=level)
    return line


def refusal(why: str, *, away: bool = False) -> bytes:
    """The line that says no; `away`: since who should answer is not there."""
    return _line({"ok": False, "error": why} | ({"away": True} if away else {}))


def _log(name: str, context: Context, *, detail: str, level: str, result: str = "ok") -> None:
    log.admin_request(
        request=name,
        who=context.who,
        uid=context.uid,
        role=context.access.word,
        result=result,
        detail=detail,
        level=level,
    )


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
