"""AUTH: the command, its place, the lines of its exchange (RFC 4954)."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from forkd.smtp import events, replies
from forkd.smtp.events import Auth, AuthData, Event
from forkd.smtp.lines import AUTH_LINE_OCTETS
from forkd.smtp.reply import Reply, reply
from forkd.smtp.server import ProtocolError, ServerConnection, State
from tests.support.feed import (
    OPEN,
    Start,
    accept,
    after,
    asked,
    codes,
    converse,
    drain,
    feed,
    fresh,
    in_rcpt,
    kinds,
    play,
    ready,
    refusals,
    refuse,
)

ASK = replies.challenge(b"more")


def exchange(*answers: Reply, **options: Any) -> Start:
    """After EHLO, where AUTH is answered with these."""
    return ready(lambda c, e: _answer(c, e, answers), **{**OPEN, **options})


def _answer(connection: ServerConnection, event: Event, answers: tuple[Reply, ...]) -> Reply:
    # Stateless, so that one Start serves many runs: the first answer is AUTH's, the last one all others'.
    if isinstance(event, Auth):
        return answers[0]
    if isinstance(event, AuthData) and event.data is not None:
        return answers[-1]
    return accept(connection, event)


class TestAuth:
    """RFC 4954."""

    @pytest.mark.parametrize(
        ("line", "event"),
        [
            (b"AUTH PLAIN", Auth("PLAIN", None)),
            (b"auth plain AGEAYg==", Auth("PLAIN", b"\0a\0b")),
            (b"AUTH PLAIN =", Auth("PLAIN", b"")),
            (b"AUTH scram-sha-256  biws", Auth("SCRAM-SHA-256", b"n,,")),
        ],
    )
    def test_the_initial_response_comes_decoded(self, line: bytes, event: Auth) -> None:
        """`=` is an empty one, nothing is none (RFC 4954 4)."""
        assert feed(ready(**OPEN), line + b"\r\n") == [event]

    @pytest.mark.parametrize(
        ("line", "refusal"),
        [
            (b"AUTH", replies.AUTH_SYNTAX),
            (b"AUTH PLAIN AA== AA==", replies.AUTH_SYNTAX),
            (b"AUTH \xff", replies.AUTH_SYNTAX),
            (b"AUTH LOGIN", replies.AUTH_UNKNOWN),
            (b"AUTH *", replies.AUTH_UNKNOWN),
            (b"AUTH PLAIN AGEAYg", replies.AUTH_NOT_BASE64),
            (b"AUTH PLAIN AGEAYg=", replies.AUTH_NOT_BASE64),
            (b"AUTH PLAIN ====", replies.AUTH_NOT_BASE64),
            (b"AUTH PLAIN A===", replies.AUTH_NOT_BASE64),
            (b"AUTH PLAIN *", replies.AUTH_NOT_BASE64),
            (b"AUTH PLAIN AG\0A", replies.AUTH_NOT_BASE64),
            (b"AUTH PLAIN AGEA-_==", replies.AUTH_NOT_BASE64),
        ],
    )
    def test_what_is_wrong_has_its_reply(self, line: bytes, refusal: Reply) -> None:
        """501 5.5.4, 504 5.5.4, 501 5.5.2 (RFC 4954 4, 6)."""
        heard = converse(ready(**OPEN), line + b"\r\nMAIL FROM:<a@b>\r\n")
        assert refusals(heard.events) == [refusal]
        assert codes(heard.sent)[-1] == 250

    @pytest.mark.parametrize(
        ("start", "code"),
        [
            (fresh(**OPEN), 503),
            (Start((b"HELO a\r\n",), OPEN), 503),
            (in_rcpt(**OPEN), 503),
            (ready(), 502),
            (ready(auth=("PLAIN",)), 538),
            (ready(auth=("PLAIN",), secure=True), 235),
        ],
    )
    def test_it_has_its_place(self, start: Start, code: int) -> None:
        """After EHLO, in no transaction, under TLS unless the listener says otherwise (RFC 4954 4, 6)."""
        assert codes(converse(start, b"AUTH PLAIN AGEAYg==\r\n").sent) == [code]

    def test_once_is_enough(self) -> None:
        """503 after success (RFC 4954 4), not after failure."""
        again = b"AUTH PLAIN AGEAYg==\r\n" * 2
        assert codes(converse(ready(**OPEN), again).sent) == [235, 503]
        failing = ready(refuse(Auth, replies.AUTH_FAILED), **OPEN)
        assert codes(converse(failing, again).sent) == [535, 535]

    def test_an_exchange(self) -> None:
        """334, responses, 235; an empty line is an empty response."""
        start = exchange(ASK, replies.AUTH_OK)
        heard = converse(start, b"AUTH PLAIN\r\nAGEAYg==\r\nNOOP\r\n")
        assert heard.events == [Auth("PLAIN", None), AuthData(b"\0a\0b"), events.Noop()]
        assert codes(heard.sent) == [334, 235, 250]
        assert feed(start, b"AUTH PLAIN\r\n\r\n")[-1] == AuthData(b"")

    def test_the_state_during_and_after_it(self) -> None:
        """Nothing but a response is read until it is over."""
        made = after(exchange(ASK, replies.AUTH_OK), b"AUTH PLAIN\r\n")
        assert (made.state, made.authenticated) == (State.AUTH, False)
        made.receive_data(b"AGEA\r\n")
        drain(made, refuse(AuthData, ASK))
        assert made.state is State.AUTH
        made.receive_data(b"AGEA\r\n")
        drain(made, refuse(AuthData, replies.AUTH_OK))
        assert (made.state, made.authenticated) == (State.READY, True)

    def test_commands_are_responses_until_it_is_over(self) -> None:
        """MAIL is not base64: 501, and the exchange is over; the same line again is a command."""
        heard = converse(exchange(ASK), b"AUTH PLAIN\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\n")
        assert codes(heard.sent) == [334, 501, 250]
        assert refusals(heard.events) == [replies.AUTH_NOT_BASE64]

    def test_the_client_may_give_up(self) -> None:
        """`*` is 501 (RFC 4954 4), and accepting it a mistake of the caller."""
        heard = converse(exchange(ASK), b"AUTH PLAIN\r\n*\r\nNOOP\r\n")
        assert heard.events[1] == AuthData(None)
        assert codes(heard.sent) == [334, 501, 250]
        made = after(exchange(ASK), b"AUTH PLAIN\r\n")
        made.receive_data(b"*\r\n")
        made.next_event()
        for wrong in (replies.AUTH_OK, ASK):
            with pytest.raises(ProtocolError):
                made.send(wrong)

    @pytest.mark.parametrize("answer", [replies.AUTH_FAILED, replies.AUTH_TEMPORARY])
    def test_a_failure_ends_the_exchange(self, answer: Reply) -> None:
        """And leaves the rest as it was: mail may go on where AUTH is not required."""
        heard = converse(exchange(ASK, answer), b"AUTH PLAIN\r\nAGEAYg==\r\nMAIL FROM:<a@b>\r\n")
        assert codes(heard.sent) == [334, answer.code, 250]

    @pytest.mark.parametrize(
        ("start", "lines"),
        [
            (ready(**OPEN), (b"AUTH PLAIN ", b"")),
            (exchange(ASK, replies.AUTH_OK), (b"", b"AUTH PLAIN\r\n")),
        ],
    )
    def test_its_lines_have_12288_octets(self, start: Start, lines: tuple[bytes, bytes]) -> None:
        """RFC 4954 4; one more is 500 5.5.6, and what follows in the line is no command."""
        head, before = lines
        room = (AUTH_LINE_OCTETS - len(head) - 2) // 4 * 4
        data = base64.b64encode(b"x" * (room // 4 * 3))
        assert kinds(play(start, [before + head + data + b"\r\n"]).events)[-1] in (Auth, AuthData)
        heard = play(start, [before + head + data + b"A" * 8, b"NOOP\r\nNOOP\r\n"])
        assert refusals(heard.events) == [replies.AUTH_LINE_TOO_LONG]
        assert kinds(heard.events)[-1] is events.Noop
        assert kinds(heard.events).count(events.Noop) == 1

    def test_other_lines_are_as_short_as_ever(self) -> None:
        """Only AUTH may be long, and only where it is offered: what a client makes us keep is bounded."""
        for start in (ready(**OPEN), exchange(ASK)):
            assert refusals(play(start, [b"NOOP " + b"x" * 2000]).events) == [replies.LINE_TOO_LONG]
        assert refusals(play(ready(), [b"AUTH PLAIN " + b"x" * 2000]).events) == [replies.LINE_TOO_LONG]

    def test_a_bare_lf_ends_the_exchange_too(self) -> None:
        """What stands behind it, up to the CRLF, is nobody's."""
        heard = converse(exchange(ASK), b"AUTH PLAIN\r\nAGEA\nNOOP\r\nNOOP\r\n")
        assert codes(heard.sent) == [334, 500, 250]

    def test_talking_on_behind_a_response_is_a_violation(self) -> None:
        """Each line of an exchange waits for its reply (RFC 4954 4, RFC 2920 3.1)."""
        start = exchange(ASK, replies.AUTH_OK, early_talker="refuse")
        assert refusals(play(start, [b"AUTH PLAIN\r\nAGEA\r\n"]).events) == [replies.EARLY_TALKER]
        heard = play(start, [b"AUTH PLAIN\r\n", b"AGEA\r\nMAIL FROM:<a@b>\r\n"])
        assert refusals(heard.events) == [replies.EARLY_TALKER]

    @pytest.mark.parametrize("answer", [replies.NOOP_OK, replies.START_DATA, reply(220, None, "no")])
    def test_only_334_and_235_go_on(self, answer: Reply) -> None:
        """Anything else below 400 is the caller's mistake."""
        made = asked(ready(**OPEN), b"AUTH PLAIN\r\n", Auth)
        with pytest.raises(ProtocolError):
            made.send(answer)

    def test_secrets_are_in_no_repr(self) -> None:
        """Whoever logs an event by mistake logs no password."""
        assert "b" not in repr(Auth("PLAIN", b"\0b\0b")).replace("object", "")[len("Auth(mechanism=") :]
        assert "hunter" not in repr(AuthData(b"hunter2"))
