"""What do our processes tell admin of sessions and messages, for `forkd explain`? One record, no answer.

    worker, qmgr, broker -> admin    Traces

All of them have the write end of one pair of SEQPACKET sockets, admin has the read end, master keeps both:
while admin is being restarted records wait in the socket, and nobody waits for admin. Who sent a record the
kernel says (SCM_CREDENTIALS), not the record.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from forkd.rpc.message import Message

MAX_KEY = 24
"""Characters of a session's or a queue id (queue/ids.py: 20 at most)."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)]

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
    ids: tuple[Id, ...]
    at: float
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

    writer: Annotated[str, msgspec.Meta(max_length=64)]
    since: float
    before: int
    count: int
    dropped: int = 0
    stories: tuple[Story, ...] = ()
    ended: bool = False
