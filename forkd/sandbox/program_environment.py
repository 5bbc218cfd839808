"""What does a program plugin find in its environment? What IndiMail's filters do, and what the admin adds.

QMAILUSER, QMAILHOST    the sender's parts; both empty for the null sender
QMAILRCPTS, NUMRCPTS    recipients, each with a line end behind it; how many
MSGSIZE, ENVSIZE        octets of the message as it is read; of the envelope as qmail-queue is given it
TCPREMOTEIP, TCPREMOTEPORT, TCPREMOTEHOST, TCPREMOTEINFO    the client, its verified name, who authenticated
TCPLOCALIP, TCPLOCALPORT, TCPLOCALHOST    where it is connected to; our own name
and the facts that plugins before have exported (SPFRESULT). What is not known is not there.

Addresses are as in a qmail envelope: without quotes. PATH and LC_ALL are there too: no program finds another,
or reads UTF-8, without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from forkd.rpc.calls import Overloaded

MAX_ENTRY = 131_000
"""Octets of one variable: the kernel's own limit is 131,072 (execve(2), MAX_ARG_STRLEN)."""


class AddressLike(Protocol):
    """Of forkd.sdk.views.Address."""

    @property
    def local(self) -> str: ...
    @property
    def domain(self) -> str: ...


class SessionLike(Protocol):
    """What is read of forkd.sdk.views.Session."""

    client_ip: str
    client_port: int
    client_name: str
    user: str
    local_ip: str
    local_port: int
    hostname: str
    exports: dict[str, str]


def environment(
    session: SessionLike,
    sender: AddressLike,
    recipients: Sequence[AddressLike],
    *,
    size: int,
    own: Mapping[str, str],
) -> bytes:
    """Entries NAME=value, each with a NUL behind it.

    size    octets of the message on descriptor 0.
    own     the admin's; they stand before what plugins export, and behind what is said of this message.
    Raises  Overloaded where the recipients fit no variable: no program's fault, and nothing to keep from it.
    """
    rcpts = [_plain(to) for to in recipients]
    # F sender NUL, T recipient NUL ..., NUL (qmail-queue(8)).
    envelope = sum(len(text.encode()) + 2 for text in (_plain(sender), *rcpts)) + 1
    known = {
        "TCPREMOTEIP": session.client_ip,
        "TCPREMOTEPORT": str(session.client_port or ""),
        "TCPREMOTEHOST": session.client_name,
        "TCPREMOTEINFO": session.user,
        "TCPLOCALIP": session.local_ip,
        "TCPLOCALPORT": str(session.local_port or ""),
        "TCPLOCALHOST": session.hostname,
    }
    variables = {
        **session.exports,
        **own,
        **{name: value for name, value in known.items() if value},
        "QMAILUSER": sender.local,
        "QMAILHOST": sender.domain,
        "QMAILRCPTS": "".join(f"{to}\n" for to in rcpts),
        "NUMRCPTS": str(len(rcpts)),
        "MSGSIZE": str(size),
        "ENVSIZE": str(envelope),
    }
    entries = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in variables.items()]
    if max(map(len, entries)) > MAX_ENTRY:
        raise Overloaded(f"{len(rcpts)} recipients do not fit the environment of a program")
    return b"".join(entry.replace(b"\0", b"?") + b"\0" for entry in entries)


def _plain(address: AddressLike) -> str:
    return f"{address.local}@{address.domain}" if address.domain else address.local
