"""The connection: order, effects of replies, lines, limits, early talkers, misuse."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from forkd.smtp import events, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Data, DataEnd, Event, Hello, Mail, Quit, Rcpt, Refused
from forkd.smtp.lines import MAX_SKIPPED_OCTETS
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply, reply
from forkd.smtp.server import ProtocolError, ServerConnection, State
from tests.support.feed import (
    Start,
    accept,
    after,
    asked,
    codes,
    converse,
    drain,
    feed,
    fresh,
    in_data,
    in_mail,
    in_rcpt,
    kinds,
    message,
    pile,
    play,
    ready,
    refusals,
    refuse,
)

USER = Mailbox("user", "test.local")
SENDER = Mailbox("sender", "example.org")
AUTH = {"auth": ("PLAIN",), "auth_needs_tls": False, "errors": 10**9}


def connection(**options: Any) -> ServerConnection:
    """One that has not greeted yet."""
    return ServerConnection(ServerOptions(**{"hostname": "mx.example.org", "message_size": 1000, **options}))


class TestGreeting:
    """RFC 5321 3.1, 4.2."""

    def test_we_speak_first(self) -> None:
        """220 with the host name."""
        assert connection().greeting() == b"220 mx.example.org ESMTP\r\n"

    def test_nothing_is_read_before_it(self) -> None:
        """What came earlier is an early talker's: 554 and closed."""
        early = connection()
        early.receive_data(b"EHLO a\r\n")
        assert early.next_event() is None
        assert early.greeting().startswith(b"554 5.5.1 ")
        assert early.closed

    def test_an_early_talker_may_be_ignored(self) -> None:
        """By setting."""
        early = connection(early_talker="ignore")
        early.receive_data(b"EHLO a\r\n")
        assert early.greeting().startswith(b"220 ")
        assert early.next_event() == Hello("a", True)

    def test_after_a_refusal_only_quit_is_served(self) -> None:
        """554, then 503 to all but QUIT."""
        refused = connection()
        assert refused.greeting(reply(554, "5.7.1", "go away")) == b"554 5.7.1 go away\r\n"
        assert refused.state is State.REFUSED
        for line in (b"EHLO a\r\n", b"MAIL FROM:<a@b>\r\n", b"FOO\r\n", b"NOOP\r\n"):
            refused.receive_data(line)
            assert codes(drain(refused, accept).sent) == [503]
        refused.receive_data(b"QUIT\r\n")
        assert codes(drain(refused, accept).sent) == [221]
        assert refused.closed

    @pytest.mark.parametrize("refusal", [replies.OVERLOAD_CLOSE, reply(554, None, "no", close=True)])
    def test_a_refusal_that_closes_is_the_end(self, refusal: Reply) -> None:
        """421, and whatever has `close`."""
        refused = connection()
        refused.greeting(refusal)
        assert refused.closed

    def test_it_is_sent_once(self) -> None:
        """A second one is the caller's mistake."""
        greeted = connection()
        greeted.greeting()
        with pytest.raises(ProtocolError):
            greeted.greeting()


