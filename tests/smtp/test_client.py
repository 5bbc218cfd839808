"""ClientConnection: what it says, and what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.smtp.client import ClientConnection, ProtocolError
from forkd.smtp.client_events import BodyWanted, Closed, Denied, Finished, Greeted, Ready, TlsReady, WasReset
from forkd.smtp.client_mail import OutgoingMail, OutgoingRecipient
from forkd.smtp.client_phases import TIMEOUT_S, ClientOptions, Phase
from tests.support.client_talk import MESSAGE, Scripted, Talk, client, mail, single

PIPELINING = b"250-mx\r\n250 PIPELINING\r\n"
CHUNKING = b"250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
WAYS = pytest.mark.parametrize(
    "ehlo",
    [b"250 mx\r\n", PIPELINING, b"250-mx\r\n250 CHUNKING\r\n", CHUNKING],
    ids=["plain", "pipe", "bdat", "both"],
)


def talk(
    answers: dict[str, list[bytes]], *mails: OutgoingMail, ehlo: bytes = PIPELINING, **options: Any
) -> Talk:
    """One dialogue, the same whole and octet by octet."""
    cut = Talk(client(**options), Scripted(answers, ehlo=ehlo), list(mails or [mail()]), cut=single).run()
    whole = Talk(client(**options), Scripted(answers, ehlo=ehlo), list(mails or [mail()])).run()
    assert cut.events == whole.events
    assert cut.octets == whole.octets
    return whole


def opened(ehlo: bytes = PIPELINING, **options: Any) -> ClientConnection:
    """After EHLO."""
    made = client(**options)
    made.receive_data(b"220 mx\r\n")
    assert isinstance(made.next_event(), Greeted)
    made.hello()
    made.data_to_send()
    made.receive_data(ehlo)
    assert isinstance(made.next_event(), Ready)
    return made


def in_body(ehlo: bytes = PIPELINING, *recipients: str, **options: Any) -> ClientConnection:
    """The message may go."""
    made = opened(ehlo, **options)
    sent = mail(*recipients)
    made.send(sent)
    made.data_to_send()
    made.receive_data(b"250 ok\r\n" * (1 + len(sent.recipients)))
    if b"CHUNKING" not in ehlo:
        assert made.next_event() is None
        made.data_to_send()
        made.receive_data(b"354 go\r\n")
    assert made.next_event() == BodyWanted()
    return made


class TestOpening:
    """RFC 5321 3.1, 3.2."""

    @pytest.mark.parametrize("code", [421, 450, 521, 550, 554])
    def test_a_refusal_to_greet_leaves_quit_only(self, code: int) -> None:
        """521 and 554 are no service, 421 closes."""
        got = talk({"GREETING": [b"%d-no\r\n%d service\r\n" % (code, code)]})
        if code == 421:
            assert (got.end.cause, got.end.phase, got.octets) == ("shutdown", Phase.GREETING, b"")
        else:
            assert got.events[0] == Denied(Phase.GREETING, got.events[0].reply)  # type: ignore[union-attr]
            assert got.octets == b"QUIT\r\n"

    @pytest.mark.parametrize("code", [500, 501, 502, 504, 550, 554])
    def test_helo_where_ehlo_is_refused(self, code: int) -> None:
        """Whatever the code; nothing is offered then, and mail goes all the same."""
        got = talk({"EHLO": [b"%d what\r\n" % code]})
        assert b"HELO client.example.org\r\nMAIL FROM:<sender@example.org>\r\n" in got.octets
        assert got.statuses == ["delivered"]

    def test_no_helo_after_4xx_nor_twice(self) -> None:
        """What is temporary says nothing of EHLO; who refuses HELO too is not asked again."""
        assert talk({"EHLO": [b"451 later\r\n"]}).octets == b"EHLO client.example.org\r\nQUIT\r\n"
        got = talk({"EHLO": [b"500 what\r\n"], "HELO": [b"500 what\r\n"]})
        assert got.octets == b"EHLO client.example.org\r\nHELO client.example.org\r\nQUIT\r\n"

    def test_no_helo_in_lmtp(self) -> None:
        """RFC 2033 4.1: LHLO, and neither of the others."""
        got = talk({"LHLO": [b"500 what\r\n"]}, lmtp=True)
        assert got.octets == b"LHLO client.example.org\r\nQUIT\r\n"

    @pytest.mark.parametrize("name", ["", "a b", "a\r\nQUIT", "é.example", "x" * 300])
    def test_a_name_that_ehlo_cannot_have_is_the_callers_mistake(self, name: str) -> None:
        """Nothing is injected by configuration."""
        with pytest.raises(ValueError, match="hostname"):
            ClientOptions(hostname=name)


class TestStartTls:
    """RFC 3207, and what an attacker in the middle may try before it."""

    EHLO = b"250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"

    def test_all_that_was_said_in_the_clear_is_forgotten(self) -> None:
        """EHLO is said again; what it offers then counts."""
        server = Scripted({"EHLO": [self.EHLO, b"250 mx\r\n"], "STARTTLS": [b"220 go\r\n"]})
        got = Talk(client(), server, tls=True).run()
        assert got.sent[:3] == [
            b"EHLO client.example.org\r\n",
            b"STARTTLS\r\n",
            b"EHLO client.example.org\r\n",
        ]
        assert got.connection.secure
        assert got.connection.offered is not None
        assert got.connection.offered.auth == ()
        assert got.statuses == ["delivered"]

    @pytest.mark.parametrize("behind", [b"\n", b"2", b"250 mx\r\n", b"\x16\x03"])
    def test_octets_behind_the_reply_are_refused(self, behind: bytes) -> None:
        """They came in the clear, and would be read as if they had come under TLS (CVE-2011-0411)."""
        made = opened(self.EHLO)
        made.starttls()
        made.receive_data(b"220 go\r\n" + behind)
        closed = made.next_event()
        assert isinstance(closed, Closed)
        assert closed.cause == "violation"

    def test_octets_after_the_event_are_refused_too(self) -> None:
        """However they are cut."""
        made = opened(self.EHLO)
        made.starttls()
        made.receive_data(b"220 go\r\n")
        assert made.next_event() == TlsReady()
        assert made.phase is Phase.TLS
        made.receive_data(b"2")
        assert isinstance(made.next_event(), Closed)

    def test_octets_before_it_are_refused(self) -> None:
        """An answer that is there before the question is an attacker's."""
        made = opened(self.EHLO)
        made.receive_data(b"220 go\r\n")
        made.starttls()
        assert isinstance(made.next_event(), Closed)
        assert made.data_to_send() == b""

    def test_a_refusal_leaves_the_connection(self) -> None:
        """454: whether mail may go in the clear is the caller's to say."""
        got = Talk(client(), Scripted({"STARTTLS": [b"454 not now\r\n"]}, ehlo=self.EHLO), tls=True).run()
        assert got.statuses == ["delivered"]
        assert not got.connection.secure


