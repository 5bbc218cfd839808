"""Whatever a request comes to, its line is answered (admin/requests.py)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from forkd.admin import requests
from forkd.admin.access import Access
from forkd.admin.rows import Arguments, Context, Row, always


class Asked(Arguments, frozen=True, kw_only=True):
    pass


def test_a_result_that_is_no_json_is_a_bug_and_is_said(monkeypatch, capsys):
    """Not the end of the connection without a word."""

    async def give(context: Context, arguments: Asked) -> Any:
        return {"value": object()}

    monkeypatch.setitem(requests.REQUESTS, "odd", Row(Asked, give, always(Access.VIEW)))
    context = Context(who="root", uid=0, access=Access.ADMIN, others=None)  # type: ignore[arg-type] - nobody is asked
    answer = json.loads(asyncio.run(requests.answer(b'{"request": "odd"}', context)))
    assert not answer["ok"]
    assert "a bug of forkd's own" in answer["error"]
