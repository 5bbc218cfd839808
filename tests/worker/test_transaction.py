"""A message on its way in, as plugins leave it (worker/transaction.py)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forkd.config.recipients import Accepted
from forkd.queue import stored
from forkd.queue.commit import commit
from forkd.queue.spool import Spool
from forkd.queue.stored import StoredMessage
from forkd.rpc.calls import CallFailed
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Mail
from forkd.worker.copies import CopyBudget, MessageCopies
from forkd.worker.transaction import Transaction
from tests.support.spooling import a_spool

A, B, C = (Mailbox(name, "test.local") for name in "abc")
LOCAL = Accepted("local", "x")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path)


def begun(spool: Spool | None, *pieces: bytes, mail: Mail | None = None) -> Transaction:
    transaction = Transaction(mail or Mail(Mailbox("s", "example.org")))
    transaction.accept(A, LOCAL)
    transaction.begin(spool, 1.0)
    for piece in pieces:
        transaction.write(piece)
    return transaction


def committed(spool: Spool, transaction: Transaction) -> StoredMessage:
    assert transaction.file is not None
    envelope = transaction.envelope(received="", edits=(), received_at=1.0, session="S")
    (queue_id,) = commit(spool, [(transaction.file, envelope)])
    assert isinstance(queue_id, str)
    return stored.load(f"{spool.new}/{queue_id}", queue_id)


def replace(transaction: Transaction, octets: bytes) -> None:
    sink = transaction.new_body(limit=1 << 30)
    sink.write(octets)
    sink.finish()


HEADS = [
    (b"Subject: x\r\n\r\nold\r\n", b"Subject: x\r\n\r\n"),
    (b"Subject: x\r\nno header line\r\n", b"Subject: x\r\n\r\n"),
    (b"Subject: x\r\n", b"Subject: x\r\n\r\n"),
    (b"\r\nonly a body\r\n", b"\r\n"),
    (b"only a body\r\n", b"\r\n"),
    (b"", b"\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "header"), HEADS)
def test_a_new_body_stands_behind_the_header_and_an_empty_line(
    spool: Spool, message: bytes, header: bytes
) -> None:
    """RFC 5322 2.1: also where the client's message had none, or a header that ended without one."""
    transaction = begun(spool, *([message] if message else []))
    replace(transaction, b"new\n")
    assert b"".join(transaction.read()) == header + b"new\r\n"
    assert transaction.edited_size == len(header + b"new\r\n")
    assert transaction.edited_header_size == len(header)
    assert b"".join(committed(spool, transaction).chunks()) == header + b"new\r\n"


@pytest.mark.parametrize(("message", "header"), HEADS)
def test_the_next_plugin_reads_header_and_body_apart(spool: Spool, message: bytes, header: bytes) -> None:
    """Also where the empty line between them came with the new body: it is none of the body's."""
    transaction = begun(spool, *([message] if message else []))
    copies = MessageCopies(CopyBudget(1000), transaction, limit=500)
    assert os.pread(copies.headers_fd(), 1000, 0) == bytes(message[: transaction.header_size])
    for body in (b"first\r\n", b"second\r\n"):
        sink = copies.body_sink(len(body))
        sink.write(body)
        sink.finish()
        whole = os.pread(copies.full_fd(), 1000, 0)
        assert (whole[: copies.header_size], whole[copies.header_size :]) == (header, body)
        assert os.pread(copies.headers_fd(), 1000, 0) == header
    copies.close()


def test_the_last_body_that_was_finished_counts(spool: Spool) -> None:
    """A plugin that fails in the middle of its body leaves that of the one before."""
    transaction = begun(spool, b"Subject: x\r\n\r\n", b"old\r\n" * 30_000)
    replace(transaction, b"first\n")
    replace(transaction, b"second\n" * 20_000)
    transaction.new_body(limit=100).write(b"given up\n")
    message = committed(spool, transaction)
    assert b"".join(message.chunks()) == b"Subject: x\r\n\r\n" + b"second\r\n" * 20_000


