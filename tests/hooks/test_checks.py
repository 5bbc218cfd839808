"""May this plugin say this, here? A breach ends the call as on_failure says, whatever the SDK refuses."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.hooks.checks import MAX_EDITS, check_answer, may_edit
from forkd.hooks.spec import HOOKS
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
from tests.support.fake_host import EVERY_POWER, Powers

GOOD = Verdict("deny", 550, "5.7.1", "no")
ALL = EVERY_POWER


def breach(answer: Answer, hook: str = "mail", powers: Powers = ALL, *, smtputf8: bool = False) -> str:
    """The cause of the failure, or an empty text if the answer stands."""
    try:
        check_answer(answer, spec=HOOKS[hook], powers=powers, smtputf8=smtputf8)
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


POWER_OF = [
    (Verdict("accept"), "rcpt", {"accept": True}),
    (Verdict("discard"), "rcpt", {"discard": True}),
    (Verdict("quarantine", text="why"), "data", {"quarantine": True}),
    (Verdict("ok"), "auth", {"auth": True}),
    (AddHeader("X-A", "1"), "message", {"edit_headers": ("X-A",)}),
    (ChangeHeader("X-A", 1, "1"), "message", {"edit_headers": ("X-A",)}),
    (DeleteHeader("X-A", 0), "message", {"edit_headers": ("X-*",)}),
    (ReplaceBody(5), "message", {"edit_body": True}),
    (ReplaceMessage(5), "message", {"replace_message": True}),
    (AddRecipient("a@test.local"), "message", {"add_recipient": ("test.local",)}),
    (AddRecipient("a@test.local"), "message", {"add_recipient": ("*",)}),
    (DeleteRecipient("a@test.local"), "message", {"delete_recipient": True}),
    (ChangeSender("a@example.org"), "message", {"change_sender": True}),
    (ChangeSender(""), "message", {"change_sender": True}),
    (RewriteRecipient("a@test.local"), "rcpt", {"rewrite_recipient": True}),
    (Export("SPFRESULT", "pass"), "mail", {"export": ("SPFRESULT",)}),
]
"""Each act, where it may be done, and the one grant that it needs."""


def said(act: Verdict | Edit) -> Answer:
    return Answer(1, act) if isinstance(act, Verdict) else Answer(1, edits=(act,))


@pytest.mark.parametrize(("act", "hook", "grant"), POWER_OF)
def test_every_act_needs_its_power_and_no_other(act: Verdict | Edit, hook: str, grant: dict[str, Any]):
    """Without a grant a plugin can deny, defer and disconnect, nothing else (plugins.md)."""
    assert breach(said(act), hook, Powers(**grant)) == ""
    assert breach(said(act), hook, Powers()) == "protocol"
    others = {name: value for name, value in vars(ALL).items() if name not in grant}
    assert breach(said(act), hook, Powers(**others)) == "protocol"
    assert breach(Answer(1, GOOD), "mail", Powers()) == ""


@pytest.mark.parametrize(("act", "hook"), [(act, hook) for act, hook, _ in POWER_OF])
def test_every_act_has_its_hooks(act: Verdict | Edit, hook: str):
    """A verdict or an edit elsewhere is a breach, whatever was granted."""
    op = str(act.__struct_config__.tag)
    where = {name for name, spec in HOOKS.items() if breach(said(act), name) == ""}
    if isinstance(act, Verdict):
        assert where == {name for name, spec in HOOKS.items() if act.do in spec.verdicts}
    else:
        assert where == {name for name, spec in HOOKS.items() if op in spec.edits}
    assert hook in where
    assert "disconnect" not in where


@pytest.mark.parametrize(
    "act",
    [
        AddRecipient("a@elsewhere.example"),
        AddRecipient("a@sub.test.local"),
        Export("OTHER", "x"),
        Export("spfresult", "x"),
        AddHeader("X-Other", "1"),
    ],
)
def test_a_grant_is_for_what_it_names(act: Edit):
    """add_recipient by domain, export and edit_headers by name."""
    powers = Powers(add_recipient=("test.local",), export=("SPFRESULT",), edit_headers=("X-A",))
    assert breach(said(act), "message", powers) == "protocol"


@pytest.mark.parametrize(
    "address",
    [
        "", "postmaster", "a@", "@test.local", "@relay.example:a@test.local", "a@test.local>",
        "<a@test.local>",
        "a@test.local ", " a@test.local", "a b@test.local", "a@test.local\r\nRCPT TO:<x@y>", "a@b@test.local",
        "a@[300.1.1.1]", "x" * 300 + "@test.local", "\x00@test.local", "ü@test.local", "a@bücher.example",
        "\ud800@test.local",
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [AddRecipient, DeleteRecipient, ChangeSender, RewriteRecipient])
def test_what_is_no_address_is_a_breach(make: Any, address: str):
    """The grammar that a client's path goes through (RFC 5321 4.1.2); UTF-8 only with SMTPUTF8."""
    if make is ChangeSender and not address:
        return  # the null sender
    hook = "rcpt" if make is RewriteRecipient else "message"
    assert breach(said(make(address)), hook) == "protocol"


