"""The sealed copy of a message that plugins read."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from forkd.rpc.calls import AddHeader, CallFailed, ChangeHeader, DeleteHeader, HeaderEdit, Overloaded
from forkd.worker.bodies import Body
from forkd.worker.copies import CopyBudget, MessageCopies

MESSAGE = b"Subject: x\r\n\r\nbody of the message\r\n"
HEADER = 14


class Source:
    """A message that gives itself in pieces, and takes a new body."""

    def __init__(self) -> None:
        self.octets = MESSAGE
        self.reads = 0

    @property
    def edited_header_size(self) -> int:
        return HEADER

    @property
    def edited_size(self) -> int:
        return len(self.octets)

    def read(self) -> list[bytes]:
        self.reads += 1
        return [self.octets[at : at + 10] for at in range(0, len(self.octets), 10)]

    def new_body(self, *, limit: int) -> Body:
        written: list[bytes] = []

        def done(_body: Body) -> None:
            self.octets = MESSAGE[:HEADER] + b"".join(written)

        return Body(written.append, offset=0, lead=b"", limit=limit - HEADER, done=done)

    def new_message(self, *, limit: int) -> Body:
        written: list[bytes] = []

        def done(_body: Body) -> None:
            self.octets = b"".join(written)

        return Body(written.append, offset=0, lead=b"", limit=limit, done=done)


def copies(budget: CopyBudget) -> MessageCopies:
    return MessageCopies(budget, Source(), limit=100)


def test_the_copy_is_the_message():
    made = copies(CopyBudget(1000))
    fd = made.full_fd()
    assert os.pread(fd, 1000, 0) == MESSAGE
    made.close()


def test_a_plugin_without_the_body_gets_the_header_alone():
    made = copies(CopyBudget(1000))
    fd = made.headers_fd()
    assert os.pread(fd, 1000, 0) == MESSAGE[:HEADER]
    made.close()


def test_each_copy_is_made_once():
    made = copies(CopyBudget(1000))
    assert made.full_fd() == made.full_fd()
    assert made.full_fd() != made.headers_fd()
    made.close()


@pytest.mark.parametrize(
    "act",
    [
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 0),
        lambda fd: os.ftruncate(fd, 1000),
        lambda fd: mmap.mmap(fd, 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    ],
    ids=["write", "shrink", "grow", "map for writing"],
)
def test_a_copy_cannot_be_changed(act):
    """memfd_create(2), seals: whoever holds it may only read."""
    made = copies(CopyBudget(1000))
    with pytest.raises(OSError) as caught:
        act(made.full_fd())
    assert caught.value.errno == errno.EPERM
    made.close()


def test_the_budget_is_over_all_messages_and_comes_back():
    budget = CopyBudget(len(MESSAGE) + 5)
    first = copies(budget)
    first.full_fd()
    second = copies(budget)
    with pytest.raises(Overloaded):
        second.full_fd()
    second.close()
    first.close()
    third = copies(budget)
    third.full_fd()
    third.close()


def test_closing_twice_gives_back_once():
    budget = CopyBudget(len(MESSAGE))
    made = copies(budget)
    made.full_fd()
    made.close()
    made.close()
    again = copies(budget)
    again.full_fd()
    with pytest.raises(Overloaded):
        budget.take(1)
    again.close()


def test_after_a_new_body_the_next_copy_has_it():
    """Several editing plugins in a row see each other's work; the budget counts what is held."""
    budget = CopyBudget(len(MESSAGE) + HEADER)
    made = copies(budget)
    before, header = made.full_fd(), made.headers_fd()
    duplicate = os.dup(before)
    sink = made.body_sink(4)
    sink.write(b"new\n")
    assert made.size == len(MESSAGE), "not before it is whole"
    body = sink.finish()
    assert body.octets == 5
    assert made.size == HEADER + 5
    assert os.pread(made.full_fd(), 1000, 0) == MESSAGE[:HEADER] + b"new\r\n"
    assert made.headers_fd() == header
    assert os.pread(duplicate, 1000, 0) == MESSAGE, "who was asked before keeps what it was given"
    os.close(duplicate)
    made.close()
    budget.take(len(MESSAGE) + HEADER)


def test_a_body_past_the_message_limit_is_a_breach():
    """Announced or written: the plugin's on_failure decides, not the disk."""
    made = copies(CopyBudget(1000))
    with pytest.raises(CallFailed, match="message_size"):
        made.body_sink(101)
    sink = made.body_sink(1)
    with pytest.raises(CallFailed, match="too big"):
        sink.write(b"x" * 90)
    made.close()


