"""BDAT: counted chunks, their order, their faults, and what is never read as a command (RFC 3030)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.smtp import events, replies
from forkd.smtp.chunks import ChunkReader
from forkd.smtp.events import ChunkEnd, Data, DataChunk, DataEnd, Quit, Refused
from forkd.smtp.lines import Input
from forkd.smtp.reply import Reply
from forkd.smtp.server import State
from tests.support.feed import (
    Start,
    accept,
    after,
    assert_same,
    codes,
    converse,
    cut,
    drain,
    feed,
    fresh,
    in_chunks,
    in_data,
    in_mail,
    in_rcpt,
    kinds,
    message,
    play,
    ready,
    refuse,
    single,
)

SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@test.local>\r\nDATA\r\n"


def bdat(*chunks: bytes) -> bytes:
    """A message in these chunks, the last one LAST."""
    heads = [b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if i == len(chunks) else b"") for i, chunk in
             enumerate(chunks, 1)]  # fmt: skip
    return b"".join(head + chunk for head, chunk in zip(heads, chunks, strict=True))


def stuffed(text: bytes) -> bytes:
    """The same message as DATA sends it."""
    return b"".join((b"." if line[:1] == b"." else b"") + line for line in text.splitlines(True)) + b".\r\n"


class TestOrder:
    """What comes after what."""

    def test_chunks_are_asked_for_once_and_answered_one_by_one(self) -> None:
        """The first asks as DATA does; each has its reply, the last one that of the message (RFC 3030 2)."""
        heard = converse(in_rcpt(), bdat(b"one\r\n", b"two\r\n", b"three\r\n"))
        assert heard.events == [
            Data(chunked=True),
            DataChunk(b"one\r\n"),
            ChunkEnd(5),
            DataChunk(b"two\r\n"),
            ChunkEnd(5),
            DataChunk(b"three\r\n"),
            DataEnd(17, None),
        ]
        assert codes(heard.sent) == [250, 250, 250]
        assert heard.sent.startswith(b"250 2.0.0 ")

    def test_a_message_may_be_one_chunk(self) -> None:
        """BDAT LAST first: no 354 is ever said."""
        heard = converse(in_rcpt(), bdat(b"all\r\n") + b"NOOP\r\n")
        assert kinds(heard.events) == [Data, DataChunk, DataEnd, events.Noop]
        assert codes(heard.sent) == [250, 250]

    def test_the_last_chunk_may_be_empty(self) -> None:
        """BDAT 0 LAST ends what came before (RFC 3030 2)."""
        heard = converse(in_rcpt(), bdat(b"all\r\n", b""))
        assert heard.events[-1] == DataEnd(5, None)
        assert codes(heard.sent) == [250, 250]

    def test_a_message_may_be_empty(self) -> None:
        """BDAT 0 LAST alone, as a lone dot does."""
        assert converse(in_rcpt(), bdat(b"")).events == [Data(chunked=True), DataEnd(0, None)]

    def test_an_empty_chunk_is_a_chunk(self) -> None:
        """BDAT 0 without LAST says nothing and is answered."""
        assert codes(converse(in_rcpt(), bdat(b"", b"a\r\n", b"", b"")).sent) == [250] * 4

    def test_case_and_spaces_do_not_matter(self) -> None:
        """As in every command (RFC 5321 2.4)."""
        assert codes(converse(in_rcpt(), b"bdat  3  last \r\na\r\n").sent) == [250]

    def test_data_is_refused_once_a_chunk_has_come(self) -> None:
        """503, and the message goes on (RFC 3030 3)."""
        heard = converse(in_chunks(), b"DATA\r\n" + bdat(b"2\r\n"))
        assert codes(heard.sent) == [503, 250]
        assert heard.events[-1] == DataEnd(11, None)

    @pytest.mark.parametrize("line", [b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<a@b>\r\n", b"AUTH PLAIN AA==\r\n"])
    def test_the_envelope_is_closed_between_chunks(self, line: bytes) -> None:
        """503: what the chunks are for was said (RFC 3030 2)."""
        assert codes(converse(in_chunks(auth=("PLAIN",), auth_needs_tls=False), line).sent) == [503]

    @pytest.mark.parametrize("line", [b"NOOP\r\n", b"VRFY a\r\n", b"HELP\r\n"])
    def test_harmless_commands_are_served_between_chunks(self, line: bytes) -> None:
        """And the message goes on."""
        assert converse(in_chunks(), line + bdat(b"2\r\n")).events[-1] == DataEnd(11, None)

    @pytest.mark.parametrize("line", [b"RSET\r\n", b"EHLO other\r\n", b"HELO other\r\n"])
    def test_rset_and_hello_between_chunks_throw_the_message_away(self, line: bytes) -> None:
        """The next BDAT belongs to nothing: read over and refused (RFC 3030 2)."""
        heard = converse(in_chunks(), line + bdat(SMUGGLED) + b"NOOP\r\n")
        assert codes(heard.sent) == [250, 503, 250]
        assert DataEnd not in kinds(heard.events)

    def test_a_second_message_starts_clean(self) -> None:
        """Nothing of the first is left, not its size and not its faults."""
        again = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + bdat(b"good\r\n")
        heard = converse(in_rcpt(message_size=100), bdat(b"bad\0", b"x" * 90) + again)
        assert [e for e in heard.events if isinstance(e, DataEnd)] == [
            DataEnd(96, replies.NUL_IN_MESSAGE),
            DataEnd(6, None),
        ]

    def test_the_end_of_the_peer_within_a_chunk_is_the_end(self) -> None:
        """Half a message is nobody's."""
        made = in_rcpt().connection()
        made.receive_data(b"BDAT 10 LAST\r\nhalf")
        made.receive_data(b"")
        drain(made, accept)
        assert made.closed

    def test_chunks_may_be_pipelined_and_are_no_early_talk(self) -> None:
        """BDAT is not the last of its group: its octets are sent at once (RFC 3030 2, RFC 2920 3.1)."""
        everything = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + bdat(b"one", b"two\r\n") + b"QUIT\r\n"
        heard = play(ready(early_talker="refuse"), [everything])
        assert codes(heard.sent) == [250, 250, 250, 250, 221]