def test_a_body_can_be_taken_back(spool: Spool) -> None:
    """What the decision does not name is not the message's."""
    transaction = begun(spool, b"Subject: x\r\n\r\nold\r\n")
    replace(transaction, b"new\n")
    transaction.replace_body(None)
    assert b"".join(committed(spool, transaction).chunks()) == b"Subject: x\r\n\r\nold\r\n"


def test_a_new_body_with_eight_bits_is_declared(spool: Spool) -> None:
    """RFC 6152: a next hop without 8BITMIME must be told."""
    transaction = begun(spool, b"Subject: x\r\n\r\nold\r\n")
    replace(transaction, "grüße\n".encode())
    assert committed(spool, transaction).envelope.body == "8BITMIME"


def test_the_envelope_keeps_what_was_and_what_became_of_it(spool: Spool) -> None:
    """Originals stay for reports; DSN parameters go with their recipient (RFC 3461)."""
    mail = Mail(None, {"RET": "hdrs", "ENVID": "QQ314159", "SMTPUTF8": None})
    transaction = begun(spool, b"x: y\r\n\r\n", mail=mail)
    transaction.accept(B, LOCAL, notify=("FAILURE", "DELAY"), orcpt="rfc822;b@there", original=C)
    transaction.accept(C, LOCAL)
    transaction.remove([A, Mailbox("nobody", "test.local")])
    transaction.rewrite_sender(A)
    transaction.rewrite_sender(B)
    transaction.hold = "virus"
    envelope = committed(spool, transaction).envelope
    assert [to.address for to in envelope.recipients] == ["b@test.local", "c@test.local"]
    to = envelope.recipients[0]
    assert (to.notify, to.orcpt, to.original) == (("FAILURE", "DELAY"), "rfc822;b@there", "c@test.local")
    assert (envelope.sender, envelope.original_sender) == ("b@test.local", "")
    assert (envelope.ret, envelope.envid, envelope.smtputf8, envelope.hold) == (
        "HDRS",
        "QQ314159",
        True,
        "virus",
    )
    assert len(transaction.dropped) == 1


def test_an_unchanged_sender_has_no_original(spool: Spool) -> None:
    """None, not the null sender."""
    assert committed(spool, begun(spool, b"x: y\r\n\r\n")).envelope.original_sender is None


@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_the_header_is_known_however_it_comes(spool: Spool, piece: int) -> None:
    """Its end may be cut anywhere; what stands behind it is not counted as header."""
    header = b"Received: 1\r\nReceived: 2\r\nDate: x\r\n\r\n"
    message = header + b"Received: 3\r\nMessage-ID: x\r\n" * 100
    transaction = begun(spool, *[message[at : at + piece] for at in range(0, len(message), piece)])
    assert transaction.header_size == len(header)
    assert transaction.hops() == 2
    assert [transaction.loops(most) for most in (1, 2, 200)] == [True, False, False]
    assert (transaction.lacks("date"), transaction.lacks("Message-ID")) == (False, True)


def test_behind_an_endless_header_there_is_no_new_body(spool: Spool) -> None:
    """Nobody knows where the old one begins; the plugin's on_failure decides, and none is added above."""
    transaction = begun(spool, *[b"X-Long: " + b"x" * 990 + b"\r\n"] * 300)
    with pytest.raises(CallFailed, match="header"):
        transaction.new_body(limit=1 << 30)
    assert not transaction.lacks("Date")


def test_without_a_spool_nothing_is_kept_and_all_is_counted() -> None:
    """Mail that is dropped on purpose (discard at = "accept")."""
    transaction = begun(None, b"Subject: x\r\n\r\nold\r\n")
    replace(transaction, b"new\n")
    assert (transaction.size, transaction.file, transaction.error) == (19, None, None)