def test_a_copy_that_is_kept_takes_nothing_of_what_others_wait_for():
    """A shadow plugin must never be a reason for a 451: neither where its copy fits nor where it does not."""
    budget = CopyBudget(4 * len(MESSAGE))
    first, second = copies(budget), copies(budget)
    kept = first.keep("full")
    assert os.pread(kept.fd, 1000, 0) == MESSAGE
    with pytest.raises(Overloaded, match="kept"):
        second.keep("full")
    budget.take(4 * len(MESSAGE))
    budget.give_back(4 * len(MESSAGE))
    kept.close()
    first.close()
    second.close()
    budget.keep(len(MESSAGE))


@pytest.mark.parametrize("kept_first", [False, True])
def test_who_is_asked_shares_the_copy_that_is_kept(kept_first: bool):
    """It is made once, whoever wants it first; each pays out of his own budget."""
    budget = CopyBudget(4 * len(MESSAGE))
    source = Source()
    made = MessageCopies(budget, source, limit=100)
    kept = made.keep("full") if kept_first else None
    fd = made.full_fd()
    kept = kept or made.keep("full")
    assert os.fstat(fd).st_ino == os.fstat(kept.fd).st_ino
    assert source.reads == 1
    with pytest.raises(Overloaded):
        budget.take(3 * len(MESSAGE) + 1)
    made.close()
    budget.take(4 * len(MESSAGE))
    assert os.pread(kept.fd, 1000, 0) == MESSAGE
    kept.close()


def test_a_copy_that_could_not_be_finished_is_given_to_nobody():
    """No memory half-way: who asks next gets the message or nothing."""

    class Failing(Source):
        def read(self) -> list[bytes]:
            if self.reads:
                return super().read()
            self.reads += 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    budget = CopyBudget(len(MESSAGE))
    made = MessageCopies(budget, Failing(), limit=100)
    with pytest.raises(OSError, match="memory"):
        made.full_fd()
    assert os.pread(made.full_fd(), 1000, 0) == MESSAGE
    made.close()
    budget.take(len(MESSAGE))


def text_of(fd: int) -> bytes:
    return os.pread(fd, 1000, 0)


def test_a_program_reads_lines_that_end_in_lf():
    """queue.md: converted while streaming; whatever the pieces are. The copy is made once."""
    source = Source()
    made = MessageCopies(CopyBudget(1000), source, limit=100)
    fd = made.program_fd(())
    assert text_of(fd) == MESSAGE.replace(b"\r\n", b"\n")
    assert made.program_fd(()) == fd
    assert source.reads == 1
    made.close()


def test_a_program_reads_the_header_as_it_was_edited():
    """Not a list of edits: it could do nothing with one. Other edits: another copy, and room for it."""
    budget = CopyBudget(1000)
    made = MessageCopies(budget, Source(), limit=100)
    edits = (AddHeader("X-New", "yes"), DeleteHeader("Subject", 0))
    text = text_of(made.program_fd(edits))
    header, _, body = text.partition(b"\n\n")
    assert header == b"X-New: yes"
    assert body == MESSAGE.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")
    assert b"X-New" not in text_of(made.program_fd(()))
    made.close()
    budget.take(1000)  # all of it is back


@pytest.mark.parametrize(
    ("message", "edits"),
    [
        (b"From someone\r\n\r\nbody\r\n", (AddHeader("X-New", ""),)),
        (b"From someone\n\nbody\n" * 3, (DeleteHeader("Subject", 0),)),
        (b"no header\n", (AddHeader("X-New", "\u00e4" * 20),)),
        (b"A: 1\n\n", tuple(AddHeader("X", f"{n}") for n in range(20))),
        (b"A: 1\n\n", (ChangeHeader("A", 1, "\u20ac" * 20), AddHeader("X", "a\n b\nc\nd"))),
    ],
    ids=["empty field", "separator", "no header", "many", "longer and folded"],
)
def test_the_budget_has_every_octet_of_a_programs_copy(message: bytes, edits: tuple[HeaderEdit, ...]):
    """What edits and stream() put into it too."""
    budget, source = CopyBudget(1000), Source()
    source.octets = message
    made = MessageCopies(budget, source, limit=100)
    size = os.fstat(made.program_fd(edits)).st_size
    with pytest.raises(Overloaded):
        budget.take(1000 - size + 1)
    made.close()


def test_after_a_new_message_every_copy_is_of_that():
    """Header and body."""
    made = copies(CopyBudget(1000))
    before = [made.full_fd(), made.headers_fd(), made.program_fd(())]
    sink = made.message_sink(20)
    sink.write(b"Other: header\n\nother\n")
    sink.finish()
    assert made.size == len(b"Other: header\r\n\r\nother\r\n")
    assert text_of(made.program_fd(())) == b"Other: header\n\nother\n"
    assert text_of(made.full_fd()) == b"Other: header\r\n\r\nother\r\n"
    assert len(before) == 3
    made.close()


def test_a_message_past_the_limit_is_a_breach():
    made = copies(CopyBudget(1000))
    with pytest.raises(CallFailed) as failed:
        made.message_sink(101)
    assert failed.value.cause == "protocol"
    made.close()
