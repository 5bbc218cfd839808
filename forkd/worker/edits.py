"""How is an edit of a header kept? As plugins' answers have it, made what the envelope in the spool has."""

from __future__ import annotations

from forkd.queue.envelope import Edit
from forkd.rpc.calls import AddHeader, ChangeHeader, DeleteHeader, HeaderEdit


def kept(edit: HeaderEdit) -> Edit:
    """The same edit for the envelope, and for forkd.message.edits."""
    match edit:
        case AddHeader(name, value):
            return Edit(op="add_header", name=name, value=value)
        case ChangeHeader(name, n, value):
            return Edit(op="change_header", name=name, value=value, n=n)
        case DeleteHeader(name, n):
            return Edit(op="delete_header", name=name, n=n)
