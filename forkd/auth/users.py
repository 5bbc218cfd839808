"""Who are our users? The users file: read when it changed, rewritten whole or not at all (FORMAT.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from forkd.auth import passwords
from forkd.auth.passwords import Scram
from forkd.fs import REAL, Fs

MAX_BYTES = 64 << 20
"""A file with 200,000 users has less."""
MAX_LOGIN_BYTES = 255

HEADER = "# The users of forkd, written by `forkd user`: login, then argon2=, scram=, send=, disabled.\n"
"""First line of a new file."""

_NOT_FOR = stat.S_IWGRP | stat.S_IRWXO
"""Nobody but its owner may change the file, and nobody but its owner and its group may read it."""


class UsersError(Exception):
    """The file is not there, not readable, for too many eyes, or wrong. The text names file and line."""


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """One line of the file.

    login      as the user types it; compared without case
    argon2     verifier for PLAIN and LOGIN, or empty: these are refused then
    scram      verifier for SCRAM-SHA-256, or None
    addresses  what he may send from (senders.py); empty: his own address
    disabled   answered as one whose password is wrong
    """

    login: str
    argon2: str = dataclasses.field(default="", repr=False)
    scram: Scram | None = dataclasses.field(default=None, repr=False)
    addresses: tuple[str, ...] = ()
    disabled: bool = False

    def line(self) -> str:
        """As it stands in the file, without the line's end."""
        fields = [self.login]
        if self.argon2:
            fields.append(f"argon2={self.argon2}")
        if self.scram is not None:
            fields.append(f"scram={self.scram}")
        if self.addresses:
            fields.append(f"send={','.join(self.addresses)}")
        if self.disabled:
            fields.append("disabled")
        return " ".join(fields)


def key(login: str) -> str:
    """Two logins are one user when their keys are equal."""
    return login.casefold()


def login_problem(login: str) -> str:
    """Why this cannot be a login, or empty."""
    if not login:
        return "a login has one character at least"
    if len(login.encode("utf-8", "surrogatepass")) > MAX_LOGIN_BYTES:
        return f"a login has {MAX_LOGIN_BYTES} octets at most"
    if not login.isprintable() or any(character.isspace() for character in login):
        return "a login has no white space and no control characters"
    if login.startswith("#") or "=" in login or "," in login:
        return "a login has no `=` or `,` and does not begin with `#`"
    try:
        prepared = passwords.prepared(login)
    except passwords.BadPassword:
        return "a character in it may not stand in a login (RFC 4013)"
    return "" if prepared == login else f"clients send this login as {prepared!r} (RFC 4013): write it so"


def parse(text: str, *, name: str) -> dict[str, User]:
    """key(login) -> user. Raises UsersError for the first wrong line; `name` is the file's, for its text."""
    users: dict[str, User] = {}
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            user = _user(fields)
        except ValueError as error:
            raise UsersError(f"{name}, line {number}: {error}") from error
        if key(user.login) in users:
            raise UsersError(f"{name}, line {number}: {user.login} stands there twice")
        users[key(user.login)] = user
    return users


def _user(fields: list[str]) -> User:
    if problem := login_problem(fields[0]):
        raise ValueError(problem)
    given: dict[str, str] = {}
    for field in fields[1:]:
        word, _, value = field.partition("=")
        if word not in ("argon2", "scram", "send", "disabled"):
            raise ValueError("after the login come argon2=, scram=, send= and disabled, nothing else")
        if word in given:
            raise ValueError(f"{word} stands there twice")
        if (word == "disabled") == ("=" in field):
            raise ValueError(f"{word} has {'no' if word == 'disabled' else 'a'} value")
        given[word] = value
    argon2 = given.get("argon2", "")
    if argon2 and not passwords.is_argon2(argon2):
        raise ValueError("argon2= is no argon2 verifier; `forkd user passwd` makes one")
    try:
        scram = passwords.read_scram(given["scram"]) if "scram" in given else None
    except ValueError as error:
        raise ValueError(f"scram= is {error}") from error
    addresses = tuple(each for each in given.get("send", "").split(",") if each)
    return User(fields[0], argon2, scram, addresses, "disabled" in given)


