"""What reply does a verdict or a failure mean at each hook? The tables of plugins.md, as data."""

from __future__ import annotations

import dataclasses

from forkd.rpc.calls import Verdict
from forkd.smtp.reply import Reply


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HookSpec:
    """One hook: what goes to the plugin, and what it may answer.

    arguments    names in the frame's `args` object.
    verdicts     what an answer's verdict may be; an empty set: no answer but None.
    edits        operations that the answer's edits may have.
    deny_code    replaces the plugin's code (connect: RFC 5321 3.1, only 554 instead of the greeting;
                 auth: RFC 4954 4, 535).
    defer_code   likewise (auth: RFC 4954 4, 454).
    defer_closes there is no command that could be refused for now: 421 and close.
    by_domain    plugins whose scope names recipients' domains are asked at it.
    """

    name: str
    arguments: frozenset[str] = frozenset()
    verdicts: frozenset[str]
    edits: frozenset[str] = frozenset({"export"})
    deny_code: int | None = None
    defer_code: int | None = None
    defer_closes: bool = False
    by_domain: bool = False


_REFUSALS = frozenset({"deny", "defer", "disconnect"})
_COMMON = _REFUSALS | {"accept"}

HOOKS: dict[str, HookSpec] = {
    spec.name: spec
    for spec in (
        HookSpec(name="connect", verdicts=_COMMON, deny_code=554, defer_closes=True),
        HookSpec(name="helo", arguments=frozenset({"name", "extended"}), verdicts=_COMMON),
        HookSpec(
            name="auth",
            arguments=frozenset({"user", "secret"}),
            verdicts=_REFUSALS | {"ok"},
            deny_code=535,
            defer_code=454,
        ),
        HookSpec(
            name="mail",
            arguments=frozenset({"sender", "parameters", "size", "body", "smtputf8"}),
            verdicts=_COMMON,
        ),
        HookSpec(
            name="rcpt",
            arguments=frozenset({"recipient", "parameters"}),
            verdicts=_COMMON | {"discard"},
            edits=frozenset({"rewrite_recipient", "export"}),
            by_domain=True,
        ),
        HookSpec(name="data", verdicts=_COMMON | {"discard", "quarantine"}, by_domain=True),
        HookSpec(
            name="message",
            verdicts=_COMMON | {"discard", "quarantine"},
            edits=frozenset(
                {
                    *("add_header", "change_header", "delete_header", "replace_body", "replace_message"),
                    *("add_recipient", "delete_recipient", "change_sender", "export"),
                }
            ),
            by_domain=True,
        ),
        HookSpec(name="disconnect", verdicts=frozenset(), edits=frozenset()),
    )
}
"""Every hook, in a session's order."""

POWERS = {"accept": "accept", "discard": "discard", "quarantine": "quarantine", "ok": "auth"}
"""Verdicts that need a grant, and its name."""

DENY_CODES = frozenset(c for c in range(520, 560) if c // 10 % 10 in (2, 3, 5))
"""RFC 5321 4.2.1: the second digit says connections, authentication, mail system; 50x speaks of syntax."""
DEFER_CODES = frozenset(c for c in range(420, 460) if c // 10 % 10 in (2, 3, 5)) - {421}
"""421 closes the connection (RFC 5321 3.8): that is the verdict `disconnect`."""


def verdict_reply(spec: HookSpec, verdict: Verdict) -> Reply | None:
    """The reply a checked verdict becomes; None for accept, discard, quarantine, ok: the command goes on."""
    match verdict.do:
        case "deny":
            return Reply(spec.deny_code or verdict.code, verdict.enhanced, (verdict.text,))
        case "defer" if spec.defer_closes:
            return Reply(421, verdict.enhanced, (verdict.text,), close=True)
        case "defer":
            return Reply(spec.defer_code or verdict.code, verdict.enhanced, (verdict.text,))
        case "disconnect":
            return Reply(421, verdict.enhanced, (verdict.text,), close=True)
        case _:
            return None


@dataclasses.dataclass(frozen=True, slots=True)
class FailureSpec:
    """What a plugin's failure means to the client; `code` None: no opinion, the next plugin is asked."""

    code: int | None
    enhanced: str = ""
    text: str = ""
    close: bool = False


_LATER = "A check of this server is not available now, please try again later"

ON_FAILURE: dict[str, FailureSpec] = {
    "disconnect": FailureSpec(421, "4.3.0", _LATER, close=True),
    "defer": FailureSpec(451, "4.3.0", _LATER),
    "deny": FailureSpec(550, "5.3.0", "A check of this server failed, the mail is not taken"),
    "skip": FailureSpec(None),
}
"""By the admin's on_failure. The client learns neither the plugin's name nor its error."""

OVERLOADED = FailureSpec(451, "4.3.2", "Too busy for a check, please try again later")
"""Whatever on_failure says: overload is not the plugin's fault, and being busy refuses nothing for good."""


def failure_reply(spec: HookSpec, failure: FailureSpec, session_id: str) -> Reply | None:
    """The reply of a failure at this hook, with the session id under which the log tells more."""
    if failure.code is None or not spec.verdicts:
        return None
    text = f"{failure.text} (session {session_id})"
    if failure.code >= 500:
        return Reply(spec.deny_code or failure.code, failure.enhanced, (text,))
    if failure.close or spec.defer_closes:
        return Reply(421, failure.enhanced, (text,), close=True)
    return Reply(spec.defer_code or failure.code, failure.enhanced, (text,))
