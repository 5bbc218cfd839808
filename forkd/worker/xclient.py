"""What did a trusted host tell of its client? XCLIENT's attributes, read and obeyed (Postfix XCLIENT_README).

Who may say it is decided by the connection's own address (networks.xclient), however often it says it.
Attributes that are not in a command stay as the commands before left them, but for LOGIN, which is of its
own command alone: a proxy that goes on to its next client, or begins TLS, need not take it back. After each
the session begins anew: limits, name and connect hook are those of the client told of, and 220 is sent again.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from forkd.smtp import events, replies
from forkd.smtp.reply import Reply
from forkd.worker import opening

if TYPE_CHECKING:
    from forkd.worker.session import Session

UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104 - nothing is bound to it
"""ADDR=[UNAVAILABLE]: nobody's address, so in no network of the configuration by accident, but counted."""

MAX_OCTETS = 255
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,255}")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclasses.dataclass(frozen=True, slots=True)
class Claims:
    """What has been told so far; None: not told."""

    name: str | None = None
    address: str | None = None
    port: int | None = None
    protocol: str | None = None
    helo: str | None = None
    login: str | None = None
    destination_address: str | None = None
    destination_port: int | None = None


def _text(value: str | None) -> str | None:
    if value is None:
        return ""
    return value if value.isprintable() and len(value.encode()) <= MAX_OCTETS else None


def _name(value: str | None) -> str | None:
    if value is None:
        return ""
    return value.lower().rstrip(".") if _NAME.fullmatch(value) else None


def _address(value: str | None) -> str | None:
    if value is None:
        return UNKNOWN_ADDRESS
    text = value[5:] if value[:5].upper() == "IPV6:" else value
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if "%" in text else str(address)


def _port(value: str | None) -> int | None:
    if value is None:
        return 0
    return int(value) if _PORT.fullmatch(value) and int(value) <= 65535 else None


def _protocol(value: str | None) -> str | None:
    word = (value or "").upper()
    return word if word in ("SMTP", "ESMTP") else None


_ATTRIBUTES: Mapping[str, tuple[str, Callable[[str | None], Any]]] = {
    "NAME": ("name", _name),
    "ADDR": ("address", _address),
    "PORT": ("port", _port),
    "PROTO": ("protocol", _protocol),
    "HELO": ("helo", _text),
    "LOGIN": ("login", _text),
    "DESTADDR": ("destination_address", _address),
    "DESTPORT": ("destination_port", _port),
}
"""Attribute -> field of Claims, and how its value is read; None: it is malformed."""


def read(attributes: Mapping[str, str | None], before: Claims | None = None) -> Claims | Reply:
    """The claims of a command on top of those before it, or the reply to what is wrong with it."""
    told: dict[str, Any] = {"login": None}
    for attribute, value in attributes.items():
        row = _ATTRIBUTES.get(attribute)
        if row is None:
            return replies.BAD_XCLIENT
        field, parse = row
        told[field] = parse(value)
        if told[field] is None:
            return replies.BAD_XCLIENT
    return dataclasses.replace(before or Claims(), **told)


async def on_xclient(session: Session, event: events.Xclient) -> Reply | None:
    """XCLIENT, from a host that may: become that client, and begin anew."""
    claims = read(event.attributes, session.claims)
    if isinstance(claims, Reply):
        return claims
    session.claims = claims
    # Plugins remember of this session what was another client's: new sandboxes, if there were any.
    session.plugins.release(cut_off=False)
    moved = _move(session, claims)
    if claims.name is not None:
        session.client_name = claims.name
    session.user = claims.login or ""
    listening = session.services.listeners[session.listener]
    session.conn.set_wire(session.client.wire or listening.options.wire)
    session.restart(await opening.introduce(session, counted=not moved, named=claims.name is not None))
    return None


def _move(session: Session, claims: Claims) -> bool:
    peer, local = session.peer, session.local
    return session.become(
        (peer[0] if claims.address is None else claims.address, claims.port or peer[1]),
        (
            local[0] if claims.destination_address is None else claims.destination_address,
            claims.destination_port or local[1],
        ),
    )
