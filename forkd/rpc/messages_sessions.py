"""What do admin and workers say to each other? Which sessions are there, and: end that one.

Admin asks, workers answer, on connections that workers open (run/workers.sock). A worker talks with the
world and may have been taken over: what it says is bounded here, and believed of its own sessions
alone: their ids end with its slot.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from forkd.rpc.message import Message

MAX_ENTRIES = 100
"""In one record: each entry has some 2,000 octets at most, as a rule 300."""

MOST = 20_000
"""Sessions in one answer to who asks admin: 10 MB."""

State = Literal[
    "connect", "tls", "idle", "auth", "mail", "data", "plugin", "wait", "tarpit", "commit", "closing"
]
"""What a session is about, or waits for:

connect  it has not been greeted yet     mail    a transaction stands, no data yet
tls      the handshake                   data    the message comes in
idle     between transactions            plugin  the answer of one
auth     the client's next response      wait    another answer: a backend's, a name, a next hop's
tarpit   made to wait                    commit  the message is being made durable
closing  its last words go out
"""

Sort = Literal["age", "idle", "client", "messages", "errors", "octets"]
"""age, idle: longest first; messages, errors, octets: most first."""

_Text = Annotated[str, msgspec.Meta(max_length=320)]
"""As long as an address may be (RFC 5321 4.5.3.1)."""
_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Z]{15,20}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]

MAX_TEXT = 320


def is_of(session: str, slot: int) -> bool:
    """Is that the id of a session of the worker in that slot? It ends so (worker/main.py makes its Ids)."""
    return session.endswith(f"W{slot}")


class SessionFilter(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Which sessions are meant: every field that is given must fit."""

    client: _Text = ""
    """An address or a network."""
    listener: _Text = ""
    user: _Text = ""
    """Who has authenticated."""
    state: tuple[State, ...] = ()
    """Any of them."""
    idle: _Seconds = 0.0
    """Not heard for so long or longer."""
    age: _Seconds = 0.0
    """Connected for so long or longer."""
    ids: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=100)] = ()
    """Any of them."""


class SessionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One session."""

    id: _Id
    client: _Text
    """Its address, as the log has it."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    listener: _Text
    state: State
    asked: _Text = ""
    """In the state `plugin`: which one, at which hook."""
    age_s: _Seconds
    idle_s: _Seconds
    """Since it was heard last."""
    name: _Text = ""
    """Reverse name, verified."""
    helo: _Text = ""
    user: _Text = ""
    tls: _Text = ""
    messages: _Count = 0
    """Accepted so far."""
    errors: _Count = 0
    """Commands that were refused."""
    mail: bool = False
    """There is a transaction: ..."""
    sender: _Text = ""
    """... its sender, empty: the null sender; ..."""
    recipients: _Count = 0
    """... how many recipients stand; ..."""
    octets: _Count = 0
    """... how much of the message has come."""


class AskSessions(Message, frozen=True, tag="ask_sessions"):
    """Admin to worker: at most `limit` sessions that fit, the first of that order."""

    n: int
    filter: SessionFilter = SessionFilter()
    sort: Sort = "age"
    limit: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 100


class Sessions(Message, frozen=True, tag="sessions"):
    """Worker's answer to AskSessions: one record after the other, while there is `more`; only the last may
    have no entries."""

    n: int
    entries: Annotated[tuple[SessionEntry, ...], msgspec.Meta(max_length=MAX_ENTRIES)] = ()
    fit: _Count = 0
    """How many sessions the filter fits."""
    total: _Count = 0
    more: bool = False


class Kick(Message, frozen=True, tag="kick"):
    """Admin to worker: end these sessions (421 4.3.2), as far as they are yours."""

    n: int
    ids: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=100)]


class Kicked(Message, frozen=True, tag="kicked"):
    """Worker's answer to Kick: those that it had. One whose message is being made durable ends after that."""

    n: int
    ids: Annotated[tuple[_Id, ...], msgspec.Meta(max_length=100)]


ToWorker = AskSessions | Kick
FromWorker = Sessions | Kicked