class UsersFile:
    """The file as a server reads it: looked at (one stat) at each question, read when it has changed.

    Usable from several threads. A file that is wrong after a change keeps what was read before, and
    `problem` says why; without anything read before, questions raise UsersError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._users: Mapping[str, User] | None = None
        self.problem = ""
        """Why the file as it stands now is not in use."""

    def find(self, login: str) -> User | None:
        """The user, disabled or not. Blocks for a stat, and for the file when it changed. UsersError."""
        return self.users().get(key(login))

    def users(self) -> Mapping[str, User]:
        """All of them, by key(). As find()."""
        with self._lock:
            self._look()
            if self._users is None:
                raise UsersError(self.problem)
            return self._users

    def _look(self) -> None:
        try:
            status = self.path.stat()
            seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            if seen == self._seen:
                return
            self._seen = seen
            self._users = read(self.path)
            self.problem = ""
        except UsersError as error:
            self.problem = str(error)
        except OSError as error:
            self._seen = None
            self.problem = f"{self.path}: {error.strerror}"


def read(path: Path) -> dict[str, User]:
    """The file as it is now. Raises UsersError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsersError(f"{path}: not a regular file")
            if status.st_mode & _NOT_FOR:
                mode = stat.S_IMODE(status.st_mode)
                raise UsersError(
                    f"{path}: its mode is {mode:04o}; it holds passwords' verifiers: `chmod 0640` (or 0600)"
                )
            octets = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsersError(f"{path}: {error.strerror}") from error
    if len(octets) > MAX_BYTES:
        raise UsersError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
    try:
        return parse(octets.decode("utf-8"), name=str(path))
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise UsersError(f"{path}, line {line}: not UTF-8") from error


class Edit:
    """The file as it is changed: by edit(), which holds it against other editors of ours."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.split("\n") if text else [*HEADER.split("\n")]
        if self._lines and not self._lines[-1]:
            self._lines.pop()
        self.users = parse(text, name=name)
        self.changed = False

    def put(self, user: User) -> None:
        """Add the user, or replace his line where it stands. Raises ValueError for what is no login."""
        if problem := login_problem(user.login):
            raise ValueError(problem)
        _user(user.line().split())
        at = self._at(user.login)
        if at is None:
            self._lines.append(user.line())
        else:
            self._lines[at] = user.line()
        self.users[key(user.login)] = user
        self.changed = True

    def remove(self, login: str) -> bool:
        """Take the user away; false when he is not there."""
        at = self._at(login)
        if at is None:
            return False
        del self._lines[at]
        del self.users[key(login)]
        self.changed = True
        return True

    def octets(self) -> bytes:
        """The whole file."""
        return ("\n".join(self._lines) + "\n").encode("utf-8")

    def _at(self, login: str) -> int | None:
        for number, line in enumerate(self._lines):
            fields = line.split()
            if fields and not fields[0].startswith("#") and key(fields[0]) == key(login):
                return number
        return None


@contextlib.contextmanager
def edit(path: Path, *, fs: Fs = REAL, owner: tuple[int, int] | None = None) -> Iterator[Edit]:
    """Change the file: comments and other lines stay, a reader sees the old one or the new one, whole.

    The block's end writes (a sync, a rename, a sync of the folder); an exception in it changes nothing.
    A new file is made with mode 0640.

    owner    (uid, gid) of a new file; an old one keeps its own, and its mode
    Blocks   while another `forkd user` holds the file
    Raises   UsersError
    """
    try:
        with _held(path.parent):
            old = _stat(path)
            if old is not None:
                text = path.read_text("utf-8")
            change = Edit(text if old is not None else "", str(path))
            yield change
            if change.changed:
                _replace(fs, path, change.octets(), old, owner)
    except UnicodeDecodeError as error:
        raise UsersError(f"{path}: not UTF-8") from error
    except OSError as error:
        raise UsersError(f"{error.filename or path}: {error.strerror}") from error


def _replace(
    fs: Fs, path: Path, octets: bytes, old: os.stat_result | None, owner: tuple[int, int] | None
) -> None:
    beside = str(path.with_name(f".{path.name}.new"))
    with contextlib.suppress(FileNotFoundError):
        fs.unlink(beside)  # of one who was killed; we hold the folder
    descriptor = fs.create(beside, 0o600)
    try:
        if old is not None:
            _keep_owner(descriptor, old, path)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
        else:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, 0o640)
        fs.write(descriptor, [octets])
        fs.sync(descriptor)
    except BaseException:
        fs.unlink(beside)
        raise
    finally:
        fs.close(descriptor)
    fs.rename(beside, str(path))
    folder = fs.open_dir(str(path.parent))
    try:
        fs.sync_dir(folder)
    finally:
        fs.close(folder)


def _keep_owner(descriptor: int, old: os.stat_result, path: Path) -> None:
    """A file that other people may read afterwards than before would be worse than an error."""
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) == (old.st_uid, old.st_gid):
        return
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except PermissionError as error:
        raise UsersError(
            f"{path}: uid {os.geteuid()} cannot keep its owner and group ({old.st_uid}:{old.st_gid}); "
            "change it as root"
        ) from error


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A lock on the folder: the file itself is another one after each change."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def logins(users: Iterable[User]) -> list[str]:
    """Their logins, sorted as people look for them."""
    return sorted((user.login for user in users), key=str.casefold)
