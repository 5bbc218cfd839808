"""What may a sandbox answer? The typed form of PROTOCOL.md's call frames, as the worker decodes them.

A sandbox is hostile input: a frame is JSON of at most MAX_FRAME_BYTES, decoded strictly into these
structs; whatever does not fit is a breach, never an exception that escapes the decode boundary.
What fits here may still be more than this plugin may say: forkd.hooks.checks looks at that.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

MAX_FRAME_BYTES = 65_536
MAX_PIECE_BYTES = 48_000
"""Of a replaced body in one answer; in base64 it has 64,000 octets, and the frame some more."""
MAX_FIELDS = 10_000
"""No header has more (forkd.sdk.headers.MAX_FIELDS)."""

_NthField = Annotated[int, msgspec.Meta(ge=1, le=MAX_FIELDS)]
_NthOrAll = Annotated[int, msgspec.Meta(ge=0, le=MAX_FIELDS)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
_Code = Annotated[int, msgspec.Meta(ge=0, le=999)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Line = Annotated[str, msgspec.Meta(max_length=500)]
_Metric = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,39}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plugin's opinion; None in the answer means: no opinion, ask the next one.

    text  of a refusal: for the client; of quarantine: the reason, for the admin. accept, discard and ok
          have neither codes nor text.
    """

    do: Literal["accept", "deny", "defer", "disconnect", "discard", "quarantine", "ok"]
    code: _Code = 0
    enhanced: str = ""
    text: str = ""


class _Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    """One change, in the order in which they are to be made."""


class AddHeader(_Edit, frozen=True, tag="add_header"):
    """Put one field on top of the header: below the trace and below those added before."""

    name: str
    value: str


class ChangeHeader(_Edit, frozen=True, tag="change_header"):
    """Give the n-th field of that name another value; n counts from 1, as the edits before left it."""

    name: str
    n: _NthField
    value: str


class DeleteHeader(_Edit, frozen=True, tag="delete_header"):
    """Take the n-th field of that name away; 0: all of them."""

    name: str
    n: _NthOrAll


class ReplaceBody(_Edit, frozen=True, tag="replace_body"):
    """Put another body of `size` octets behind the header; calls of the hook `body` fetch it."""

    size: _Size


class ReplaceMessage(_Edit, frozen=True, tag="replace_message"):
    """Put another message, header and body, in the place of this one; fetched as a body is. Programs alone
    say it."""

    size: _Size


class AddRecipient(_Edit, frozen=True, tag="add_recipient"):
    """One more recipient, written as in SMTP without the angle brackets."""

    address: str


class DeleteRecipient(_Edit, frozen=True, tag="delete_recipient"):
    """One recipient less; one that is not there is no fault."""

    address: str


class ChangeSender(_Edit, frozen=True, tag="change_sender"):
    """Another reverse path; empty: the null sender."""

    address: str


class RewriteRecipient(_Edit, frozen=True, tag="rewrite_recipient"):
    """At `rcpt`: this address in the place of the client's."""

    address: str


class Export(_Edit, frozen=True, tag="export"):
    """Set a fact of the session that later plugins see."""

    name: str
    value: str


HeaderEdit = AddHeader | ChangeHeader | DeleteHeader
Edit = (
    AddHeader
    | ChangeHeader
    | DeleteHeader
    | ReplaceBody
    | ReplaceMessage
    | AddRecipient
    | DeleteRecipient
    | ChangeSender
    | RewriteRecipient
    | Export
)


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer to call `n`."""

    n: _Number
    verdict: Verdict | None = None
    edits: tuple[Edit, ...] = ()
    piece: bytes | None = None
    """To a call of `body`, and to no other: the next octets, in base64."""
    by: str = ""
    """The member of a group that had the verdict; a claim, for the log only."""
    error: str = ""
    """The hook raised: exception type and text, for the log. The sandbox exits after it."""
    log: Annotated[tuple[_Line, ...], msgspec.Meta(max_length=8)] = ()
    """Lines for the log, escaped there."""
    count: Annotated[dict[_Metric, _Count], msgspec.Meta(max_length=16)] = {}
    """Added to counters of the plugin's own."""


class CallFailed(Exception):  # noqa: N818 - a state of the world, named as the log names it
    """A call that brought no usable answer: the plugin's `on_failure` decides the reply.

    cause    crash | deadline | cpu | memory | syscall | exception | protocol | zygote ended | unavailable
    detail   for the log, escaped there; never for the client
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail


class Overloaded(Exception):  # noqa: N818
    """No sandbox is to be had now: 451 4.3.2, counted apart from failures."""
