"""May this plugin say this, here? A breach ends the call as on_failure says, whatever the SDK refuses."""

from __future__ import annotations

import pytest

from forkd.hooks.checks import MAX_EDITS, check_answer, may_add
from forkd.hooks.spec import HOOKS
from forkd.rpc.calls import AddHeader, Answer, CallFailed, Verdict
from tests.support.fake_host import Powers

GOOD = Verdict("deny", 550, "5.7.1", "no")
ALL = Powers(accept=True, discard=True, edit_headers=("*",))


def breach(answer: Answer, hook: str = "mail", powers: Powers = ALL) -> str:
    """The cause of the failure, or an empty text if the answer stands."""
    try:
        check_answer(answer, spec=HOOKS[hook], powers=powers)
    except CallFailed as why:
        return why.cause
    return ""


@pytest.mark.parametrize(
    ("verdict", "cause"),
    [
        (GOOD, ""),
        (Verdict("deny", 521, "5.7.1", "no"), ""),
        (Verdict("defer", 451, "4.7.1", "later"), ""),
        (Verdict("disconnect", 421, "4.7.0", "bye"), ""),
        # Codes of another class, of syntax errors, out of range, or of another verdict.
        *(
            (Verdict("deny", code, "5.7.1", "no"), "protocol")
            for code in (0, 200, 250, 354, 421, 451, 500, 503, 599, 999)
        ),
        *((Verdict("defer", code, "4.7.1", "no"), "protocol") for code in (0, 250, 421, 500, 550)),
        (Verdict("disconnect", 221, "4.7.0", "bye"), "protocol"),
        # Enhanced codes that do not fit (RFC 3463 2).
        *(
            (Verdict("deny", 550, e, "no"), "protocol")
            for e in ("", "5.7", "4.7.1", "5.7.1234", "5.7.1\n", "5.٧.1", "2.0.0")
        ),
        # Texts that could split a reply, or that are none.
        *(
            (Verdict("deny", 550, "5.7.1", t), "protocol")
            for t in ("", "a\r\n250 ok", "a\nb", "nul\0", "\x1b[2J", "ü", "x" * 1001)
        ),
    ],
)
def test_reply_of_a_verdict(verdict: Verdict, cause: str):
    """Code, enhanced code and text are checked before they reach a reply."""
    assert breach(Answer(1, verdict)) == cause


@pytest.mark.parametrize("hook", ["connect", "helo", "mail"])
def test_discard_only_where_there_is_something_to_drop(hook: str):
    """plugins.md: no discard before RCPT."""
    assert breach(Answer(1, Verdict("discard")), hook) == "protocol"


@pytest.mark.parametrize("do", ["accept", "discard"])
def test_power_that_was_not_granted(do: str):
    """Without a grant a plugin can deny, defer and disconnect, nothing else."""
    assert breach(Answer(1, Verdict(do)), "rcpt", ALL) == ""  # type: ignore[arg-type]
    assert breach(Answer(1, Verdict(do)), "rcpt", Powers()) == "protocol"  # type: ignore[arg-type]
    assert breach(Answer(1, GOOD), "rcpt", Powers()) == ""


def test_edits_only_at_message():
    """Before the end of data there is no message to edit."""
    edits = (AddHeader("X-A", "1"),)
    assert breach(Answer(1, edits=edits), "message") == ""
    assert breach(Answer(1, edits=edits), "data") == "protocol"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "v"), ("X A", "v"), ("X:A", "v"), ("X\r\nBcc", "v"), ("Ü", "v"),
        ("X-A", "v\r\nBcc: x"), ("X-A", "v\n"), ("X-A", "nul\0"), ("X-A", "ü"), ("X-A", "v" * 996),
    ],
)  # fmt: skip
def test_header_that_could_break_the_message(name: str, value: str):
    """Names and values are checked for CR, LF, NUL, non-ASCII and length (RFC 5322 2.1.1, 2.2)."""
    assert breach(Answer(1, edits=(AddHeader(name, value),)), "message") == "protocol"


def test_too_many_edits():
    """An answer is bounded."""
    edits = tuple(AddHeader("X-A", "v") for _ in range(MAX_EDITS + 1))
    assert breach(Answer(1, edits=edits[:-1]), "message") == ""
    assert breach(Answer(1, edits=edits), "message") == "protocol"


@pytest.mark.parametrize(
    ("name", "granted", "may"),
    [
        ("X-Spam", ("X-Spam",), True),
        ("x-SPAM", ("X-Spam",), True),
        ("X-Spam-Level", ("X-Spam",), False),
        ("X-Spam-Level", ("X-Spam*",), True),
        ("Subject", (), False),
        ("Subject", ("*",), True),
        ("Received", ("*", "Received"), False),
        ("Return-Path", ("*",), False),
        ("delivered-to", ("*",), False),
    ],
)
def test_header_names_by_grant(name: str, granted: tuple[str, ...], may: bool):
    """edit_headers = [names], a trailing * matches a prefix; what loop detection rests on is never given."""
    assert may_add(name, granted) is may


def test_exception_is_told_from_a_breach():
    """The log names the cause."""
    assert breach(Answer(1, error="KeyError: 'x'")) == "exception"
