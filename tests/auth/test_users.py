"""The users file: read, re-read, rewritten (FORMAT.md)."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from forkd.auth import passwords, users
from forkd.auth.users import User, UsersError, UsersFile
from forkd.fs import Fs

ARGON2 = passwords.make_argon2("secret")
SCRAM = passwords.make_scram("secret")


def write(path: Path, text: str, mode: int = 0o640) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "users", f"anna argon2={ARGON2}\n")


def test_a_line_says_all_of_a_user(tmp_path: Path):
    """Any order, comments, empty lines; the login is compared without case."""
    path = write(
        tmp_path / "users",
        f"# people\n\nAnna  send=anna@example.org,@shop.example scram={SCRAM}\targon2={ARGON2}\n"
        f"printer disabled\n",
    )
    known = users.read(path)
    assert known["anna"] == User("Anna", ARGON2, SCRAM, ("anna@example.org", "@shop.example"))
    assert known["printer"] == User("printer", disabled=True)
    assert UsersFile(path).find("ANNA") == known["anna"]
    assert UsersFile(path).find("nobody") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("anna password=x", "after the login come"),
        ("anna argon2=x", "no argon2 verifier"),
        ("anna scram=x", "SCRAM-SHA-256$"),
        ("anna send=", "line 3"),
        ("anna disabled=yes", "disabled has no value"),
        ("anna send", "send has a value"),
        ("anna disabled disabled", "twice"),
        ("otto", "otto stands there twice"),
        ("OTTO", "twice"),
        ("an=na", "no `=`"),
        ("\u2160anna", "write it so"),
    ],
)
def test_an_error_names_its_line(tmp_path: Path, line: str, said: str):
    """The file, the line, the rule; never a verifier."""
    path = write(tmp_path / "users", f"# comment\notto\n{line}\n")
    if line == "anna send=":
        assert users.read(path)["anna"].addresses == ()
        return
    with pytest.raises(UsersError) as raised:
        users.read(path)
    assert f"{path}, line 3: " in str(raised.value)
    assert said in str(raised.value)


def test_bytes_that_are_not_text_name_their_line(tmp_path: Path):
    """Latin-1 from an old editor."""
    path = tmp_path / "users"
    path.write_bytes(b"anna\nj\xfcrgen\n")
    path.chmod(0o600)
    with pytest.raises(UsersError, match="line 2: not UTF-8"):
        users.read(path)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o666])
def test_a_file_for_all_eyes_is_refused(file: Path, mode: int):
    """Verifiers can be guessed at: nobody but the owner writes, nobody but owner and group read."""
    file.chmod(mode)
    with pytest.raises(UsersError, match=f"its mode is {mode:04o}"):
        users.read(file)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o440])
def test_modes_that_are_fine(file: Path, mode: int):
    """0600 and 0640, or less."""
    file.chmod(mode)
    assert "anna" in users.read(file)


def test_a_folder_or_a_fifo_is_no_file(tmp_path: Path):
    """Told, not waited for."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo):
        with pytest.raises(UsersError):
            users.read(path)


def test_changes_are_seen_at_the_next_question(file: Path):
    """By stat: no signal, no reload."""
    known = UsersFile(file)
    assert known.find("otto") is None
    with users.edit(file) as change:
        change.put(User("otto", ARGON2))
    assert known.find("otto") == User("otto", ARGON2)


def test_a_broken_change_keeps_what_was_read(file: Path):
    """The old users stay, `problem` says why; the repaired file is read."""
    known = UsersFile(file)
    assert known.find("anna") is not None
    write(file, "anna nonsense\n")
    assert known.find("anna") is not None
    assert "line 1" in known.problem
    file.unlink()
    assert known.find("anna") is not None
    assert "No such file" in known.problem
    write(file, "otto\n")
    assert known.find("anna") is None
    assert known.problem == ""


def test_without_anything_read_there_is_no_answer(tmp_path: Path):
    """Not "no such user": that would be 535 for a password that is right."""
    known = UsersFile(tmp_path / "users")
    with pytest.raises(UsersError, match="No such file"):
        known.find("anna")
    write(tmp_path / "users", "anna\n")
    assert known.find("anna") is not None


def test_an_edit_keeps_what_it_does_not_touch(tmp_path: Path):
    """Comments, order, owner and mode stay."""
    path = write(tmp_path / "users", f"# people\nanna argon2={ARGON2}\n\n# machines\nprinter\n", 0o600)
    with users.edit(path) as change:
        change.put(User("anna", ARGON2, disabled=True))
        change.put(User("otto"))
        assert change.remove("PRINTER")
        assert not change.remove("nobody")
    assert path.read_text() == f"# people\nanna argon2={ARGON2} disabled\n\n# machines\notto\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["users"]


def test_a_new_file_is_for_owner_and_group(tmp_path: Path):
    """0640, whatever the umask, with a first line that says what it is."""
    path = tmp_path / "users"
    old = os.umask(0o077)
    try:
        with users.edit(path) as change:
            change.put(User("anna", ARGON2))
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text().startswith("# ")
    assert list(users.read(path)) == ["anna"]


def test_a_failed_edit_changes_nothing(file: Path):
    """An exception in the block, or a wrong file."""
    before = file.read_bytes()
    with pytest.raises(RuntimeError), users.edit(file) as change:
        change.put(User("otto"))
        raise RuntimeError
    assert file.read_bytes() == before
    write(file, "anna nonsense\n")
    with pytest.raises(UsersError, match="line 1"), users.edit(file):
        pass


def test_a_full_disk_leaves_the_old_file(file: Path):
    """The new one is written beside, and taken away again."""

    class Full(Fs):
        def write(self, fd, parts):
            raise OSError(28, "No space left on device")

    before = file.read_bytes()
    with pytest.raises(UsersError, match="No space"), users.edit(file, fs=Full()) as change:
        change.put(User("otto"))
    assert file.read_bytes() == before
    assert [each.name for each in file.parent.iterdir()] == ["users"]


def test_the_new_file_is_durable_before_its_name_is(tmp_path: Path):
    """sync, rename, sync of the folder: in this order (fs.py)."""
    calls: list[str] = []

    class Noted(Fs):
        def sync(self, fd):
            calls.append("sync")

        def sync_dir(self, fd):
            calls.append("sync_dir")

        def rename(self, old, new):
            calls.append("rename")
            super().rename(old, new)

    with users.edit(tmp_path / "users", fs=Noted()) as change:
        change.put(User("anna"))
    assert calls == ["sync", "rename", "sync_dir"]


def test_two_editors_do_not_lose_each_others_work(tmp_path: Path):
    """`forkd user add` twice at once: both users are there."""
    path = tmp_path / "users"

    def add(name: str) -> None:
        with users.edit(path) as change:
            change.put(User(name))

    threads = [threading.Thread(target=add, args=(f"user{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(users.read(path)) == 8


def test_nothing_secret_is_in_a_repr():
    """Verifiers are secrets too."""
    shown = repr(User("anna", ARGON2, SCRAM))
    assert ARGON2 not in shown
    assert "stored" not in shown