@pytest.mark.parametrize(
    ("act", "hook"),
    [
        (AddRecipient("ü@bücher.example"), "message"),
        (AddHeader("X-A", "grüße"), "message"),
        (ChangeHeader("X-A", 1, "grüße"), "message"),
        (Verdict("deny", 550, "5.7.1", "nicht für uns"), "mail"),
    ],
)
def test_more_than_ascii_only_with_smtputf8(act: Verdict | Edit, hook: str):
    """RFC 6531: whoever did not ask for it must not get it."""
    assert breach(said(act), hook) == "protocol"
    assert breach(said(act), hook, smtputf8=True) == ""


@pytest.mark.parametrize("text", ["", "two\nlines", "ü", "x" * 201])
def test_a_reason_is_one_short_line(text: str):
    """It stands in queue listings and logs."""
    assert breach(Answer(1, Verdict("quarantine", text=text)), "message") == "protocol"


@pytest.mark.parametrize("value", ["two\nlines", "nul\0", "ü", "x" * 257])
def test_export_that_is_unfit_for_an_environment(value: str):
    """Printable, bounded: later it is an environment variable."""
    assert breach(said(Export("SPFRESULT", value))) == "protocol"


def test_one_body_in_an_answer():
    """The pieces that follow would not say whose they are."""
    assert breach(Answer(1, edits=(ReplaceBody(1), ReplaceBody(2))), "message") == "protocol"


def test_pieces_come_when_they_are_asked_for():
    """A piece of a body in the answer to a hook."""
    assert breach(Answer(1, piece=b"x"), "message") == "protocol"


def test_name_of_a_member_is_fit_for_the_log():
    """`by` is a claim, and shown."""
    assert breach(Answer(1, GOOD, by="dkim")) == ""
    assert breach(Answer(1, GOOD, by="dkim verdict=ok")) == "protocol"


def test_edits_only_at_message():
    """Before the end of data there is no message to edit."""
    edits = (AddHeader("X-A", "1"),)
    assert breach(Answer(1, edits=edits), "message") == ""
    assert breach(Answer(1, edits=edits), "data") == "protocol"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "v"), ("X A", "v"), ("X:A", "v"), ("X\r\nBcc", "v"), ("Ü", "v"),
        ("X-A", "v\r\nBcc: x"), ("X-A", "v\n"), ("X-A", "v\u2028"),
        ("X" * 101, "v"), ("X-A", "v " * 4001), ("X-A", "nul\0"), ("X-A", "ü"), ("X-A", "v" * 994),
    ],
)  # fmt: skip
def test_header_that_could_break_the_message(name: str, value: str):
    """Names and values are checked for CR, LF, NUL, non-ASCII and length (RFC 5322 2.1.1, 2.2)."""
    assert breach(Answer(1, edits=(AddHeader(name, value),)), "message") == "protocol"
    assert breach(Answer(1, edits=(ChangeHeader(name, 1, value),)), "message") == "protocol"


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
    assert may_edit(name, granted) is may


def test_exception_is_told_from_a_breach():
    """The log names the cause."""
    assert breach(Answer(1, error="KeyError: 'x'")) == "exception"
