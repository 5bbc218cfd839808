"""The state table, and the engine against it."""

from __future__ import annotations

import pytest

from forkd.smtp.commands import COMMANDS
from forkd.smtp.events import Refused
from forkd.smtp.states import END_OF_CHUNK, END_OF_DATA, RESPONSE, TRANSITIONS, State
from tests.support.feed import Start, accept, drain, fresh, in_chunks, in_mail, in_rcpt, ready

OFFERED = {"tls": True, "auth": ("PLAIN",), "auth_needs_tls": False, "xclient": True}
STARTS = {
    State.FRESH: fresh(**OFFERED),
    State.READY: ready(**OFFERED),
    State.MAIL: in_mail(**OFFERED),
    State.RCPT: in_rcpt(**OFFERED),
    State.CHUNKS: in_chunks(**OFFERED),
}
LINES = {
    "EHLO": b"EHLO a\r\n",
    "HELO": b"HELO a\r\n",
    "MAIL": b"MAIL FROM:<a@b>\r\n",
    "RCPT": b"RCPT TO:<a@b>\r\n",
    "VRFY": b"VRFY a\r\n",
    "EXPN": b"EXPN a\r\n",
    "BDAT": b"BDAT 3\r\nabc",
    "AUTH": b"AUTH PLAIN AGEAYg==\r\n",
    "XCLIENT": b"XCLIENT ADDR=192.0.2.1\r\n",
}


def test_the_tables_know_the_same_verbs() -> None:
    """A verb without a place in a state could never be used; a place without a verb neither."""
    verbs = {verb for row in TRANSITIONS.values() for verb in row} - {END_OF_DATA, END_OF_CHUNK, RESPONSE}
    assert verbs == {row.verb for row in COMMANDS.values()}
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("verb", [row.verb for row in COMMANDS.values()])
@pytest.mark.parametrize("state", STARTS, ids=lambda state: state.name)
def test_the_engine_does_what_the_table_says(state: State, verb: str) -> None:
    """In order: accepted, and the named state entered; out of order: 503 or 554, and nothing changed."""
    start: Start = STARTS[state]
    connection = start.connection()
    assert connection.state is state
    connection.receive_data(LINES.get(verb, verb.encode() + b"\r\n"))
    *_, event = drain(connection, accept).events
    target = TRANSITIONS[state].get(verb)
    if target is None:
        assert isinstance(event, Refused)
        assert event.command == verb
        assert event.reply.code == (554 if state is State.MAIL and verb in ("DATA", "BDAT") else 503)
        assert connection.state is state
    else:
        assert not isinstance(event, Refused)
        # A chunk has been read by now, too.
        assert connection.state is (State.CHUNKS if verb == "BDAT" else target)
