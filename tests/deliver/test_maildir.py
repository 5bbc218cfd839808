"""Delivery to Maildirs (deliver/maildir.py) and its neighbours."""

from __future__ import annotations

import errno
import mailbox
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.deliver.discard import Discard
from forkd.deliver.maildir import MAX_PART, Maildir, safe
from forkd.deliver.transport import Delivery, Result, Target
from forkd.fs import Fs
from forkd.queue import stored
from forkd.queue.envelope import Edit
from forkd.queue.format import Damaged
from forkd.queue.spool import Spool
from forkd.queue.stored import StoredMessage
from tests.support.spooling import MAIL, a_spool, queued

LARGE = b"Subject: large\r\n\r\n" + b"line\r\n" * 60_000


def a_target(name: str = "a", index: int = 0) -> Target:
    return Target(index, f"{name}@test.local", name, "test.local")


def a_maildir(tmp_path: Path, fs: Fs | None = None) -> Maildir:
    given = {"fs": fs} if fs else {}
    return Maildir("local", path="mail/{domain}/{user}", root=str(tmp_path), host="mx/1:2", **given)


def stored_in(spool: Spool, **fields: object) -> StoredMessage:
    queue_id = queued(spool, **fields)  # type: ignore[arg-type]
    return stored.load(f"{spool.new}/{queue_id}", queue_id)


def results(answer: list[Result] | Damaged) -> list[tuple[str, str]]:
    assert isinstance(answer, list), answer
    return [(result.status, result.enhanced) for result in answer]


@pytest.mark.parametrize(
    "message", [MAIL, LARGE, b"", b"\r\n", b"\r\nno end"], ids=["small", "large", "empty", "bare", "open"]
)
def test_the_mail_is_there_with_our_fields_on_top(tmp_path: Path, message: bytes) -> None:
    """RFC 5321 4.4: Return-Path; Delivered-To; trace; plugins' fields; the message, else untouched."""
    spool = a_spool(tmp_path / "spool")
    item = stored_in(spool, message=message, edits=(Edit(op="add_header", name="X-Seen", value="yes"),))
    (answer,) = a_maildir(tmp_path).deliver([Delivery(item, (a_target(),))])
    assert results(answer) == [("delivered", "2.0.0")]
    (path,) = (tmp_path / "mail/test.local/a/new").iterdir()
    head = (
        f"Return-Path: <sender@example.org>\nDelivered-To: a@test.local\n{item.envelope.trace}X-Seen: yes\n"
    )
    assert path.read_bytes() == head.replace("\r\n", "\n").encode() + message.replace(b"\r\n", b"\n")
    assert not list((tmp_path / "mail/test.local/a/tmp").iterdir())
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_mail_reader_reads_it(tmp_path: Path) -> None:
    """The counterpart: Python's own Maildir reader; file names hold no colon."""
    spool = a_spool(tmp_path / "spool")
    a_maildir(tmp_path).deliver([Delivery(stored_in(spool), (a_target(),)) for _ in range(3)])
    box = mailbox.Maildir(tmp_path / "mail/test.local/a", create=False)
    assert [mail["subject"] for mail in box] == ["hello"] * 3
    assert all(":" not in p.name for p in (tmp_path / "mail/test.local/a/new").iterdir())


def test_the_null_sender_is_an_empty_return_path(tmp_path: Path) -> None:
    """RFC 5321 4.5.5."""
    a_maildir(tmp_path).deliver([Delivery(stored_in(a_spool(tmp_path / "s"), sender=""), (a_target(),))])
    (path,) = (tmp_path / "mail/test.local/a/new").iterdir()
    assert path.read_bytes().startswith(b"Return-Path: <>\n")


def test_each_recipient_has_an_own_copy(tmp_path: Path) -> None:
    """Results in the order of the targets."""
    item = stored_in(a_spool(tmp_path / "s"))
    (answer,) = a_maildir(tmp_path).deliver([Delivery(item, (a_target("a", 0), a_target("b", 1)))])
    assert results(answer) == [("delivered", "2.0.0")] * 2
    for name in "ab":
        (path,) = (tmp_path / f"mail/test.local/{name}/new").iterdir()
        assert f"Delivered-To: {name}@test.local\n".encode() in path.read_bytes()


