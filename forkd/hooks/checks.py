"""May this plugin say this, here? An answer is hostile input; whatever it may not say is a breach.

The SDK refuses most of this earlier, with a better text; a plugin that reaches its descriptors can
send any bytes, so nothing rests on the SDK. What depends on the message and on what other plugins did
(how many edits in all, whether an address is ours) is changes.py's to check.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from forkd.hooks.addresses import covers, mailbox
from forkd.hooks.given import PowersLike
from forkd.hooks.spec import DEFER_CODES, DENY_CODES, POWERS, HookSpec
from forkd.rpc.calls import (
    AddHeader,
    AddRecipient,
    Answer,
    CallFailed,
    ChangeHeader,
    ChangeSender,
    DeleteHeader,
    DeleteRecipient,
    Edit,
    Export,
    ReplaceBody,
    ReplaceMessage,
    RewriteRecipient,
    Verdict,
)
from forkd.sdk.edits import (
    MAX_EXPORT_NAME,
    MAX_EXPORT_OCTETS,
    MAX_FIELD_OCTETS,
    MAX_NAME_OCTETS,
    MAX_VALUE_OCTETS,
)
from forkd.sdk.replay import fold, longest

MAX_TEXT = 1000
"""Characters of a reply's text; Reply wraps it into lines."""
MAX_REASON = 200
"""Characters of a reason to quarantine."""
MAX_EDITS = 1_000
"""Of one answer."""
RESERVED_HEADERS = frozenset({"received", "return-path", "delivered-to"})
"""No grant covers these: loop detection and delivery rest on them."""

_ENHANCED = re.compile(r"[45]\.\d{1,3}\.\d{1,3}", re.ASCII)
_ASCII = re.compile(r"[\x20-\x7e]*")
_NAME = re.compile(rf"[!-9;-~]{{1,{MAX_NAME_OCTETS}}}")
_EXPORT_NAME = re.compile(rf"[A-Z0-9_]{{1,{MAX_EXPORT_NAME}}}")
_BY = re.compile(r"[\w.-]{0,64}", re.ASCII)


def check_answer(answer: Answer, *, spec: HookSpec, powers: PowersLike, smtputf8: bool = False) -> None:
    """Return if the answer may stand.

    smtputf8  the transaction has SMTPUTF8: texts, values and addresses may have more than ASCII.
    Raises CallFailed: `exception` when the hook raised, `protocol` for a breach; either becomes
    what the plugin's on_failure says.
    """
    if answer.error:
        raise CallFailed("exception", answer.error)
    if answer.piece is not None:
        raise CallFailed("protocol", f"a piece of a body at {spec.name}")
    if not _BY.fullmatch(answer.by):
        raise CallFailed("protocol", f"a member's name {answer.by[:64]!r}")
    if answer.verdict is not None:
        _check_verdict(answer.verdict, spec, powers, smtputf8)
    if answer.edits:
        _check_edits(answer.edits, spec, powers, smtputf8)


def _check_verdict(verdict: Verdict, spec: HookSpec, powers: PowersLike, smtputf8: bool) -> None:
    if verdict.do not in spec.verdicts:
        raise CallFailed("protocol", f"{verdict.do} is no answer at {spec.name}")
    power = POWERS.get(verdict.do)
    if power is not None:
        if not getattr(powers, power):
            raise CallFailed("protocol", f"{verdict.do} is not granted")
        if verdict.do == "quarantine" and not _is_text(verdict.text, MAX_REASON, smtputf8=False):
            raise CallFailed("protocol", f"quarantine with reason {verdict.text[:64]!r}")
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
        raise CallFailed("protocol", f"{verdict.do} with enhanced code {verdict.enhanced[:64]!r}")
    if not _is_text(verdict.text, MAX_TEXT, smtputf8=smtputf8):
        raise CallFailed("protocol", f"{verdict.do} with text {verdict.text[:64]!r}")


def _check_edits(edits: Sequence[Edit], spec: HookSpec, powers: PowersLike, smtputf8: bool) -> None:
    if len(edits) > MAX_EDITS:
        raise CallFailed("protocol", f"{len(edits)} edits, {MAX_EDITS} are allowed")
    bodies = 0
    for edit in edits:
        op = str(edit.__struct_config__.tag)
        if op not in spec.edits:
            raise CallFailed("protocol", f"{op} at {spec.name}")
        match edit:
            case AddHeader(name, value) | ChangeHeader(name, _, value):
                _check_name(op, name, powers)
                _check_value(name, value, smtputf8)
            case DeleteHeader(name, _):
                _check_name(op, name, powers)
            case ReplaceBody():
                bodies += 1
                if not powers.edit_body or bodies > 1:
                    raise CallFailed("protocol", f"{op} {'twice' if bodies > 1 else 'is not granted'}")
            case ReplaceMessage():
                if not powers.replace_message or len(edits) > 1:
                    raise CallFailed("protocol", f"{op} is not granted, or not the only edit")
            case AddRecipient(address):
                found = mailbox(address, smtputf8=smtputf8)
                if (
                    not powers.add_recipient
                    or found is None
                    or not covers(powers.add_recipient, found.domain)
                ):
                    raise CallFailed("protocol", f"{op} {address[:64]!r} is not granted, or no address")
            case DeleteRecipient(address) | RewriteRecipient(address) | ChangeSender(address):
                power = "rewrite_recipient" if op == "rewrite_recipient" else op
                if not getattr(powers, power):
                    raise CallFailed("protocol", f"{op} is not granted")
                null = op == "change_sender" and not address
                if not null and mailbox(address, smtputf8=smtputf8) is None:
                    raise CallFailed("protocol", f"{op} {address[:64]!r} is no address")
            case Export(name, value):
                if not _EXPORT_NAME.fullmatch(name) or name not in powers.export:
                    raise CallFailed("protocol", f"export {name[:64]!r} is not granted")
                if len(value) > MAX_EXPORT_OCTETS or not _ASCII.fullmatch(value):
                    raise CallFailed("protocol", f"export {name} with value {value[:64]!r}")


def _check_name(op: str, name: str, powers: PowersLike) -> None:
    if not _NAME.fullmatch(name):
        raise CallFailed("protocol", f"{op} {name[:64]!r} is no header name")
    if not may_edit(name, powers.edit_headers):
        raise CallFailed("protocol", f"{op} {name[:64]} is not granted")


def _check_value(name: str, value: str, smtputf8: bool) -> None:
    # str.isprintable() knows the controls, separators and surrogates that a pattern would have to list.
    if not (smtputf8 or value.isascii()) or not value.replace("\t", " ").isprintable():
        raise CallFailed("protocol", f"header {name}: {value[:64]!r} is not fit for a message")
    if len(value.encode()) > MAX_VALUE_OCTETS or longest(name, fold(name, value)) > MAX_FIELD_OCTETS:
        raise CallFailed("protocol", f"header {name[:64]} is too long")


def _is_text(text: str, longest_: int, *, smtputf8: bool) -> bool:
    return 0 < len(text) <= longest_ and text.isprintable() and (smtputf8 or text.isascii())


def may_edit(name: str, granted: Sequence[str]) -> bool:
    """Is this header name covered by the granted ones? Without case; a trailing * matches a prefix."""
    name = name.lower()
    if name in RESERVED_HEADERS:
        return False
    return any(
        name.startswith(grant[:-1].lower()) if grant.endswith("*") else name == grant.lower()
        for grant in granted
    )