class TestTransaction:
    """MAIL, RCPT, DATA and their replies."""

    @WAYS
    def test_a_refused_sender_is_every_recipients(self, ehlo: bytes) -> None:
        """Whatever else was said meanwhile."""
        said = {"MAIL": [b"550 5.7.1 no\r\n"], "RCPT": [b"503 no\r\n"], "DATA": [b"503 no\r\n"]}
        got = talk(said, mail("a@b.c", "d@e.f"), ehlo=ehlo)
        assert got.statuses == ["permanent"] * 2
        assert {one.phase for one in got.outcomes} == {Phase.MAIL}
        assert {one.reply.enhanced for one in got.outcomes if one.reply} == {"5.7.1"}

    @WAYS
    def test_each_recipient_has_its_own_outcome(self, ehlo: bytes) -> None:
        """In the order of the mail's."""
        said = {"RCPT": [b"250 ok\r\n", b"450 later\r\n", b"550 no\r\n", b"251 will forward\r\n"]}
        got = talk(said, mail("a@b.c", "d@b.c", "e@b.c", "f@b.c"), ehlo=ehlo)
        assert got.statuses == ["delivered", "temporary", "permanent", "delivered"]
        assert [one.phase for one in got.outcomes] == [Phase.END, Phase.RCPT, Phase.RCPT, Phase.END]

    @WAYS
    def test_no_message_where_nobody_is_accepted(self, ehlo: bytes) -> None:
        """And the next transaction begins with RSET."""
        said = {"RCPT": [b"550 no\r\n", b"250 ok\r\n"], "DATA": [b"503 no\r\n", b"354 go\r\n"]}
        if ehlo == b"250 mx\r\n":
            said["DATA"] = [b"354 go\r\n"]
        got = talk(said, mail("a@b.c"), mail("d@b.c"), ehlo=ehlo)
        assert got.statuses == ["permanent", "delivered"]
        assert len(got.server.messages) == 1
        assert b"RSET\r\nMAIL" in got.octets

    def test_354_for_nobody_is_ended_with_a_dot(self) -> None:
        """RFC 2920 3.1: DATA was pipelined and taken; the outcome is RCPT's."""
        got = talk({"RCPT": [b"550 no\r\n"], ".": [b"554 no recipients\r\n"]})
        assert got.statuses == ["permanent"]
        assert b"DATA\r\n.\r\nQUIT" in got.octets

    def test_354_for_a_refused_sender_is_not_followed(self) -> None:
        """Recipients stand: a dot would deliver an empty message to them."""
        got = talk({"MAIL": [b"550 no\r\n"]})
        assert (got.statuses, got.end.cause) == (["permanent"], "abandoned")
        assert b"\n.\r\n" not in got.octets

    @pytest.mark.parametrize(
        ("reply", "status"),
        [
            (b"552 too many\r\n", "temporary"),
            (b"552 5.5.3 too many\r\n", "temporary"),
            (b"552 5.2.2 mailbox full\r\n", "permanent"),
            (b"452 4.5.3 too many\r\n", "temporary"),
            (b"553 no\r\n", "permanent"),
        ],
        ids=lambda value: value[:9].decode() if isinstance(value, bytes) else value,
    )
    def test_552_to_rcpt_once_meant_too_many(self, reply: bytes, status: str) -> None:
        """RFC 5321 4.5.3.1.10."""
        assert talk({"RCPT": [reply]}).statuses == [status]

    @WAYS
    @pytest.mark.parametrize("code", [250, 450, 554])
    def test_the_end_of_the_message_decides(self, ehlo: bytes, code: int) -> None:
        """And what was refused there needs no RSET: the transaction is over (RFC 5321 4.1.1.4)."""
        got = talk({".": [b"%d x\r\n" % code]}, mail("a@b.c", "d@b.c"), mail(), ehlo=ehlo, chunk_octets=5)
        status = {250: "delivered", 450: "temporary", 554: "permanent"}[code]
        assert got.statuses == [status] * 3
        assert b"RSET" not in got.octets

    def test_commands_are_pipelined_but_not_without_end(self) -> None:
        """A hundred at a time, so that neither side waits for the other to read."""
        got = talk({}, mail(*(f"u{i}@b.c" for i in range(250))))
        assert got.statuses == ["delivered"] * 250
        assert got.octets.count(b"DATA\r\n") == 1
        made = opened()
        made.send(mail(*(f"u{i}@b.c" for i in range(250))))
        assert made.data_to_send().count(b"\r\n") == 100

    def test_a_refused_chunk_ends_the_transaction(self) -> None:
        """RFC 3030 2: nothing of the message counts any more."""
        got = talk(
            {"BDAT": [b"452 4.3.1 full\r\n"]},
            mail("a@b.c"),
            ehlo=b"250-mx\r\n250 CHUNKING\r\n",
            chunk_octets=5,
        )
        assert got.statuses == ["temporary"]
        assert got.server.messages == []
        assert got.end.cause == "quit"
        got = talk({"BDAT": [b"452 4.3.1 full\r\n"]}, ehlo=CHUNKING, chunk_octets=5)
        assert (got.statuses, got.end.cause) == (["temporary"], "abandoned")

    def test_a_refusal_before_the_end_is_heard(self) -> None:
        """It is the answer; the message cannot be stopped but by closing, and no dot is sent."""
        made = in_body()
        made.body(b"a\r\n")
        made.data_to_send()
        made.receive_data(b"552 5.3.4 enough\r\n")
        done = made.next_event()
        assert isinstance(done, Finished)
        assert done.outcomes[0].status == "permanent"
        assert isinstance(made.next_event(), Closed)
        assert made.data_to_send() == b""

    def test_nothing_else_is_in_order_meanwhile(self) -> None:
        """One thing at a time."""
        made = in_body()
        for ask in (made.hello, made.rset, made.quit, made.starttls, lambda: made.send(mail())):
            with pytest.raises(ProtocolError):
                ask()

    def test_an_idle_connection_can_be_tried(self) -> None:
        """RSET, before it is trusted with a mail."""
        made = opened()
        made.rset()
        assert made.data_to_send() == b"RSET\r\n"
        made.receive_data(b"250 ok\r\n")
        assert made.next_event() == WasReset()
        assert made.phase is Phase.IDLE