def test_a_mailbox_that_cannot_be_written_is_deferred_alone(tmp_path: Path) -> None:
    """Temporary unless proven permanent; the others of the batch are not harmed."""
    (tmp_path / "mail/test.local").mkdir(parents=True)
    (tmp_path / "mail/test.local/a").write_bytes(b"a file where a folder should be")
    item = stored_in(a_spool(tmp_path / "s"))
    answers = a_maildir(tmp_path).deliver(
        [Delivery(item, (a_target("a"),)), Delivery(item, (a_target("b"),))]
    )
    assert [results(answer) for answer in answers] == [[("deferred", "4.3.0")], [("delivered", "2.0.0")]]


class Refusing(Fs):
    """sync_dir of a new/ fails, or any sync."""

    def __init__(self, call: str) -> None:
        self.call = call

    def sync(self, fd: int) -> None:
        if self.call == "sync":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def sync_dir(self, fd: int) -> None:
        if self.call == "sync_dir" and Path(f"/proc/self/fd/{fd}").readlink().name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(("call", "enhanced"), [("sync", "4.2.2"), ("sync_dir", "4.3.0")])
def test_what_the_disk_did_not_take_is_deferred_and_removed(tmp_path: Path, call: str, enhanced: str) -> None:
    """`delivered` means that the disk has it; a copy it may not have is taken back."""
    item = stored_in(a_spool(tmp_path / "s"))
    (answer,) = a_maildir(tmp_path, Refusing(call)).deliver([Delivery(item, (a_target(),))])
    assert results(answer) == [("deferred", enhanced)]
    assert not [p for p in (tmp_path / "mail").rglob("*") if p.is_file()]


def test_a_damaged_message_is_delivered_to_nobody(tmp_path: Path) -> None:
    """Its checksum is compared before anything is published; its batch is not harmed."""
    spool = a_spool(tmp_path / "s")
    bad, good = stored_in(spool, message=LARGE), stored_in(spool)
    with Path(bad.path).open("r+b") as file:
        file.seek(len(LARGE) - 100)
        file.write(b"?")
    answers = a_maildir(tmp_path).deliver(
        [Delivery(bad, (a_target("a"), a_target("b"))), Delivery(good, (a_target(),))]
    )
    assert isinstance(answers[0], Damaged)
    assert results(answers[1]) == [("delivered", "2.0.0")]
    assert len([p for p in (tmp_path / "mail").rglob("*") if p.is_file()]) == 1


def test_a_message_that_was_here_before_is_a_loop(tmp_path: Path) -> None:
    """Delivered-To loops are caught (queue.md); the address is compared without case, others do not count."""
    spool = a_spool(tmp_path / "s")
    loop = stored_in(spool, message=b"Subject: x\r\ndelivered-to: A@test.local\r\n\r\n")
    other = stored_in(spool, message=b"Delivered-To: b@test.local\r\n\r\nDelivered-To: a@test.local\r\n")
    answers = a_maildir(tmp_path).deliver([Delivery(loop, (a_target(),)), Delivery(other, (a_target(),))])
    assert [results(answer) for answer in answers] == [[("failed", "5.4.6")], [("delivered", "2.0.0")]]


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_name_is_one_safe_path_component(one: str, other: str) -> None:
    """No name leads out of its folder, none is too long, and none is another's, but for case."""
    text = safe(one)
    assert text not in ("", ".", "..")
    assert not text.startswith(".")
    assert not set(text) & set("/\0:\\")
    assert text.isascii()
    assert len(text) <= MAX_PART
    if one.lower() != other.lower():
        assert text != safe(other)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user.name", "user.name"),
        ("..", "%2E."),
        ("a/b", "a%2Fb"),
        ("A%2f", "a%252f"),
        ("é", "%C3%A9"),
        ("", "%"),
    ],
)
def test_names_stay_readable(name: str, expected: str) -> None:
    """Ordinary names are their own folder."""
    assert safe(name) == expected


def test_discard_delivers_everything(tmp_path: Path) -> None:
    """Counted and gone."""
    item = stored_in(a_spool(tmp_path / "s"))
    (answer,) = Discard("drop").deliver([Delivery(item, (a_target("a"), a_target("b")))])
    assert results(answer) == [("delivered", "2.0.0")] * 2
