"""Which command is in order now, and what comes after it? The whole state machine, as one table.

House rules: a state is what the client may do next, nothing else; a verb missing from a state's row
is out of order there; the state named is entered when the command is accepted. A refused command
leaves the state alone, with two exceptions: whatever the answer to the end of data, the transaction
is over (RFC 5321 4.1.1.4), and so it is when the caller refuses DATA: the message was turned down,
and the client may start anew with MAIL.

    GREETING -> FRESH --EHLO--> READY --MAIL--> MAIL --RCPT--> RCPT --DATA--> DATA --"."--> READY
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from forkd.smtp import replies
from forkd.smtp.reply import Reply


class ProtocolError(Exception):
    """The caller misused the engine: a reply nobody waits for, or one that cannot answer the event.

    Never the peer's doing. In the worker it is a bug, which ends the session with 421 4.3.0.
    """


class State(enum.IntEnum):  # an integer, because its hash is taken for every command
    """What the client may do next."""

    GREETING = 0
    """Nothing yet: we speak first (RFC 5321 3.1)."""
    FRESH = 1
    """Greeted: HELO or EHLO, or what needs neither."""
    READY = 2
    """Known by name, no transaction."""
    MAIL = 3
    """A sender stands, no recipient yet."""
    RCPT = 4
    """A sender and at least one recipient stand."""
    DATA = 5
    """354 was sent: what comes is the message, until its end has been answered."""
    REFUSED = 6
    """The greeting was a refusal: 503 to all but QUIT (RFC 5321 3.1)."""
    CLOSED = 7
    """Nothing more is read."""


END_OF_DATA = "."
"""No verb: stands in the table for CRLF.CRLF."""

_ANYWHERE = ("NOOP", "VRFY", "EXPN", "HELP")
"""Before HELO too (RFC 5321 4.1.4), and without effect on the state."""


def _row(here: State, *, rset: State, **others: State) -> dict[str, State]:
    row = dict.fromkeys(_ANYWHERE, here)
    row.update(HELO=State.READY, EHLO=State.READY, RSET=rset, QUIT=State.CLOSED, **others)
    return row


TRANSITIONS: Mapping[State, Mapping[str, State]] = {
    State.GREETING: {},
    State.FRESH: _row(State.FRESH, rset=State.FRESH),
    State.READY: _row(State.READY, rset=State.READY, MAIL=State.MAIL),
    State.MAIL: _row(State.MAIL, rset=State.READY, RCPT=State.RCPT),
    State.RCPT: _row(State.RCPT, rset=State.READY, RCPT=State.RCPT, DATA=State.DATA),
    State.DATA: {END_OF_DATA: State.READY},
    State.REFUSED: {"QUIT": State.CLOSED},
    State.CLOSED: {},
}
"""Per state: the verbs in order, and the state after each where it is accepted."""

_OUT_OF_ORDER: Mapping[tuple[State, str], Reply] = {
    (State.FRESH, "MAIL"): replies.HELO_FIRST,
    (State.FRESH, "RCPT"): replies.HELO_FIRST,
    (State.FRESH, "DATA"): replies.HELO_FIRST,
    (State.READY, "RCPT"): replies.MAIL_FIRST,
    (State.READY, "DATA"): replies.MAIL_FIRST,
    (State.MAIL, "MAIL"): replies.NESTED_MAIL,
    (State.RCPT, "MAIL"): replies.NESTED_MAIL,
    (State.MAIL, "DATA"): replies.NO_RECIPIENTS,  # 554 (RFC 5321 3.3): a pipelining client sees why
}


def out_of_order(state: State, verb: str) -> Reply:
    """What a verb is answered that TRANSITIONS does not have in this state."""
    if state is State.REFUSED:
        return replies.REFUSED_BEFORE
    return _OUT_OF_ORDER.get((state, verb), replies.BAD_SEQUENCE)
