"""What goes over to a plugin, and what does it know already? The call frames of one session.

A frame is JSON (rpc/PROTOCOL.md), put together from pieces that are encoded once for all plugins:
the arguments of a hook, a change of the session's facts, one recipient. Each plugin is sent what it
has not seen: Seen remembers that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from forkd.hooks.facts import SessionFacts
from forkd.rpc.calls import MAX_FRAME_BYTES, Overloaded
from forkd.smtp.address import Mailbox

PAGE_BYTES = 40_000
"""Of news in one frame; with the frame around it, it stays below MAX_FRAME_BYTES (65,536)."""
FRAME_BYTES = 200
"""More than number, hook and the braces of a frame take."""
MAX_FACT = 1_000
"""Characters of one fact: the subject of a client's certificate is as long as the client likes."""

_encode = msgspec.json.encode
NO_ARGUMENTS = b"{}"


class Seen:
    """What one plugin's sandbox has been told in this session."""

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

    __slots__ = (
        "_changes",
        "_delta",
        "_encoded",
        "_full",
        "_sender",
        "_transaction",
        "facts",
        "recipients",
    )

    def __init__(self, facts: SessionFacts) -> None:
        self.facts = facts
        """As they are now."""
        self.recipients: list[Mailbox] = []
        """Accepted in this transaction."""
        self._full: bytes | None = None
        self._changes: list[dict[str, Any]] = []
        self._delta: tuple[int, bytes] = (-1, b"")
        self._sender: bytes | None = None
        self._encoded: list[bytes] = []
        """The first of `recipients`, as many as some plugin was told."""
        self._transaction = 0

    def update(self, changes: dict[str, Any]) -> None:
        """Facts have changed; names of SessionFacts."""
        changes = {name: value for name, value in changes.items() if getattr(self.facts, name) != value}
        if changes:
            self.facts = dataclasses.replace(self.facts, **changes)
            self._changes.append(changes)
            self._full = None
            self._delta = (-1, b"")

    def begin(self, sender: Mailbox | None) -> None:
        """A sender was accepted."""
        self._sender = _encode(sender)

    def add_recipient(self, recipient: Mailbox) -> None:
        """A recipient was accepted."""
        self.recipients.append(recipient)

    def reset(self) -> None:
        """The transaction is over or cleared."""
        self._sender = None
        self.recipients = []
        self._encoded = []
        self._transaction += 1

    def build(
        self, seen: Seen, hook: str, args: bytes, *, envelope: bool, edits: Sequence[bytes] = ()
    ) -> tuple[list[bytes], bytes]:
        """The page frames to be sent first (mostly none), and the frame of the call itself.

        Numbers follow seen.n in the order of sending; `seen` counts all of it as told.
        args      the encoded arguments, the same for every plugin.
        envelope  this plugin may read the envelope.
        edits     of plugins before, encoded: those that this one may see.
        Raises    Overloaded when the arguments fit no frame: a command line of 60,000 octets is no
                  plugin's fault, and nothing to be let through unseen.
        """
        if len(args) > MAX_FRAME_BYTES - FRAME_BYTES:
            raise Overloaded(f"{len(args)} octets of arguments fit no frame")
        news = b',"new":true' if seen.n == 0 else b""
        news += self._facts_news(seen)
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
            if seen.recipients < len(self.recipients):
                for mailbox in self.recipients[len(self._encoded) :]:
                    self._encoded.append(_encode(mailbox))
                told, seen.recipients = seen.recipients, len(self.recipients)
                news = _paged(seen, pages, news, b"recipients", self._encoded[told:])
        if edits:
            news = _paged(seen, pages, news, b"edits", edits)
        if len(news) + len(args) > MAX_FRAME_BYTES - FRAME_BYTES:
            pages.append(_page(seen, news))
            news = b""
        seen.n += 1
        return pages, b'{"n":%d,"hook":"%b"%b,"args":%b}' % (seen.n, hook.encode(), news, args)

    def _facts_news(self, seen: Seen) -> bytes:
        """The frame's `session` member with its comma: what is no default at first, then what has changed."""
        now = len(self._changes)
        since, seen.facts = seen.facts, now
        if since < 0:
            if self._full is None:
                # What a Session has from its beginning is not told: each fact costs a fresh sandbox pages.
                facts = {
                    name: value for name, default in _FACTS if (value := getattr(self.facts, name)) != default
                }
                self._full = b',"session":' + _encode(_clipped(facts))
            return self._full
        if since == now:
            return b""
        if self._delta[0] != since:
            merged: dict[str, Any] = {}
            for change in self._changes[since:]:
                merged.update(change)
            self._delta = (since, b',"session":' + _encode(_clipped(merged)))
        return self._delta[1]


_FACTS = tuple(
    (field.name, {} if field.name == "exports" else field.default)
    for field in dataclasses.fields(SessionFacts)
)


def _clipped(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value[:MAX_FACT] if isinstance(value, str) else value for name, value in facts.items()}


def _page(seen: Seen, news: bytes) -> bytes:
    seen.n += 1
    return b'{"n":%d,"hook":"page"%b}' % (seen.n, news)


def _paged(seen: Seen, pages: list[bytes], news: bytes, key: bytes, items: Iterable[bytes]) -> bytes:
    """Put a list behind the news, in as many pages as it takes; what is left for the call's own frame."""
    page: list[bytes] = []
    size = len(news)
    for item in items:
        if size + len(item) > PAGE_BYTES and (page or news):
            pages.append(_page(seen, news + _member(key, page)))
            page, news, size = [], b"", 0
        page.append(item)
        size += len(item) + 1
    return news + _member(key, page)


def _member(key: bytes, page: list[bytes]) -> bytes:
    return b',"%b":[%b]' % (key, b",".join(page)) if page else b""