class TestLmtp:
    """RFC 2033."""

    @WAYS
    def test_a_reply_for_each_accepted_recipient(self, ehlo: bytes) -> None:
        """In the order of RCPT; those that were refused have none."""
        said = {
            "RCPT": [b"250 ok\r\n", b"550 no\r\n", b"250 ok\r\n", b"250 ok\r\n"],
            ".": [b"250 2.1.5 one\r\n452 4.2.2 full\r\n550 5.2.1 off\r\n"],
        }
        addresses = ("a@b.c", "d@b.c", "e@b.c", "f@b.c")
        got = talk(said, mail(*addresses), ehlo=ehlo, lmtp=True)
        assert got.statuses == ["delivered", "permanent", "temporary", "permanent"]
        assert [one.reply.enhanced for one in got.outcomes if one.reply] == ["2.1.5", None, "4.2.2", "5.2.1"]

    def test_lost_between_the_replies(self) -> None:
        """Who has a reply has it; of the others nobody knows."""
        said = {".": [b"250 one\r\n550 two\r\n"]}
        got = talk(said, mail("a@b.c", "d@b.c", "e@b.c"), lmtp=True)
        assert got.statuses == ["delivered", "permanent", "temporary"]
        assert [one.uncertain for one in got.outcomes] == [False, False, True]

    def test_421_between_the_replies(self) -> None:
        """It is the one recipient's; the others have none."""
        said = {".": [b"250 one\r\n421 4.3.2 bye\r\n"]}
        got = talk(said, mail("a@b.c", "d@b.c", "e@b.c"), lmtp=True)
        assert got.statuses == ["delivered", "temporary", "temporary"]
        assert [one.uncertain for one in got.outcomes] == [False, False, True]
        assert got.end.cause == "shutdown"


