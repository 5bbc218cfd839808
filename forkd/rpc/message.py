"""What is every message made of? The base, in a module of its own so that each part's can be one too."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", forbid_unknown_fields=True):
    """Base of all messages."""
