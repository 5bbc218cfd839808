"""Asked by forkd itself alone (forkd/probe): says a sender's word back to it, and has no other opinion.

Whoever reads the word again knows that a worker reached this code in a sandbox of its own, and that the
answer came back. The null sender has no word, and goes on.
"""

from __future__ import annotations

from typing import Any

from forkd.sdk import Plugin, Sender, Session, Verdict, deny


def plugin_init(_settings: dict[str, Any]) -> Plugin:
    """It has no settings."""
    return Plugin(mail=_mail)


def _mail(_session: Session, sender: Sender) -> Verdict | None:
    return deny("5.7.1", f"The probe was heard: {sender.local}") if sender.local else None
