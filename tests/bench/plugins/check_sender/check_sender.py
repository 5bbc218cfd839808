"""check_sender - the benchmark's check at MAIL: refuses the sender bad@"""

from __future__ import annotations

from typing import Any

from forkd.sdk import Plugin, Sender, Session, Verdict, deny


def mail(session: Session, sender: Sender) -> Verdict | None:
    """Compare the local part."""
    return deny("5.7.1", "no") if sender.local == "bad" else None


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Give the table of hooks."""
    return Plugin(mail=mail)
