"""Who may ask a running forkd what? The table of requests, by the role that each needs."""

from __future__ import annotations

import typing
from typing import Any, Literal

import msgspec

from forkd.admin import access
from forkd.admin.access import Access
from forkd.admin.requests import REQUESTS
from forkd.admin.rows import Row
from tools.manual import words
from tools.manual.roff import Page, bold

ACT = "act"
"""The argument of a request that does several things."""


def needed() -> dict[Access, list[str]]:
    """Role -> requests, with the act where that makes a difference: `queue remove`."""
    found: dict[Access, list[str]] = {}
    for name, row in REQUESTS.items():
        for act in _acts(row):
            given = {"request": name} | ({ACT: act} if act else {})
            found.setdefault(row.needs(_arguments(row, given)), []).append(f"{name} {act}".strip())
    return dict(sorted(found.items()))


def write_roles(page: Page) -> None:
    """What the roles are for, then what each may ask."""
    words.write(page, words.below_question(access.__doc__))
    for role, requests in needed().items():
        page.term(bold(role.word))
        page.further(", ".join(bold(name) for name in requests))


def _acts(row: Row) -> tuple[str, ...]:
    for field in msgspec.structs.fields(row.arguments):
        if field.name == ACT and typing.get_origin(field.type) is Literal:
            return typing.get_args(field.type)
    return ("",)


def _arguments(row: Row, given: dict[str, Any]) -> Any:
    """As a client would send them; None where some are missing: the role does not go by those."""
    try:
        return msgspec.convert(given, row.arguments)
    except msgspec.ValidationError:
        return None
