"""Which events does a mail's life have, from the client's dialogue to each recipient's outcome?

For log.py, by which everybody calls them; what holds for its functions holds for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from forkd.logacts import QueueAct
from forkd.logwriter import given, often, write


class Who(TypedDict):
    """A client, as the lines about it have it; what is not known is empty.

    client       ADDRESS:PORT
    name         verified
    tls          version and cipher
    certificate  subject of the client's certificate, verified
    user         who has authenticated
    """

    client: str
    name: str
    helo: str
    tls: str
    certificate: str
    user: str


def connected(*, session: str, client: str, listener: str) -> None:
    """A client's dialogue begins; level debug, since its end has a line that tells all."""
    write("debug", "connected", session=session, client=client, listener=listener)


def session_end(
    *,
    session: str,
    client: str,
    reason: str,
    seconds: float,
    name: str = "",
    listener: str = "",
    helo: str = "",
    tls: str = "",
    certificate: str = "",
    user: str = "",
    messages: int = 0,
    recipients: int = 0,
    errors: int = 0,
    octets_in: int = 0,
    last_reply: str = "",
    plugins: Sequence[str] = (),
) -> None:
    """A client's dialogue is over.

    reason   quit | lost | timeout | refused | early talker | shutdown | errors | plugin | overload | failed …
    errors   commands that were answered 4xx or 5xx
    plugins  one short text per call outside a transaction (connect, helo): `name:hook:verdict:1.2ms`
    """
    fields = given(
        name=name, listener=listener, helo=helo, tls=tls, certificate=certificate, user=user,
        messages=messages, recipients=recipients, errors=errors, octets_in=octets_in,
        last_reply=last_reply, plugins=plugins,
    )  # fmt: skip
    often("session", session=session, client=client, reason=reason, seconds=seconds, **fields)


def message(
    *,
    session: str,
    client: str,
    sender: str,
    recipients: Sequence[str],
    reply: str,
    seconds: float,
    id: str = "",
    name: str = "",
    helo: str = "",
    tls: str = "",
    certificate: str = "",
    user: str = "",
    size: int = 0,
    refused_recipients: int = 0,
    plugins: Sequence[str] = (),
    edits: int = 0,
    discarded: bool = False,
    original_sender: str = "",
    rewritten: Sequence[str] = (),
    dropped: Sequence[str] = (),
) -> None:
    """A transaction is over: its whole story.

    id       the queue id where the message was committed, or that the sender was told though a plugin
             discarded it; else empty
    sender   `<>` for the null sender; where a plugin changed it, original_sender is what the client said
    recipients  to whom it goes; rewritten: `said>new` of those that a plugin rewrote; dropped: who was
             answered 250 and taken out by a plugin
    reply    what the client was told, e.g. `250 2.0.0 queued as …`
    plugins  one short text per call: `name:hook:verdict:1.2ms`, failures as `name:hook:!cause:…`
    """
    fields = given(
        name=name, helo=helo, tls=tls, certificate=certificate, user=user, size=size,
        refused_recipients=refused_recipients, plugins=plugins, edits=edits, discarded=discarded or None,
        original_sender=original_sender, rewritten=_some(rewritten), dropped=_some(dropped),
    )  # fmt: skip
    often(
        "message", session=session, id=id or "-", client=client, sender=sender, recipients=_some(recipients),
        reply=reply, seconds=seconds, **fields,
    )  # fmt: skip


def edited(*, session: str, id: str, edits: Sequence[str]) -> None:
    """What plugins, and submission, changed in a message's header; level debug.

    edits  `op Name`, in order
    """
    write("debug", "edited", session=session, id=id, edits=edits)


def _some(addresses: Sequence[str]) -> Sequence[str]:
    """The first ten, and how many there are beyond."""
    if len(addresses) <= 10:
        return addresses
    return [*addresses[:10], f"+{len(addresses) - 10}"]


def refused(
    *,
    session: str,
    client: str,
    reply: str,
    command: str = "",
    said: str = "",
    sender: str = "",
    recipient: str = "",
    name: str = "",
    helo: str = "",
    tls: str = "",
    certificate: str = "",
    user: str = "",
    plugins: Sequence[str] = (),
) -> None:
    """A command was refused: the line that answers "why was this refused?".

    command  its verb; empty for one we do not know, and for the greeting
    said     what stood behind it, where its syntax or order was refused before anybody looked at addresses
    sender   `<>` for the null sender, empty where none stands
    """
    fields = given(
        said=said[:512], sender=sender, recipient=recipient, name=name, helo=helo, tls=tls,
        certificate=certificate, user=user,
        plugins=plugins,
    )  # fmt: skip
    write("info", "refused", session=session, client=client, command=command or "-", reply=reply, **fields)


def delivery(
    *,
    id: str,
    recipient: str,
    transport: str,
    status: str,
    enhanced: str = "",
    text: str = "",
    host: str = "",
    tls: str = "",
    session: str = "",
    attempt: int = 1,
    seconds: float = 0.0,
    age_s: float = 0.0,
    next_try_s: float = 0.0,
) -> None:
    """One recipient's outcome of one attempt.

    status      delivered (info) | deferred (warning) | failed (error)
    host        the next hop's name; empty: none
    tls         version and cipher, and whether it proved who it is; empty: in the clear, or no next hop
    age_s       since the message was received
    next_try_s  from now; 0: no further try
    """
    level = {"delivered": "info", "failed": "error"}.get(status, "warning")
    fields = given(enhanced=enhanced, text=text, host=host, tls=tls, session=session, seconds=seconds,
                    age_s=age_s, next_try_s=next_try_s)  # fmt: skip
    write(
        level,
        "delivery",
        id=id,
        recipient=recipient,
        transport=transport,
        status=status,
        attempt=attempt,
        **fields,
    )


def queue_event(
    *,
    act: QueueAct,
    id: str = "",
    detail: str = "",
    count: int = 0,
    who: str = "",
    level: str = "info",
) -> None:
    """Something happened to the queue as such."""
    write(level, "queue", act=act, **given(id=id, detail=detail, count=count, who=who))
