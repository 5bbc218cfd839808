"""What may a sandbox answer? The typed form of PROTOCOL.md's call frames, as the worker decodes them.

A sandbox is hostile input: a frame is JSON of at most MAX_FRAME_BYTES, decoded strictly into these
structs; whatever does not fit is a breach, never an exception that escapes the decode boundary.
"""

from __future__ import annotations

from typing import Literal

import msgspec

MAX_FRAME_BYTES = 65_536


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plugin's opinion; None in the answer means: no opinion, ask the next one."""

    do: Literal["accept", "deny", "defer", "disconnect", "discard"]
    code: int = 0
    enhanced: str = ""
    text: str = ""


class AddHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="add_header"):
    """Put one field on top of the header, below the trace."""

    name: str
    value: str


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer to call `n`."""

    n: int
    verdict: Verdict | None = None
    edits: tuple[AddHeader, ...] = ()
    error: str = ""
    """The hook raised: exception type and text, for the log. The sandbox exits after it."""


class CallFailed(Exception):  # noqa: N818 - a state of the world, named as the log names it
    """A call that brought no usable answer: the plugin's `on_failure` decides the reply.

    cause    crash | deadline | cpu | memory | syscall | exception | protocol | unavailable
    detail   for the log, escaped there; never for the client
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail


class Overloaded(Exception):  # noqa: N818
    """No sandbox is to be had now: 451 4.3.2, counted apart from failures."""
