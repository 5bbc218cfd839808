"""Which command is in order now, and what comes after it? The whole state machine, as one table.

House rules: a state is what the client may do next, nothing else; a verb missing from a state's row
is out of order there; the state named is entered when the command is accepted. A refused command
leaves the state alone, with two exceptions: whatever the answer to the end of data, the transaction
is over (RFC 5321 4.1.1.4), and so it is when the caller refuses DATA or a chunk: the message was
turned down, and the client may start anew with MAIL. 334 neither accepts nor refuses AUTH: it enters AUTH.

    GREETING -> FRESH --EHLO--> READY --MAIL--> MAIL --RCPT--> RCPT --DATA--> DATA --"."--> READY

    READY --AUTH, 334--> AUTH --235--> READY      RCPT --BDAT--> DATA --chunk read--> CHUNKS --BDAT--> DATA
    FRESH, READY --STARTTLS--> TLS --secured()--> FRESH

What a listener does not offer, or only later, is taken out of these rows by terms.py.
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
    CHUNKS = 8
    """Part of a message came with BDAT: the next chunk, or RSET."""
    AUTH = 9
    """A challenge was sent: what comes is the response (RFC 4954 4)."""
    TLS = 10
    """220 to STARTTLS was sent: nothing is read until TLS holds (RFC 3207)."""


END_OF_DATA = "."
"""No verb: stands in the table for CRLF.CRLF, and for the end of the last chunk."""
END_OF_CHUNK = "chunk"
"""No verb: the end of a chunk that is not the last."""
RESPONSE = "response"
"""No verb: a line that answers a challenge."""

_ANYWHERE = ("NOOP", "VRFY", "EXPN", "HELP")
"""Before HELO too (RFC 5321 4.1.4), and without effect on the state."""


def _row(here: State, *, rset: State, **others: State) -> dict[str, State]:
    row = dict.fromkeys(_ANYWHERE, here)
    row.update(HELO=State.READY, EHLO=State.READY, RSET=rset, QUIT=State.CLOSED, **others)
    return row


TRANSITIONS: Mapping[State, Mapping[str, State]] = {
    State.GREETING: {},
    State.FRESH: _row(State.FRESH, rset=State.FRESH, STARTTLS=State.TLS, XCLIENT=State.FRESH),
    State.READY: _row(
        State.READY,
        rset=State.READY,
        MAIL=State.MAIL,
        AUTH=State.READY,
        STARTTLS=State.TLS,
        XCLIENT=State.FRESH,
    ),
    State.MAIL: _row(State.MAIL, rset=State.READY, RCPT=State.RCPT),
    State.RCPT: _row(State.RCPT, rset=State.READY, RCPT=State.RCPT, DATA=State.DATA, BDAT=State.DATA),
    State.DATA: {END_OF_DATA: State.READY, END_OF_CHUNK: State.CHUNKS},
    State.CHUNKS: _row(State.CHUNKS, rset=State.READY, BDAT=State.DATA),
    State.AUTH: {RESPONSE: State.READY},
    State.TLS: {},
    State.REFUSED: {"QUIT": State.CLOSED},
    State.CLOSED: {},
}
"""Per state: the verbs in order, and the state after each where it is accepted."""

_OUT_OF_ORDER: Mapping[tuple[State, str], Reply] = {
    **{(State.FRESH, verb): replies.HELO_FIRST for verb in ("MAIL", "RCPT", "DATA", "BDAT", "AUTH")},
    **{(State.READY, verb): replies.MAIL_FIRST for verb in ("RCPT", "DATA", "BDAT")},
    **{(state, "MAIL"): replies.NESTED_MAIL for state in (State.MAIL, State.RCPT, State.CHUNKS)},
    # 554 (RFC 5321 3.3): a pipelining client sees why
    **{(State.MAIL, verb): replies.NO_RECIPIENTS for verb in ("DATA", "BDAT")},
    **{(State.CHUNKS, verb): replies.NOT_AFTER_CHUNK for verb in ("RCPT", "DATA")},
}


def out_of_order(state: State, verb: str) -> Reply:
    """What a verb is answered that TRANSITIONS does not have in this state."""
    if state is State.REFUSED:
        return replies.REFUSED_BEFORE
    return _OUT_OF_ORDER.get((state, verb), replies.BAD_SEQUENCE)
