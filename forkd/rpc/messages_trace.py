"""What do our processes tell admin of sessions and messages, for `forkd explain`? One record, no answer.

    worker, qmgr, broker -> admin    Traces

All of them have the write end of one pair of SEQPACKET sockets, admin has the read end, master keeps both:
while admin is being restarted records wait in the socket, and nobody waits for admin.

Which pid sent a record the kernel says (SCM_CREDENTIALS). Its name is what that process calls itself, and all
else is its word: one that was taken over may call itself qmgr and tell of deliveries. What could hurt the
store, or who reads it, is bounded here: such a record is refused whole.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from forkd.rpc.message import Message

ID: Final = r"^[0-9A-Z]{15,20}\Z"
"""A session's or a queue id, as queue/ids.py makes them: nothing else can be asked for."""
WRITER: Final = r"^[a-z]{1,16}\.[0-9]{1,6}\Z"
"""A process' name in the log: role and slot."""
MOST_IDS: Final = 1000
"""Of one story; tracing.RECORD_BYTES has no room for so many events that tell of one."""

Id = Annotated[str, msgspec.Meta(pattern=ID)]
Writer = Annotated[str, msgspec.Meta(pattern=WRITER)]
Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Unix time; no NaN, and until the year 5138 a date can be made of it."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
"""Sums of two fit SQLite's integer."""

Event = tuple[float, str, dict[str, Any]]
"""Unix time, name and fields of an event of the log; fields are strangers' words, cut to a bound."""


class Story(msgspec.Struct, frozen=True, array_like=True):
    """What happened lately to one session, or to a message of which no session is known.

    key     the session's id, else the queue id
    ids     queue ids that are told of for the first time under that session
    at      Unix time of the first event
    begins  the session's first event is here
    events  msgpack of an array of Event: admin keeps it as it is, and reads it when somebody asks
    """

    key: Id
    ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=MOST_IDS)]
    at: Time
    begins: bool
    events: msgspec.Raw


class Traces(Message, frozen=True, tag="traces"):
    """What a process has observed since its last record; an empty one tells that it is still there.

    writer   its name in the log, `worker.0`
    since    Unix time of its start: with its pid, who it is
    before   events that it has told of before this record
    count    events in this record
    dropped  events between the last record and this one that it could not keep
    ended    it ends in order, and this is its last record
    """

    writer: Writer
    since: Time
    before: Count
    count: Count
    dropped: Count = 0
    stories: tuple[Story, ...] = ()
    ended: bool = False
