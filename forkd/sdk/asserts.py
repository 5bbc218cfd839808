"""What did the hook say, as a test would put it? One assertion for every verdict and edit."""

from __future__ import annotations

from typing import Any

from forkd.sdk.asked import Answer, goes_on
from forkd.sdk.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteHeader,
    DeleteRecipient,
    Export,
    ReplaceBody,
    RewriteRecipient,
)
from forkd.sdk.verdicts import Verdict


def assert_no_opinion(answer: Answer) -> None:
    """The hook said nothing at all: no verdict, no edits."""
    assert answer.verdict is None and not answer.edits, f"expected no opinion: {answer}"


def assert_failed(answer: Answer, cause: str | None = None) -> None:
    """The plugin brought no answer (with_fault), for this cause where given; the verdict is on_failure's."""
    assert answer.failed, f"expected a failure: {answer}"
    assert cause is None or answer.failed == cause, f"expected cause {cause!r}: {answer}"


def assert_accepted(answer: Answer) -> None:
    """accept(): no further plugin is asked."""
    _assert_verdict("accept", answer)


def assert_discarded(answer: Answer) -> None:
    """Dropped behind a 250."""
    _assert_verdict("discard", answer)


def assert_quarantined(answer: Answer, reason: str | None = None) -> None:
    """Taken and held back, with this reason where given."""
    verdict = _assert_verdict("quarantine", answer)
    assert reason is None or verdict.text == reason, f"expected reason {reason!r}: {answer}"


def assert_authenticated(answer: Answer) -> None:
    """ok(): the credentials are right."""
    _assert_verdict("ok", answer)


def assert_disconnected(answer: Answer, *, enhanced: str | None = None) -> None:
    """421, and the connection closes."""
    _assert_refused("disconnect", answer, 421, enhanced)


def assert_added_header(answer: Answer, name: str, value: str | None = None) -> None:
    """A field of that name was added, with this value where given."""
    _assert_edit(answer, AddHeader, name=name, value=value)


def assert_changed_header(
    answer: Answer, name: str, value: str | None = None, *, n: int | None = None
) -> None:
    """A field of that name got another value."""
    _assert_edit(answer, ChangeHeader, name=name, value=value, n=n)


def assert_deleted_header(answer: Answer, name: str, *, n: int | None = None) -> None:
    """A field of that name was taken away; n=0 stands for all of them."""
    _assert_edit(answer, DeleteHeader, name=name, n=n)


def assert_replaced_body(answer: Answer, body: bytes | str | None = None) -> None:
    """The message got another body, this one where given; LF and CRLF are the same here."""
    edit = _assert_edit(answer, ReplaceBody)
    if body is not None:
        octets = body.encode() if isinstance(body, str) else body
        octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        assert edit.body == octets, f"expected another body: {edit.body[:200]!r}"


def assert_added_recipient(answer: Answer, address: str) -> None:
    """This recipient was added."""
    _assert_edit(answer, AddRecipient, address=address)


def assert_deleted_recipient(answer: Answer, address: str) -> None:
    """This recipient was taken out."""
    _assert_edit(answer, DeleteRecipient, address=address)


def assert_changed_sender(answer: Answer, address: str) -> None:
    """The envelope's sender is this one now; "" is the null sender."""
    _assert_edit(answer, ChangeSender, address=address)


def assert_rewritten(answer: Answer, address: str) -> None:
    """At rcpt: this address goes in the place of the recipient."""
    _assert_edit(answer, RewriteRecipient, address=address)


def assert_exported(answer: Answer, name: str, value: str | None = None) -> None:
    """A fact of that name was exported, with this value where given."""
    _assert_edit(answer, Export, name=name, value=value)


def assert_passed(answer: Answer) -> None:
    """The command goes on: no opinion, or accept()."""
    assert goes_on(answer), f"expected no refusal: {answer}"


def assert_denied(answer: Answer, *, code: int | None = None, enhanced: str | None = None) -> None:
    """Refused for good, with this code and enhanced code where given."""
    _assert_refused("deny", answer, code, enhanced)


def assert_deferred(answer: Answer, *, code: int | None = None, enhanced: str | None = None) -> None:
    """Refused for now."""
    _assert_refused("defer", answer, code, enhanced)


def _assert_verdict(do: str, answer: Answer) -> Verdict:
    verdict = answer.verdict
    assert verdict is not None and verdict.do == do, f"expected {do}: {answer}"
    return verdict


def _assert_edit(answer: Answer, kind: type[Any], **wanted: Any) -> Any:
    """The first edit of that kind whose members are those wanted (None: any; names without case)."""
    for edit in answer.edits:
        if isinstance(edit, kind) and all(
            value is None or _alike(name, getattr(edit, name), value) for name, value in wanted.items()
        ):
            return edit
    told = ", ".join(f"{name} {value!r}" for name, value in wanted.items() if value is not None)
    raise AssertionError(f"expected {kind.op} {told}: {answer}")


def _alike(member: str, have: Any, wanted: Any) -> bool:
    return bool(have.lower() == wanted.lower()) if member == "name" else bool(have == wanted)


def _assert_refused(do: str, answer: Answer, code: int | None, enhanced: str | None) -> None:
    verdict = answer.verdict
    assert verdict is not None and verdict.do == do, f"expected {do}: {answer}"
    assert code is None or verdict.code == code, f"expected code {code}: {answer}"
    assert enhanced is None or verdict.enhanced == enhanced, f"expected {enhanced}: {answer}"
