"""Delivery to Maildirs (deliver/maildir.py) and its neighbours."""

from __future__ import annotations

import errno
import mailbox
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.config import schema
from forkd.deliver.discard import Discard
from forkd.deliver.mailboxes import MAX_PART, safe
from forkd.deliver.maildir import Maildir
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


def a_maildir(tmp_path: Path, fs: Fs | None = None, **settings: Any) -> Maildir:
    given: dict[str, Any] = {"fs": fs} if fs else {}
    return Maildir("local", schema.Maildir(**settings), root=str(tmp_path), host="mx/1:2", **given)


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


def folder_of(tmp_path: Path, target: Target, **settings: Any) -> str:
    """Where its one mail is, below mail/; it is delivered."""
    before = set((tmp_path / "mail").rglob("*"))
    item = stored_in(a_spool(tmp_path / f"s{len(before)}"))
    (answer,) = a_maildir(tmp_path, **settings).deliver([Delivery(item, (target,))])
    assert results(answer) == [("delivered", "2.0.0")]
    (new,) = [path for path in set((tmp_path / "mail").rglob("*")) - before if path.is_file() and
              path.parent.name == "new"]  # fmt: skip
    assert f"Delivered-To: {target.address}\n" in new.read_text()
    return str(new.parent.parent.relative_to(tmp_path / "mail"))


DETAIL = Target(0, "a+Work@test.local", "a", "test.local", "Work")


@pytest.mark.parametrize(
    ("path", "plain", "detailed"),
    [
        ("mail/{domain}/{user}", "test.local/a", "test.local/a"),
        ("mail/{user}@{domain}/Maildir", "a@test.local/Maildir", "a@test.local/Maildir"),
        ("mail/{domain}", "test.local", "test.local"),
        ("mail/all", "all", "all"),
        ("mail/{user}/.{detail}", "a", "a/.work"),
        ("mail/{detail}/{user}", "a", "work/a"),
    ],
    ids=["user", "one part", "domain", "all", "Maildir++", "detail first"],
)
def test_a_path_is_filled_in(tmp_path: Path, path: str, plain: str, detailed: str) -> None:
    """Catch-all Maildirs are paths without {user}; what has {detail} is left out where there is none."""
    assert folder_of(tmp_path, a_target(), path=path) == plain
    assert folder_of(tmp_path, DETAIL, path=path) == detailed


@pytest.mark.parametrize(
    "name", ["..", ".", "../../x", "a/b", ".hidden", "new", "x" * 1000, "é/ñ", "a%2fb", "\0"]
)
@pytest.mark.parametrize("path", ["mail/{domain}/{user}", "mail/{user}/.{detail}"], ids=["user", "detail"])
def test_no_name_leads_elsewhere(tmp_path: Path, name: str, path: str) -> None:
    """In a mailbox's place or a detail's: one component below the base, and nothing beside it."""
    target = Target(0, "x@test.local", name, "test.local", name)
    item = stored_in(a_spool(tmp_path / "spool"))
    (answer,) = a_maildir(tmp_path, path=path).deliver([Delivery(item, (target,))])
    assert results(answer) == [("delivered", "2.0.0")]
    assert {path.name for path in tmp_path.iterdir()} == {"mail", "spool"}
    (new,) = tmp_path.glob("mail/*/*/new/*")
    assert new.is_file()


def test_unusual_names_are_refused_where_that_is_wanted(tmp_path: Path) -> None:
    """Where the mail store knows no %XX: no such user, for good; case is no difference."""
    item = stored_in(a_spool(tmp_path / "spool"))
    names = ["a", "a/b", "..", "é", "x" * 300, "A.b"]
    (answer,) = a_maildir(tmp_path, unusual="refuse").deliver(
        [Delivery(item, tuple(a_target(name, n) for n, name in enumerate(names)))]
    )
    refused = ("failed", "5.1.1")
    assert results(answer) == [("delivered", "2.0.0"), *[refused] * 4, ("delivered", "2.0.0")]
    assert sorted(path.name for path in (tmp_path / "mail/test.local").iterdir()) == ["a", "a.b"]


def test_a_folder_that_is_there_gets_the_mail_of_its_detail(tmp_path: Path) -> None:
    """subfolder = "existing", as Dovecot's LDA saves to a detail's mailbox without creating it: exactly that
    name, else the inbox; never outside of the Maildir, and never the inbox by another name."""
    box = tmp_path / "mail/test.local/a"
    for name in (".Work/tmp", ".Work/new", ".a.b/tmp", ".a.b/new"):
        (box / name).mkdir(parents=True)
    (box / ".file").touch()
    inbox = "test.local/a"
    for detail, folder in {
        "Work": f"{inbox}/.Work",
        "a.b": f"{inbox}/.a.b",
        **dict.fromkeys(
            ["work", "other", "", ".", "..", "../x", "Work/", ".Work", "a..b", "file", "é", "INBOX"], inbox
        ),
    }.items():
        target = Target(0, f"a+{detail}@test.local", "a", "test.local", detail)
        assert folder_of(tmp_path, target, subfolder="existing") == folder, detail
    assert folder_of(tmp_path, DETAIL) == inbox  # as it is by default


