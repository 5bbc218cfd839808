"""Is what a plugin calls an address one? A client's grammar for it, and grants by domain."""

from __future__ import annotations

from collections.abc import Sequence

from forkd.smtp import grammar
from forkd.smtp.address import Mailbox, a_labels
from forkd.smtp.reply import Reply

_WRONG = Reply(553, None, ("never sent",))


def mailbox(text: str, *, smtputf8: bool) -> Mailbox | None:
    """The mailbox that a plugin's text names, or None where it names none.

    smtputf8  the transaction may have UTF-8 in addresses (RFC 6531 3.3).
    """
    if text.startswith("@") or not (smtputf8 or text.isascii()):
        return None
    try:
        read = grammar.path(f"<{text}>".encode(), _WRONG)
    except UnicodeEncodeError:
        return None
    if isinstance(read, Reply):
        return None
    found, rest = read
    return None if rest or found is None or not found.domain else found


def compared(domain: str) -> str:
    """The form in which domains are compared; what is no name stays as the client wrote it."""
    try:
        return a_labels(domain)
    except ValueError:
        return domain


def covers(domains: Sequence[str], domain: str) -> bool:
    """Is this domain among the granted ones (A-labels, lower case; "*": every one)?"""
    return "*" in domains or compared(domain) in domains