class TestEnds:
    """421 and the end of the connection, at any step."""

    @WAYS
    @pytest.mark.parametrize("verb", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", ".", "QUIT"])
    def test_421_at_any_time(self, ehlo: bytes, verb: str) -> None:
        """RFC 5321 3.8; every recipient is to be tried again."""
        got = talk({verb: [b"421 4.3.2 bye\r\n"]}, mail("a@b.c", "d@b.c"), ehlo=ehlo, chunk_octets=5)
        if verb not in ("GREETING", "EHLO", "QUIT") and not (
            (verb == "DATA" and b"CHUNKING" in ehlo) or (verb == "BDAT" and b"CHUNKING" not in ehlo)
        ):
            assert got.statuses == ["temporary"] * 2
            assert got.end.cause == "shutdown"
            assert not any(one.uncertain for one in got.outcomes)

    @WAYS
    @pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "BDAT", ".", "QUIT"])
    def test_the_connection_is_lost_at_any_step(self, ehlo: bytes, verb: str) -> None:
        """Uncertain only where the whole message had gone (RFC 1047)."""
        if (verb == "DATA" and b"CHUNKING" in ehlo) or (verb == "BDAT" and b"CHUNKING" not in ehlo):
            return  # that verb is not said on this way
        server = Scripted({verb: [b""]}, ehlo=ehlo)
        if verb != "QUIT":
            server.answers |= {one: [b""] for one in ("DATA", "BDAT", ".") if verb != "."}
        got = Talk(client(chunk_octets=5), server, [mail("a@b.c", "d@b.c")]).run()
        if verb == "QUIT":
            assert (got.statuses, got.end.cause) == (["delivered"] * 2, "quit")
        else:
            assert got.statuses == ["temporary"] * 2
            assert all(one.uncertain == (verb == ".") for one in got.outcomes)
            assert got.end.cause == "lost"

    def test_a_timeout_in_the_message(self) -> None:
        """No dot follows: what was begun is thrown away."""
        made = in_body()
        made.body(b"a\r\n")
        made.lost("timeout")
        assert made.data_to_send() == b""
        done = made.next_event()
        assert isinstance(done, Finished)
        assert (done.outcomes[0].why, done.outcomes[0].uncertain) == ("timeout", False)
        assert made.next_event() == Closed("lost", Phase.BODY, None, "timeout")
        assert made.phase is Phase.CLOSED

    def test_half_a_reply_is_none(self) -> None:
        """The line end is what makes it one."""
        made = in_body()
        made.end_body()
        made.receive_data(b"250 o")
        made.receive_data(b"")
        done = made.next_event()
        assert isinstance(done, Finished)
        assert done.outcomes[0].uncertain

    def test_every_wait_has_a_timeout(self) -> None:
        """RFC 5321 4.5.3.2; what waits for nothing has none."""
        assert set(Phase) - set(TIMEOUT_S) == {Phase.IDLE, Phase.CLOSED}
        assert TIMEOUT_S[Phase.END] == 600
        assert in_body().phase is Phase.BODY


def test_dsn_parameters_go_where_they_are_offered() -> None:
    """RFC 3461 5.2.1; and nowhere else."""
    sent = OutgoingMail(
        "",
        (OutgoingRecipient("a@b.c", ("SUCCESS", "DELAY"), "rfc822;x+2By@z"),),
        size=10,
        ret="HDRS",
        envid="id+2B1",
    )
    line = (
        b"MAIL FROM:<> SIZE=10 RET=HDRS ENVID=id+2B1\r\n"
        b"RCPT TO:<a@b.c> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@z\r\n"
    )
    assert line in talk({}, sent, ehlo=b"250-mx\r\n250-DSN\r\n250-PIPELINING\r\n250 SIZE\r\n").octets
    assert b"MAIL FROM:<>\r\nRCPT TO:<a@b.c>\r\n" in talk({}, sent).octets


def test_the_message_goes_as_it_is() -> None:
    """Whatever the way."""
    for ehlo in (PIPELINING, CHUNKING):
        got = talk({}, ehlo=ehlo, chunk_octets=11)
        assert got.server.messages == [MESSAGE if ehlo == CHUNKING else MESSAGE.replace(b"\r\n.", b"\r\n..")]