def test_a_folder_is_made_for_a_detail_where_that_is_wanted(tmp_path: Path) -> None:
    """subfolder = "create": a whole Maildir++ folder, within a whole Maildir; other readers see it."""
    assert folder_of(tmp_path, DETAIL, subfolder="create") == "test.local/a/.Work"
    assert folder_of(tmp_path, DETAIL, subfolder="create") == "test.local/a/.Work"
    box = mailbox.Maildir(tmp_path / "mail/test.local/a", create=False)
    assert box.list_folders() == ["Work"]
    assert len(box.get_folder("Work")) == 2
    assert (tmp_path / "mail/test.local/a/.Work/maildirfolder").read_bytes() == b""
    assert not list(box)


def test_who_has_no_maildir_gets_his_mail_caught(tmp_path: Path) -> None:
    """catch_all: for those whose Maildir is not there; none is made for them, with or without a detail."""
    (tmp_path / "mail/test.local/a").mkdir(parents=True)
    for part in ("tmp", "new", "cur"):
        (tmp_path / "mail/test.local/a" / part).mkdir()
    given: dict[str, Any] = {"catch_all": "mail/{domain}/unknown", "subfolder": "create"}
    assert folder_of(tmp_path, a_target(), **given) == "test.local/a"
    for name in ("b", "c"):
        assert folder_of(tmp_path, a_target(name), **given) == "test.local/unknown"
    detail = Target(0, "b+Work@test.local", "b", "test.local", "Work")
    assert folder_of(tmp_path, detail, **given) == "test.local/unknown"
    assert {path.name for path in (tmp_path / "mail/test.local").iterdir()} == {"a", "unknown"}


def test_the_group_may_read_where_that_is_wanted(tmp_path: Path) -> None:
    """For a mail store that runs as another user; the folder's setgid bit hands its group on."""
    old = os.umask(0o077)  # as a daemon that an ordinary user starts has it
    try:
        base = tmp_path / "mail"
        base.mkdir()
        base.chmod(0o2770)
        folder_of(tmp_path, DETAIL, group=True, subfolder="create")
        folder_of(tmp_path, a_target("b"))
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (base / "test.local/a").rglob("*")}
    new = modes.pop(next(path.name for path in (base / "test.local/a/.Work/new").iterdir()))
    assert (new, modes.pop("maildirfolder")) == (0o660, 0o600)
    assert set(modes.values()) == {0o2770}
    assert (base / "test.local").stat().st_mode & 0o7777 == 0o2770
    assert (base / "test.local/b/new").stat().st_mode & 0o777 == 0o700


def test_whoever_else_may_write_there_cannot_lead_us_away_by_a_link(tmp_path: Path) -> None:
    """With `group` others may make links in a mailbox: nothing behind one is made, or given another mode."""
    base, other = tmp_path / "mail/test.local", tmp_path / "other"
    folder_of(tmp_path, a_target(), group=True)
    other.mkdir(mode=0o700)
    (base / "a/.Work").symlink_to(other)
    target = Target(0, "a+Work@test.local", "a", "test.local", "Work")
    maildir = a_maildir(tmp_path, group=True, subfolder="create")
    item = stored_in(a_spool(tmp_path / "spool"))
    (answer,) = maildir.deliver([Delivery(item, (target,))])
    assert results(answer) == [("deferred", "4.3.0")]
    assert not list(other.iterdir())
    shutil.rmtree(base / "a/new")
    (base / "a/new").symlink_to(other)
    shutil.rmtree(base / "a/tmp")
    (answer,) = maildir.deliver([Delivery(item, (a_target(),))])
    assert results(answer) == [("deferred", "4.3.0")]
    assert other.stat().st_mode & 0o777 == 0o700


def test_a_maildir_without_its_new_is_made_whole(tmp_path: Path) -> None:
    """Copying tools leave empty folders out; mail must not wait for somebody to see it."""
    (tmp_path / "mail/test.local/a/tmp").mkdir(parents=True)
    assert folder_of(tmp_path, a_target()) == "test.local/a"
    assert (tmp_path / "mail/test.local/a/cur").is_dir()


@pytest.mark.parametrize(
    ("number", "enhanced"),
    [(errno.EDQUOT, "4.2.2"), (errno.ENOSPC, "4.3.1"), (errno.EROFS, "4.3.0"), (errno.EACCES, "4.3.0")],
    ids=["quota", "full", "read-only", "not ours"],
)
def test_a_disk_that_takes_no_more_is_said_as_what_it_is(tmp_path: Path, number: int, enhanced: str) -> None:
    """RFC 3463: mailbox full is the user's quota, mail system full is the disk; all of them may pass."""

    class Full(Fs):
        def write(self, fd: int, parts: object) -> None:
            raise OSError(number, os.strerror(number))

    item = stored_in(a_spool(tmp_path / "s"))
    (answer,) = a_maildir(tmp_path, Full()).deliver([Delivery(item, (a_target(),))])
    assert results(answer) == [("deferred", enhanced)]
    assert not list((tmp_path / "mail/test.local/a/tmp").iterdir())