class TestRefused:
    """A chunk that is refused is read over: not one octet of it is a command."""

    @pytest.mark.parametrize(
        ("start", "reply"),
        [
            (fresh(), replies.HELO_FIRST),
            (ready(), replies.MAIL_FIRST),
            (in_mail(), replies.NO_RECIPIENTS),
            (in_rcpt(refuse(Data, replies.NO_SPACE)), replies.NO_SPACE),
            (in_rcpt(refuse(Data, replies.RELAY_DENIED)), replies.RELAY_DENIED),
        ],
    )
    @pytest.mark.parametrize("last", [b"", b" LAST"])
    def test_the_reply_comes_after_the_chunk(self, start: Start, reply: Reply, last: bytes) -> None:
        """RFC 3030 2: accept and discard, then the reply."""
        head = b"BDAT %d%s\r\n" % (len(SMUGGLED), last)
        heard = converse(start, head + SMUGGLED + b"NOOP\r\n")
        assert kinds(heard.events)[-2:] == [Refused, events.Noop]
        assert heard.events[-2] == Refused(reply, "BDAT")
        assert heard.sent == reply.encode() + replies.NOOP_OK.encode()
        made = start.connection()
        made.receive_data(head + SMUGGLED[:-1])
        assert drain(made, start.policy).sent == b""

    def test_after_helo_there_are_no_chunks(self) -> None:
        """CHUNKING was not announced."""
        start = Start((b"HELO a\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n"))
        heard = converse(start, bdat(SMUGGLED) + b"NOOP\r\n")
        assert codes(heard.sent) == [503, 250]

    def test_a_refused_first_chunk_ends_the_transaction(self) -> None:
        """All chunks behind it are read over and refused; then the client may start anew."""
        start = in_rcpt(refuse(Data, replies.NO_SPACE))
        heard = converse(start, bdat(SMUGGLED, SMUGGLED, b"") + b"MAIL FROM:<a@b>\r\n")
        assert codes(heard.sent) == [452, 503, 503, 250]

    def test_a_refused_chunk_end_ends_the_transaction(self) -> None:
        """A full disk is seen at a chunk, and the rest is not wanted."""
        heard = converse(in_rcpt(refuse(ChunkEnd, replies.NO_SPACE)), bdat(b"a\r\n", SMUGGLED) + b"RSET\r\n")
        assert codes(heard.sent) == [452, 503, 250]

    def test_a_refusal_is_one_error(self) -> None:
        """Though it is told twice to the caller."""
        made = after(in_rcpt(refuse(Data, replies.RELAY_DENIED)), bdat(b"abc"))
        assert made.errors == 1
        assert made.state is State.READY

    @pytest.mark.parametrize("kind", [Data, ChunkEnd])
    def test_a_reply_that_closes_does_so_at_once(self, kind: type[events.Event]) -> None:
        """421 does not wait for the chunk."""
        heard = play(in_rcpt(refuse(kind, replies.LOCAL_ERROR_CLOSE)), [bdat(b"abc", b"d") + SMUGGLED])
        assert heard.sent == replies.LOCAL_ERROR_CLOSE.encode()

    @pytest.mark.parametrize(
        "line",
        [
            b"BDAT",
            b"BDAT ",
            b"BDAT x",
            b"BDAT -1",
            b"BDAT 1.5",
            b"BDAT LAST",
            b"BDAT 5 FIRST",
            b"BDAT 5 LAST 5",
            b"BDAT 5LAST",
            b"BDAT 0x10",
            b"BDAT 5\0",
            b"BDAT 123456789012345678901",
            "BDAT ٣".encode(),
            b"BDAT " + b"0" * 600,
            b"BDAT " + b" " * 2000 + b"5",
        ],
    )
    @pytest.mark.parametrize("start", [ready(), in_rcpt(), in_chunks()])
    def test_a_chunk_of_unknown_length_ends_it_all(self, start: Start, line: bytes) -> None:
        """Nobody knows where it ends, so what follows is not read: 554, since the next try would be the
        same (Postfix: 521)."""
        heard = feed(start, line + b"\r\n" + SMUGGLED)
        assert heard == [Refused(replies.CHUNK_LOST, heard[0].command)]  # type: ignore[union-attr]

    def test_a_bare_lf_behind_bdat_ends_it_all_too(self) -> None:
        """Else the chunk would be read as the rest of the line, and then as commands."""
        assert feed(in_rcpt(), b"BDAT 3 LAST\n\r\n" + SMUGGLED) == [Refused(replies.CHUNK_LOST, "")]

    @pytest.mark.parametrize("start", [ready(message_size=100), in_rcpt(message_size=100)])
    def test_a_chunk_past_the_limit_is_552_and_the_end(self, start: Start) -> None:
        """Known before it is read, so it is not (smtp: 552 5.3.4 and close)."""
        made = start.connection()
        made.receive_data(b"BDAT 101\r\n" + SMUGGLED)
        heard = drain(made, accept)
        assert heard.sent == replies.CHUNK_TOO_BIG.encode()
        assert made.closed

    def test_the_limit_is_that_of_all_chunks_together(self) -> None:
        """100 octets fit, one more does not."""
        fits = converse(in_rcpt(message_size=100), bdat(b"x" * 50, b"y" * 48 + b"\r\n"))
        assert fits.events[-1] == DataEnd(100, None)
        heard = converse(in_rcpt(message_size=100), bdat(b"x" * 50, b"y" * 51) + SMUGGLED)
        assert codes(heard.sent) == [250, 552]
        assert kinds(heard.events)[-1] is Refused

    def test_it_has_no_way_round_the_count_of_errors(self) -> None:
        """Refused chunks are errors as any other."""
        assert codes(converse(ready(errors=2), bdat(b"a") * 3 + b"NOOP\r\n").sent) == [503, 503, 421]


