"""What goes over to a plugin, and what does it know already? The call frames of one session.

A frame is JSON (rpc/PROTOCOL.md), put together from pieces that are encoded once for all plugins:
the arguments of a hook, a change of the session's facts, one recipient. Each plugin is sent what it
has not seen: Seen remembers that.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from forkd.hooks.facts import SessionFacts
from forkd.smtp.address import Mailbox

PAGE_BYTES = 40_000
"""Recipients in one frame; with facts and arguments it stays below MAX_FRAME_BYTES (65,536)."""

_encode = msgspec.json.encode
NO_ARGUMENTS = b"{}"


class Seen:
    """What one plugin of one session has been told."""

    __slots__ = ("facts", "n", "recipients", "sender", "transaction")

    def __init__(self) -> None:
        self.n = 0
        """Number of the last call."""
        self.facts = -1
        """Changes of facts seen; -1: none at all."""
        self.transaction = 0
        self.sender = False
        self.recipients = 0


class Frames:
    """The pieces of one session."""

    __slots__ = ("_changes", "_delta", "_facts", "_full", "_recipients", "_sender", "_transaction")

    def __init__(self, facts: SessionFacts) -> None:
        self._facts = facts
        self._full: bytes | None = None
        self._changes: list[dict[str, Any]] = []
        self._delta: tuple[int, bytes] = (-1, b"")
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._transaction = 0

    def update(self, changes: dict[str, Any]) -> None:
        """Facts have changed; names of SessionFacts."""
        changes = {name: value for name, value in changes.items() if getattr(self._facts, name) != value}
        if changes:
            self._facts = dataclasses.replace(self._facts, **changes)
            self._changes.append(changes)
            self._full = None
            self._delta = (-1, b"")

    def begin(self, sender: Mailbox | None) -> None:
        """A sender was accepted."""
        self._sender = _encode(sender)

    def add_recipient(self, recipient: Mailbox) -> None:
        """A recipient was accepted."""
        self._recipients.append(_encode(recipient))

    def reset(self) -> None:
        """The transaction is over or cleared."""
        self._sender = None
        self._recipients.clear()
        self._transaction += 1

    def build(self, seen: Seen, hook: str, args: bytes, *, envelope: bool) -> tuple[list[bytes], bytes]:
        """The page frames to be sent first (mostly none), and the frame of the call itself.

        Numbers follow seen.n in the order of sending; `seen` counts all of it as told.
        args      the encoded arguments, the same for every plugin.
        envelope  this plugin may read the envelope.
        """
        news = self._facts_news(seen)
        if seen.transaction != self._transaction:
            seen.transaction = self._transaction
            seen.sender = False
            seen.recipients = 0
            news += b',"reset":true'
        pages: list[bytes] = []
        if envelope:
            if self._sender is not None and not seen.sender:
                seen.sender = True
                news += b',"sender":' + self._sender
            if seen.recipients < len(self._recipients):
                *full, last = self._recipient_pages(seen.recipients)
                seen.recipients = len(self._recipients)
                for page in full:
                    seen.n += 1
                    pages.append(b'{"n":%d,"hook":"page"%b,"recipients":[%b]}' % (seen.n, news, page))
                    news = b""
                news += b',"recipients":[%b]' % last
        seen.n += 1
        return pages, b'{"n":%d,"hook":"%b"%b,"args":%b}' % (seen.n, hook.encode(), news, args)

    def _facts_news(self, seen: Seen) -> bytes:
        """The frame's `session` member with its comma: everything at first, then what has changed."""
        now = len(self._changes)
        since, seen.facts = seen.facts, now
        if since < 0:
            if self._full is None:
                self._full = b',"session":' + _encode(self._facts)
            return self._full
        if since == now:
            return b""
        if self._delta[0] != since:
            merged: dict[str, Any] = {}
            for change in self._changes[since:]:
                merged.update(change)
            self._delta = (since, b',"session":' + _encode(merged))
        return self._delta[1]

    def _recipient_pages(self, start: int) -> list[bytes]:
        pages: list[bytes] = []
        page: list[bytes] = []
        size = 0
        for recipient in self._recipients[start:]:
            if page and size + len(recipient) > PAGE_BYTES:
                pages.append(b",".join(page))
                page, size = [], 0
            page.append(recipient)
            size += len(recipient) + 1
        pages.append(b",".join(page))
        return pages
