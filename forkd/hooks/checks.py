"""May this plugin say this, here? An answer is hostile input; whatever it may not say is a breach.

The SDK refuses most of this earlier, with a better text; a plugin that reaches its descriptors can
send any bytes, so nothing rests on the SDK.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from forkd.hooks.spec import DEFER_CODES, DENY_CODES, POWERS, HookSpec
from forkd.rpc.calls import AddHeader, Answer, CallFailed, Verdict

MAX_TEXT = 1000
"""Characters of a reply's text; Reply wraps it into lines."""
MAX_EDITS = 64
"""Of one answer."""
MAX_FIELD_OCTETS = 998
"""A header line without its line end (RFC 5322 2.1.1)."""
RESERVED_HEADERS = frozenset({"received", "return-path", "delivered-to"})
"""No grant covers these: loop detection and delivery rest on them."""

_ENHANCED = re.compile(r"[45]\.\d{1,3}\.\d{1,3}", re.ASCII)
_TEXT = re.compile(r"[\x20-\x7e]+")
_NAME = re.compile(r"[!-9;-~]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class PowersLike(Protocol):
    """Grants of one plugin, as forkd.config.schema.Powers has them."""

    @property
    def accept(self) -> bool: ...
    @property
    def discard(self) -> bool: ...
    @property
    def edit_headers(self) -> Sequence[str]: ...


def check_answer(answer: Answer, *, spec: HookSpec, powers: PowersLike) -> None:
    """Return if the answer may stand.

    Raises CallFailed: `exception` when the hook raised, `protocol` for a breach; either becomes
    what the plugin's on_failure says.
    """
    if answer.error:
        raise CallFailed("exception", answer.error)
    if answer.verdict is not None:
        _check_verdict(answer.verdict, spec, powers)
    if answer.edits:
        _check_edits(answer.edits, spec, powers)


def _check_verdict(verdict: Verdict, spec: HookSpec, powers: PowersLike) -> None:
    if verdict.do not in spec.verdicts:
        raise CallFailed("protocol", f"{verdict.do} is no answer at {spec.name}")
    if verdict.do in POWERS:
        if not getattr(powers, verdict.do):
            raise CallFailed("protocol", f"{verdict.do} is not granted")
        return
    if verdict.do == "deny":
        codes, first = DENY_CODES, "5"
    elif verdict.do == "defer":
        codes, first = DEFER_CODES, "4"
    else:
        codes, first = frozenset({421}), "4"
    if verdict.code not in codes:
        raise CallFailed("protocol", f"{verdict.do} with code {verdict.code}")
    if not _ENHANCED.fullmatch(verdict.enhanced) or verdict.enhanced[0] != first:
        raise CallFailed("protocol", f"{verdict.do} with enhanced code {verdict.enhanced!r}")
    if len(verdict.text) > MAX_TEXT or not _TEXT.fullmatch(verdict.text):
        raise CallFailed("protocol", f"{verdict.do} with text {verdict.text[:64]!r}")


def _check_edits(edits: Sequence[AddHeader], spec: HookSpec, powers: PowersLike) -> None:
    if not spec.edits:
        raise CallFailed("protocol", f"edits at {spec.name}")
    if len(edits) > MAX_EDITS:
        raise CallFailed("protocol", f"{len(edits)} edits, {MAX_EDITS} are allowed")
    for edit in edits:
        if not _NAME.fullmatch(edit.name) or not _VALUE.fullmatch(edit.value):
            raise CallFailed("protocol", f"header {edit.name[:64]!r}: {edit.value[:64]!r} is not well-formed")
        if len(edit.name) + 2 + len(edit.value) > MAX_FIELD_OCTETS:
            raise CallFailed("protocol", f"header {edit.name[:64]} is longer than {MAX_FIELD_OCTETS} octets")
        if not may_add(edit.name, powers.edit_headers):
            raise CallFailed("protocol", f"adding header {edit.name[:64]} is not granted")


def may_add(name: str, granted: Sequence[str]) -> bool:
    """Is this header name covered by the granted ones? Without case; a trailing * matches a prefix."""
    name = name.lower()
    if name in RESERVED_HEADERS:
        return False
    return any(
        name.startswith(grant[:-1].lower()) if grant.endswith("*") else name == grant.lower()
        for grant in granted
    )
