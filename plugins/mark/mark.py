"""mark - put a header field into every message, to show that plugins are asked

SYNOPSIS
    plugins.d/90-mark.toml:

        plugin = "mark"

        [grants]
        edit_headers = ["X-Forkd-Plugin"]

DESCRIPTION
    Asked after the end of data. Adds one field,

        X-Forkd-Plugin: mark; session=<id>

    where <id> is the session's id in forkd's log. It reads nothing of the mail and has no settings.
    Leave it on while you set forkd up, and take it as the smallest plugin that changes mail.
"""

from __future__ import annotations

from typing import Any

from forkd.sdk import AddHeader, Envelope, Message, Plugin, Session, add_header


def message(session: Session, envelope: Envelope, message: Message) -> list[AddHeader]:  # noqa: ARG001
    """One more field."""
    return [add_header("X-Forkd-Plugin", f"mark; session={session.id}")]


def plugin_init(settings: dict[str, Any]) -> Plugin:  # noqa: ARG001 - there are none
    """Give the table of hooks."""
    return Plugin(message=message)