class TestTransaction:
    """What the replies of the caller make of the dialogue (RFC 5321 3.3, 4.1.4)."""

    def test_a_whole_message(self) -> None:
        """Every act in order, one event each."""
        heard = converse(
            fresh(),
            b"EHLO c.example.org\r\nMAIL FROM:<sender@example.org> SIZE=7 BODY=8BITMIME\r\n"
            b"RCPT TO:<user@test.local>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n",
        )
        assert heard.events == [
            Hello("c.example.org", True),
            Mail(SENDER, {"SIZE": "7", "BODY": "8BITMIME"}, 7, "8BITMIME"),
            Rcpt(USER, {}),
            Data(),
            events.DataChunk(b"hello\r\n"),
            DataEnd(7, None),
            Quit(),
        ]
        assert codes(heard.sent) == [250, 250, 250, 354, 250, 221]

    def test_what_stands_is_to_be_seen(self) -> None:
        """Sender and recipients as accepted."""
        made = after(in_mail(), b"RCPT TO:<user@test.local>\r\nRCPT TO:<Postmaster>\r\n")
        assert made.in_transaction
        assert made.sender == SENDER
        assert made.recipients == (USER, Mailbox("Postmaster", ""))
        assert (made.helo, made.esmtp) == ("client.example.org", True)

    def test_a_refused_mail_leaves_no_sender(self) -> None:
        """RCPT after it is out of order."""
        policy = refuse(Mail, reply(550, "5.7.1", "no"))
        heard = converse(ready(policy), b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        assert codes(heard.sent) == [550, 503]

    def test_a_refused_recipient_is_not_added(self) -> None:
        """DATA then has nobody to go to: 554 (RFC 5321 3.3)."""
        policy = refuse(Rcpt, replies.UNKNOWN_RECIPIENT)
        assert codes(converse(in_mail(policy), b"RCPT TO:<c@d>\r\nDATA\r\n").sent) == [550, 554]
        assert after(in_mail(policy), b"RCPT TO:<c@d>\r\n").recipients == ()

    def test_a_refused_data_starts_no_message_and_ends_the_transaction(self) -> None:
        """What follows is read as commands, because no 354 was given."""
        policy = refuse(Data, reply(451, "4.3.0", "later"))
        heard = converse(in_rcpt(policy), b"DATA\r\nRCPT TO:<c@d>\r\nMAIL FROM:<a@b>\r\n")
        assert codes(heard.sent) == [451, 503, 250]

    @pytest.mark.parametrize("answer", [replies.DATA_OK, replies.LOCAL_ERROR, replies.RELAY_DENIED])
    def test_the_end_of_data_ends_the_transaction(self, answer: Reply) -> None:
        """Whatever it is answered (RFC 5321 4.1.1.4)."""
        made = after(in_data(refuse(DataEnd, answer)), b".\r\n")
        assert made.state is State.READY
        assert not made.in_transaction
        assert (made.sender, made.recipients) == (None, ())

    @pytest.mark.parametrize("line", [b"RSET\r\n", b"EHLO other\r\n", b"HELO other\r\n"])
    def test_rset_and_a_new_hello_clear_everything(self, line: bytes) -> None:
        """RFC 5321 4.1.4, 4.1.1.5."""
        made = after(in_rcpt(), line)
        assert made.state is State.READY
        assert (made.sender, made.recipients) == (None, ())

    def test_a_refused_hello_changes_nothing(self) -> None:
        """The state is the one before the command (RFC 5321 4.1.4)."""
        made = after(in_rcpt(refuse(Hello, reply(550, "5.7.1", "no"))), b"EHLO other\r\n")
        assert made.state is State.RCPT
        assert made.recipients == (USER,)
        assert made.helo == "client.example.org"

    def test_helo_after_ehlo_is_plain_smtp(self) -> None:
        """Parameters are gone with the extensions."""
        heard = converse(ready(), b"HELO a\r\nMAIL FROM:<a@b> SIZE=1\r\nMAIL FROM:<a@b>\r\n")
        assert codes(heard.sent) == [250, 555, 250]

    def test_a_reply_that_closes_ends_it_at_once(self) -> None:
        """What was pipelined behind is not read."""
        made = after(in_mail(refuse(Rcpt, replies.LOCAL_ERROR_CLOSE)), b"RCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n")
        assert made.closed
        assert not made.has_input
        made.receive_data(b"QUIT\r\n")
        assert made.next_event() is None

    def test_nothing_is_read_after_quit(self) -> None:
        """RFC 5321 4.1.1.10."""
        assert kinds(feed(ready(), b"QUIT\r\nMAIL FROM:<a@b>\r\n")) == [Quit]

    def test_the_null_sender(self) -> None:
        """For reports (RFC 5321 4.5.5): a transaction like any other."""
        made = after(ready(), b"MAIL FROM:<>\r\n")
        assert made.sender is None
        assert made.in_transaction


class TestLines:
    """RFC 5321 2.3.8, 4.5.3.1.4."""

    def test_verbs_have_no_case_and_trailing_space_is_tolerated(self) -> None:
        """RFC 5321 2.4, 4.1.1."""
        heard = feed(fresh(), b"ehlo a \r\nmAiL fRoM:<a@b> \t\r\nRCPT to: <c@d>\r\nDATA  \r\n")
        assert kinds(heard) == [Hello, Mail, Rcpt, Data]

    def test_more_spaces_before_an_argument_are_tolerated(self) -> None:
        """As before a path: nothing else can be meant."""
        heard = feed(fresh(), b"EHLO  a\r\nMAIL   FROM:  <a@b>\r\nRCPT  TO:<c@d>\r\nDATA\r\n")
        assert kinds(heard) == [Hello, Mail, Rcpt, Data]
        assert heard[:2] == [Hello("a", True), Mail(Mailbox("a", "b"))]

    @pytest.mark.parametrize(
        "line", [b"", b" ", b"FOO", b" NOOP", b"NOOPX", b"\xff\xfe", b"MAIL\tFROM:<a@b>", b"\0", b"NO\rOP"]
    )
    def test_an_unknown_word_is_500(self, line: bytes) -> None:
        """RFC 5321 4.2.4."""
        assert refusals(feed(ready(), line + b"\r\n")) == [replies.UNKNOWN_COMMAND]

    def test_a_bare_lf_is_refused_at_once_and_what_follows_in_the_line_is_no_command(self) -> None:
        """One line, one reply: the line goes on to its CRLF, so nothing can be injected by a LF."""
        heard = feed(in_mail(), b"RCPT TO:<a@b>\nRCPT TO:<victim@b>\nQUIT\r\nNOOP\r\n")
        assert kinds(heard) == [Refused, events.Noop]
        assert refusals(heard) == [replies.LINE_END]
        assert refusals(feed(ready(), b"NOOP\n")) == [replies.LINE_END]

    def test_a_bare_cr_is_no_line_end(self) -> None:
        """It is an octet that no argument may have."""
        heard = feed(in_mail(), b"RCPT TO:<a@b>\rRCPT TO:<c@d>\r\nNOOP \r\r\n")
        assert [refusal.code for refusal in refusals(heard)] == [501, 500]

    @pytest.mark.parametrize(("octets", "kind"), [(512, events.Noop), (513, Refused)])
    def test_a_line_has_512_octets_with_crlf(self, octets: int, kind: type[Event]) -> None:
        """500 5.5.2 beyond; the rest of the line is no command."""
        line = b"NOOP ".ljust(octets - 2, b"x") + b"\r\n"
        heard = feed(ready(), line + b"NOOP\r\n")
        assert kinds(heard) == [kind, events.Noop]
        assert refusals(heard) in ([], [replies.LINE_TOO_LONG])

    @pytest.mark.parametrize(("octets", "fits"), [(1181, True), (1182, False)])
    def test_mail_has_room_for_its_parameters(self, octets: int, fits: bool) -> None:
        """What each of them adds comes on top of 512 (parameters.py)."""
        line = b"MAIL FROM:<a@b> SIZE=1".ljust(octets - 2) + b"\r\n"
        assert kinds(feed(ready(), line)) == [Mail if fits else Refused]

    def test_a_line_without_end_is_refused_once_and_then_closed(self) -> None:
        """500 as soon as it is too long, 421 when 64 KiB more have not ended it."""
        heard = play(ready(), [b"x" * 10_000] * 10)
        assert refusals(heard.events) == [replies.LINE_TOO_LONG, replies.ENDLESS_LINE]
        whole = pile(ready(), [b"x" * (MAX_SKIPPED_OCTETS + 600) + b"\r\nNOOP\r\n"])
        assert refusals(whole.events) == [replies.LINE_TOO_LONG, replies.ENDLESS_LINE]

    def test_a_browser_is_sent_away(self) -> None:
        """The body of a POST could hold commands: not another line is read."""
        heard = feed(fresh(), b"POST / HTTP/1.1\r\nEHLO a\r\nMAIL FROM:<a@b>\r\n")
        assert refusals(heard) == [replies.NOT_SMTP]

    @pytest.mark.parametrize("verb", [b"TURN", b"SEND", b"etrn x", b"STARTTLS", b"AUTH PLAIN"])
    def test_known_but_not_offered_is_502(self, verb: bytes) -> None:
        """RFC 5321 4.2.4."""
        assert refusals(feed(ready(), verb + b"\r\n")) == [replies.NOT_IMPLEMENTED]


class TestArguments:
    """RFC 5321 4.1.1."""

    @pytest.mark.parametrize(
        ("line", "reply"),
        [
            (b"EHLO", replies.BAD_HELO),
            (b"HELO", replies.BAD_HELO),
            (b"EHLO a b", replies.BAD_HELO),
            (b"MAIL", replies.BAD_MAIL),
            (b"MAIL FROM <a@b>", replies.BAD_MAIL),
            (b"MAIL TO:<a@b>", replies.BAD_MAIL),
            (b"MAIL FROM:", replies.BAD_SENDER),
            (b"MAIL FROM:a@b", replies.BAD_SENDER),
            (b"MAIL FROM:<postmaster>", replies.BAD_SENDER),
            (b"MAIL FROM:<\xc3\xa9@b>", replies.NEEDS_SMTPUTF8),
            (b"MAIL FROM:<a@b>SIZE=1", replies.BAD_PARAMETER),
            (b"MAIL FROM:<a@b> SMTPUTF8=1", replies.NO_VALUE_ALLOWED),
            (b"MAIL FROM:<a@b> SIZE=10000001", replies.MESSAGE_TOO_BIG),
            (b"RSET now", replies.NO_ARGUMENT_ALLOWED),
            (b"QUIT now", replies.NO_ARGUMENT_ALLOWED),
            (b"VRFY", replies.ARGUMENT_NEEDED),
            (b"EXPN", replies.ARGUMENT_NEEDED),
            (b"VRFY \xe9", replies.BAD_CHARACTERS),
            (b"NOOP \0", replies.BAD_CHARACTERS),
        ],
    )
    def test_a_bad_argument_has_its_reply_and_no_effect(self, line: bytes, reply: Reply) -> None:
        """501 for syntax, 552 5.3.4 for a declared size beyond the limit (RFC 1870 6.1)."""
        assert refusals(feed(ready(), line + b"\r\n")) == [reply]
        assert after(ready(), line + b"\r\n").state is State.READY

    @pytest.mark.parametrize(
        ("line", "reply"),
        [
            (b"RCPT TO:<>", replies.BAD_RECIPIENT),
            (b"RCPT TO:<user>", replies.BAD_RECIPIENT),
            (b"RCPT TO:a@b", replies.BAD_RECIPIENT),
            (b"RCPT FROM:<a@b>", replies.BAD_RCPT),
            (b"RCPT TO:<a@b> SIZE=1", replies.UNKNOWN_PARAMETER),
            (b"DATA now", replies.NO_ARGUMENT_ALLOWED),
        ],
    )
    def test_a_bad_argument_in_a_transaction(self, line: bytes, reply: Reply) -> None:
        """The transaction stays what it was."""
        assert refusals(feed(in_rcpt(), line + b"\r\n")) == [reply]
        assert after(in_rcpt(), line + b"\r\n").recipients == (USER,)

    def test_arguments_of_vrfy_expn_help_come_as_written(self) -> None:
        """For the log; before EHLO too (RFC 5321 4.1.4)."""
        heard = feed(fresh(), b"VRFY A b\r\nEXPN l\r\nHELP me\r\nHELP\r\n")
        assert heard == [events.Vrfy("A b"), events.Expn("l"), events.Help("me"), events.Help("")]


class TestLimits:
    """Errors and recipients."""

    def test_recipients_beyond_the_limit_are_put_off_not_refused(self) -> None:
        """452 4.5.3 for each, the accepted ones stand, and it is no error (RFC 5321 4.5.3.1.10)."""
        lines = b"".join(b"RCPT TO:<u%d@test.local>\r\n" % i for i in range(40))
        heard = converse(in_mail(recipients=3, errors=5), lines + b"DATA\r\n")
        assert codes(heard.sent) == [250] * 3 + [452] * 37 + [354]

    def test_the_command_after_too_many_errors_has_421(self) -> None:
        """Whatever it is, and nothing is read behind it."""
        heard = converse(ready(errors=3), b"A\r\nB\r\nC\r\nMAIL FROM:<a@b>\r\nNOOP\r\n")
        assert codes(heard.sent) == [500, 500, 500, 421]
        assert refusals(heard.events)[-1] is replies.TOO_MANY_ERRORS

    def test_a_bad_line_after_too_many_errors_has_421_too(self) -> None:
        """No way round the count."""
        assert codes(converse(ready(errors=1), b"A\r\nB\nC\r\n").sent) == [500, 421]
        assert codes(converse(ready(errors=1), b"A\r\n" + b"x" * 1200).sent) == [500, 421]

    def test_quit_is_still_answered(self) -> None:
        """A client that leaves by itself need not be thrown out."""
        assert codes(converse(ready(errors=1), b"A\r\nQUIT\r\n").sent) == [500, 221]

    def test_the_callers_5xx_count_and_4xx_do_not(self) -> None:
        """4xx says that it is not the client's fault."""
        five = refuse(Rcpt, replies.UNKNOWN_RECIPIENT)
        four = refuse(Rcpt, replies.LOCAL_ERROR)
        lines = b"RCPT TO:<a@b>\r\n" * 3
        assert codes(converse(in_mail(five, errors=2), lines).sent) == [550, 550, 421]
        assert codes(converse(in_mail(four, errors=2), lines).sent) == [451, 451, 451]

    def test_a_refused_message_is_no_error(self) -> None:
        """The bytes of a message say nothing about the client's commands."""
        heard = converse(in_data(errors=1, message_size=1), b"long\r\n.\r\nNOOP\r\n")
        assert codes(heard.sent) == [552, 250]

    def test_an_accepted_message_begins_the_count_anew(self) -> None:
        """As Postfix: errors without mail between. A long list with stale names gets through."""
        made = after(in_rcpt(errors=3), b"A\r\nB\r\nDATA\r\n.\r\n")
        assert made.errors == 0


class TestEarlyTalkers:
    """RFC 2920 3.1: EHLO, DATA, VRFY, EXPN, NOOP end a group; QUIT does, but nothing is read behind it."""

    @pytest.mark.parametrize("line", [b"EHLO a", b"HELO a", b"DATA", b"VRFY a", b"EXPN a", b"NOOP"])
    def test_more_behind_the_last_of_a_group_is_a_violation(self, line: bytes) -> None:
        """554 5.5.1 and closed; the command has no effect."""
        start = in_rcpt(early_talker="refuse")
        heard = play(start, [line + b"\r\nx"])
        assert refusals(heard.events) == [replies.EARLY_TALKER]
        made = after(start, line + b"\r\nx")
        assert made.closed

    def test_it_does_not_depend_on_how_the_octets_were_cut(self) -> None:
        """Only on what is there before the reply."""
        heard = pile(in_rcpt(early_talker="refuse"), [b"DA", b"TA\r", b"\n", b"x"])
        assert refusals(heard.events) == [replies.EARLY_TALKER]

    def test_groups_as_the_standard_has_them_are_served(self) -> None:
        """MAIL RCPT RCPT DATA; message and the next group; RSET and HELP anywhere."""
        heard = play(
            ready(early_talker="refuse"),
            [
                b"RSET\r\nHELP\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n",
                b"one\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
                b"two\r\n.\r\nQUIT\r\nignored",
            ],
        )
        assert codes(heard.sent) == [250, 214, 250, 250, 250, 354, 250, 250, 250, 354, 250, 221]
        assert message(heard.events) == b"one\r\ntwo\r\n"


class TestCaller:
    """What the caller may do, and what is its mistake."""

    def test_an_event_waits_for_its_reply(self) -> None:
        """Until then no other is given, and what arrives is kept."""
        made = ready().connection()
        made.receive_data(b"RSET\r\nHE")
        assert isinstance(made.next_event(), events.Rset)
        assert made.pending
        assert made.next_event() is None
        made.receive_data(b"LP\r\n")
        made.send(replies.RSET_OK)
        assert not made.pending
        assert made.next_event() == events.Help("")

    def test_has_input_tells_when_replies_may_be_joined(self) -> None:
        """True while octets wait, in whatever form."""
        made = ready().connection()
        assert not made.has_input
        made.receive_data(b"RSET\r\nRSET\r\n")
        made.next_event()
        made.send(replies.RSET_OK)
        assert made.has_input
        made.next_event()
        assert not made.has_input
        made.receive_data(b"R")
        assert made.has_input

    @pytest.mark.parametrize(
        ("start", "line", "answer"),
        [
            (ready(), b"NOOP\r\n", replies.START_DATA),
            (in_rcpt(), b"DATA\r\n", replies.DATA_OK),
            (in_rcpt(), b"DATA\r\n", reply(334, None, "what")),
            (ready(), b"FOO\r\n", replies.NOOP_OK),
            (in_data(), b"a\0\r\n.\r\n", replies.DATA_OK),
        ],
    )
    def test_a_reply_that_cannot_answer_the_event_is_a_mistake(
        self, start: Start, line: bytes, answer: Reply
    ) -> None:
        """It raises, and the event still waits."""
        made = asked(start, line, Event)
        before = made.state
        with pytest.raises(ProtocolError):
            made.send(answer)
        assert made.pending
        assert made.state is before

    def test_a_reply_nobody_waits_for_is_a_mistake(self) -> None:
        """But for 421, which may come at any time, once (RFC 5321 3.8)."""
        made = ready().connection()
        with pytest.raises(ProtocolError):
            made.send(replies.NOOP_OK)
        assert made.send(replies.TIMEOUT).startswith(b"421 4.4.2 ")
        assert made.closed
        with pytest.raises(ProtocolError):
            made.send(replies.TIMEOUT)

    @pytest.mark.parametrize("start", [ready(), in_rcpt(), in_data()])
    def test_the_peers_end_is_seen_after_what_it_said(self, start: Start) -> None:
        """Half a line and half a message are nobody's."""
        made = start.connection()
        made.receive_data(b"RSET\r\nMAI")
        made.receive_data(b"")
        drain(made, accept)
        assert made.closed

    def test_many_small_pieces_while_a_reply_is_due_cost_what_one_costs(self) -> None:
        """They are joined once, not moved for each."""
        made = asked(ready(), b"RSET\r\n", events.Rset)
        for _ in range(200_000):
            made.receive_data(b"x")
        made.send(replies.RSET_OK)
        assert isinstance(made.next_event(), Refused)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (in_data(), b"x" * 997 + b"\r\n\n"),
        (in_data(), b"\n.\r\n" * 250),
        (in_mail(recipients=10), b"RCPT TO:<a@b>\r\n" * 60),
        (ready(errors=10**9), b"x" * 1000 + b"\r\n"),
        (ready(), b"RSET\r\n" * 160),
        (in_rcpt(), b"BDAT 500\r\n" + b"x\n" * 250),
        (ready(errors=10**9), b"BDAT 500\r\n" + b"x\n" * 250),
        (ready(refuse(events.Auth, replies.AUTH_FAILED), **AUTH), b"AUTH PLAIN AGEAYg==\r\n" * 50),
        (ready(xclient=True), b"XCLIENT ADDR=192.0.2.1\r\n" * 40),
    ],
)
def test_memory_does_not_grow_with_what_the_peer_sends(start: Start, piece: bytes) -> None:
    """Half a megabyte through the engine leaves no more behind than 100 KB."""
    made = start.connection()

    def send(times: int) -> int:
        for _ in range(times):
            made.receive_data(piece)
            while (event := made.next_event()) is not None:
                if not isinstance(event, events.DataChunk):
                    made.send(start.policy(made, event))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = send(100)
        late = send(500)
    finally:
        tracemalloc.stop()
    assert late - early < 10_000