class TestContent:
    """Line ends, NUL, dots (RFC 3030 without BINARYMIME: text it is)."""

    def test_dots_are_only_dots(self) -> None:
        """No stuffing is undone, no dot ends anything (RFC 3030 2)."""
        text = b".\r\n..\r\n.a\r\n\r\n.\r\n"
        heard = feed(in_rcpt(), bdat(text[:4], text[4:]))
        assert message(heard) == text

    @pytest.mark.parametrize(
        ("chunks", "text"),
        [
            ((b"a\r", b"\nb\r\n"), b"a\r\nb\r\n"),
            ((b"a\r", b"b\r\n"), b"a b\r\n"),
            ((b"a\r", b"", b"\nb\r\n"), b"a\r\nb\r\n"),
            ((b"a\r", b"\n"), b"a\r\n"),
            ((b"a\nb\r\n",), b"a\r\nb\r\n"),
            ((b"a\n",), b"a\r\n"),
            ((b"a\r\n", b"\n"), b"a\r\n\r\n"),
            ((b"a\r\r", b"\n"), b"a \r\n"),
            ((b"a",), b"a\r\n"),
            ((b"a", b""), b"a\r\n"),
            ((b"a\r",), b"a \r\n"),
            ((b"\r", b""), b" \r\n"),
            ((b"\r\n", b"."), b"\r\n.\r\n"),
        ],
    )
    def test_normalize_reads_over_the_borders_of_chunks(self, chunks: tuple[bytes, ...], text: bytes) -> None:
        """A border is no line end and hides none; a last line without an end is given one."""
        heard = feed(in_rcpt(), bdat(*chunks))
        assert message(heard) == text
        assert heard[-1] == DataEnd(len(text), None)

    @pytest.mark.parametrize("chunks", [(b"a\nb\r\n",), (b"a\r", b"b\r\n"), (b"a\r",), (b"\r\n", b"\n")])
    def test_reject_refuses_bare_line_ends_at_the_end(self, chunks: tuple[bytes, ...]) -> None:
        """550 5.6.0 to the last chunk, the others are read as ever."""
        heard = converse(in_rcpt(wire="reject"), bdat(*chunks) + b"NOOP\r\n")
        assert codes(heard.sent) == [250] * (len(chunks) - 1) + [550, 250]

    @pytest.mark.parametrize("chunks", [(b"a\r", b"\nb\r\n"), (b"no end",), (b"",)])
    def test_reject_leaves_the_rest_alone(self, chunks: tuple[bytes, ...]) -> None:
        """A CRLF cut in two is one; no end of the last line is no bare one."""
        assert codes(converse(in_rcpt(wire="reject"), bdat(*chunks)).sent)[-1] == 250

    @pytest.mark.parametrize("wire", ["normalize", "reject"])
    def test_nul_is_refused_in_both(self, wire: str) -> None:
        """BINARYMIME is not offered: 550 5.6.0."""
        heard = feed(in_rcpt(wire=wire), bdat(b"a\0", b"b\r\n"))
        assert heard[-1] == DataEnd(5, replies.NUL_IN_MESSAGE)

    def test_normalising_can_go_past_the_limit(self) -> None:
        """What would be stored counts: 552, and no more than the limit is given out."""
        heard = feed(in_rcpt(message_size=100), bdat(b"\n" * 60))
        assert heard[-1] == DataEnd(120, replies.MESSAGE_TOO_BIG)
        assert len(message(heard)) <= 100

    def test_the_reader_holds_one_octet_at_most(self) -> None:
        """Memory does not grow with the message."""
        reader = ChunkReader(10)
        source = Input()
        for piece in itertools.islice(itertools.cycle([b"\r", b"x" * 100, b"\r\n\r", b"\n"]), 1000):
            reader.begin(len(piece), last=False)
            source.receive(piece)
            while not isinstance(reader.next_event(source), ChunkEnd):
                pass
            assert len(reader._held) <= 1
        assert not source


LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"text", b"\xc3\xa9", b"a" * 70])).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@settings(max_examples=200, deadline=None)
@given(text=LINES, cuts=st.lists(st.integers(0, 200)), wire=st.sampled_from(["normalize", "reject"]))
def test_bdat_and_data_of_a_message_give_the_same_message(text: bytes, cuts: list[int], wire: str) -> None:
    """However it is cut into chunks."""
    by_data = play(in_data(wire=wire), [stuffed(text)])
    by_bdat = play(in_rcpt(wire=wire), [bdat(*cut(text, cuts) or [b""])])
    assert message(by_bdat.events) == message(by_data.events) == text
    assert by_bdat.events[-1] == by_data.events[-1]


@settings(max_examples=200, deadline=None)
@given(
    chunks=st.lists(
        st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b"\0"])).map(b"".join), min_size=1
    ),
    cuts=st.lists(st.integers(0, 300)),
    wire=st.sampled_from(["normalize", "reject"]),
)
def test_borders_of_chunks_and_of_packets_mean_nothing(
    chunks: list[bytes], cuts: list[int], wire: str
) -> None:
    """The same end and message as of one chunk, the same events for any cuts."""
    start = in_rcpt(wire=wire)
    speech = bdat(*chunks)
    whole = play(start, [speech])
    assert_same(play(start, cut(speech, cuts)), whole)
    one = play(start, single(bdat(b"".join(chunks))))
    assert one.events[-1] == whole.events[-1]
    end = one.events[-1]
    assert isinstance(end, DataEnd)
    if end.fault is None:
        assert message(one.events) == message(whole.events)


def test_commands_behind_the_last_chunk_are_commands() -> None:
    """Not one octet too much is taken."""
    heard = feed(in_rcpt(), bdat(b"abc") + b"QUIT\r\n")
    assert kinds(heard)[-1] is Quit
    assert message(heard) == b"abc\r\n"
