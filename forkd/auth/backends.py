"""Who is asked about a login and its password? One face for the users file, Dovecot and programs.

A backend answers Accepted or Refused; everything else is Unavailable, which is 454 for the client: a
backend that is in trouble must never make a right password wrong, nor a wrong one right.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal, Protocol, TypeVar

from forkd.auth import checkpassword, dovecot, passwords
from forkd.auth.passwords import Nobody, Scram
from forkd.auth.pool import Overloaded, Pool
from forkd.auth.users import User, UsersError, UsersFile

T = TypeVar("T")

PASSWORD_MECHANISMS: Final = frozenset({"PLAIN", "LOGIN"})
LOOK_S: Final = 10.0
CHECKPASSWORD: Final = "@checkpassword"
"""Under this name master keeps the program's zygote."""


class Unavailable(Exception):  # noqa: N818
    """No answer about this password now: 454 4.7.0. The text is for the log, and has no secret."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a backend may know of the session, for its own rules and log."""

    session: str
    client_ip: str
    client_port: int
    local_ip: str
    local_port: int
    secured: bool
    """The client speaks TLS with us."""


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """What a client said with PLAIN or LOGIN."""

    user: str
    password: str = dataclasses.field(repr=False)
    authorize_as: str
    """Whom it wants to act as; empty: as `user`."""
    facts: Facts


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """The password is right; `user` is the name by which the backend knows him."""

    user: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """Wrong password, nobody is called so, he may not: `reason` is for the log, the client is told one."""

    reason: str


Answer = Accepted | Refused


class Backend(Protocol):
    """All of it runs on the loop and never holds it; blocking work is in threads or other processes."""

    name: ClassVar[str]

    @property
    def mechanisms(self) -> frozenset[str]:
        """SASL mechanisms it can be asked by, as far as known now."""

    async def open(self) -> None:
        """Before the first client: find out what may be found out. Never raises for a backend in trouble."""

    async def check(self, credentials: Credentials) -> Answer:
        """PLAIN, LOGIN. Raises Unavailable."""

    def addresses(self, user: str) -> tuple[str, ...] | None:
        """What the user may send from (senders.py); None: no such user any more."""

    def close(self) -> None:
        """Let go of threads and connections."""


class UsersBackend:
    """The users file, in one of several workers.

    Looked at with each question, and every LOOK_S without one: what is kept when the file is broken one
    day is then nearly the same in all workers.
    """

    name: ClassVar[str] = "users"

    def __init__(self, path: Path, *, on_state: Callable[[Literal["read", "unreadable"], str], None]) -> None:
        self._file = UsersFile(path)
        self._on_state = on_state
        self._said = ""
        self._pool = Pool()
        self._nobody: Nobody | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def mechanisms(self) -> frozenset[str]:
        """All: whether a user has the one verifier or the other nobody is told."""
        return PASSWORD_MECHANISMS | {"SCRAM-SHA-256"}

    async def open(self) -> None:
        """Read the file; what is wrong with it is logged, and each AUTH is answered 454 until it is right."""
        await self._look()
        self._looking = asyncio.get_running_loop().create_task(self._look_on())

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look()

    async def _look(self) -> None:
        with contextlib.suppress(UsersError, Overloaded):
            await self._pool.run(self._file.users)
        self._tell()

    async def check(self, credentials: Credentials) -> Answer:
        """One argon2 computation, whoever it is. Raises Unavailable."""
        if credentials.authorize_as not in ("", credentials.user):
            return Refused("asked to act for somebody else")
        return await self._run(self._check, credentials.user, credentials.password)

    async def scram(self, login: str) -> tuple[str | None, Scram]:
        """(the user's name or None, a verifier to go on with): one that no proof fits where there is none."""
        return await self._run(self._scram, login)

    def addresses(self, user: str) -> tuple[str, ...] | None:
        """As the file has it now. Blocks for a stat, and after a change for reading the file."""
        try:
            found = self._file.find(user)
        except UsersError:
            return None
        finally:
            self._tell()
        return None if found is None or found.disabled else found.addresses

    def close(self) -> None:
        """The threads end when they have done what they do."""
        if self._looking is not None:
            self._looking.cancel()
        self._pool.close()

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        try:
            return await self._pool.run(work, *arguments)
        except UsersError as error:
            raise Unavailable(str(error)) from error
        except Overloaded as error:
            raise Unavailable(str(error)) from error
        finally:
            self._tell()

    def _check(self, login: str, password: str) -> Answer:
        user = self._file.find(login)
        right = self._fits(user, password)
        if user is None:
            return Refused("no such user")
        if not right:
            return Refused("wrong password" if user.argon2 or user.scram else "has no password")
        return Refused("disabled") if user.disabled else Accepted(user.login)

    def _fits(self, user: User | None, password: str) -> bool:
        if user is not None and user.argon2:
            return passwords.check_argon2(user.argon2, password)
        if user is not None and user.scram is not None:
            return passwords.check_scram(user.scram, password)
        passwords.check_argon2(self._made_up().argon2(), password)
        return False

    def _scram(self, login: str) -> tuple[str | None, Scram]:
        user = self._file.find(login)
        if user is None or user.scram is None or user.disabled:
            return None, self._made_up().scram(login)
        return user.login, user.scram

    def _made_up(self) -> Nobody:
        if self._nobody is None:
            self._nobody = Nobody()
        return self._nobody

    def _tell(self) -> None:
        """Once for each change of what is wrong."""
        problem = self._file.problem
        if problem != self._said:
            self._said = problem
            self._on_state("unreadable" if problem else "read", problem)


class CheckpasswordBackend:
    """A checkpassword program, in a sandbox of its own for each question.

    run  runs the program with these descriptors and returns its wait status; raises OSError or
         TimeoutError when it could not, or took too long
    """

    name: ClassVar[str] = "checkpassword"

    def __init__(self, run: Callable[[Mapping[int, int]], Awaitable[int]]) -> None:
        self._run = run

    @property
    def mechanisms(self) -> frozenset[str]:
        """Those that bring the password."""
        return PASSWORD_MECHANISMS

    async def open(self) -> None:
        """Nothing: its zygote is master's."""

    async def check(self, credentials: Credentials) -> Answer:
        """One run of the program. Raises Unavailable."""
        if credentials.authorize_as not in ("", credentials.user):
            return Refused("asked to act for somebody else")
        told = checkpassword.told(credentials.user, credentials.password)
        if told is None:
            return Refused("login and password are too long, or have a NUL")
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            # 512 octets at most go into any pipe at once.
            os.write(writer, told)
        finally:
            os.close(writer)
        try:
            status = await self._run({checkpassword.DESCRIPTOR: reader})
            result = checkpassword.meant(status)
        except (OSError, TimeoutError, checkpassword.Trouble) as error:
            raise Unavailable(f"checkpassword: {str(error) or type(error).__name__}") from error
        finally:
            os.close(reader)
        return Accepted(credentials.user) if result == "ok" else Refused("the program says no")

    def addresses(self, user: str) -> tuple[str, ...] | None:  # noqa: ARG002 - Backend
        """A program tells nothing of that: his own."""
        return ()

    def close(self) -> None:
        """Nothing is held."""


class DovecotBackend:
    """Dovecot's auth service."""

    name: ClassVar[str] = "dovecot"

    def __init__(
        self,
        path: Path,
        *,
        on_mechanisms: Callable[[], None],
        on_state: Callable[[dovecot.State, str], None],
    ) -> None:
        self._mechanisms = PASSWORD_MECHANISMS
        self._on_mechanisms = on_mechanisms
        self._client = dovecot.Client(path, on_ready=self._learn, on_state=on_state)

    @property
    def mechanisms(self) -> frozenset[str]:
        """PLAIN and LOGIN until Dovecot has said what it offers: both are asked of it as PLAIN."""
        return self._mechanisms

    async def open(self) -> None:
        """Connect, to learn the mechanisms; a Dovecot that comes later is found when somebody logs in."""
        try:
            await self._client.connect()
        except dovecot.Unreachable:
            return  # said by on_state

    async def check(self, credentials: Credentials) -> Answer:
        """As PLAIN, whatever the client used. Raises Unavailable."""
        parts = (credentials.authorize_as, credentials.user, credentials.password)
        if any("\0" in part for part in parts):
            return Refused("a NUL")
        response = "\0".join(parts).encode("utf-8", "surrogatepass")
        try:
            exchange = await self.begin("PLAIN", credentials.facts, response)
            answer = await exchange.answer()
            if isinstance(answer, dovecot.Continue):
                exchange.cancel()
                raise Unavailable("dovecot: a challenge to PLAIN")
        except dovecot.Unreachable as error:
            raise Unavailable(f"dovecot: {error}") from error
        except ValueError:
            return Refused("login and password are too long")
        return self.judge(answer, credentials.user)

    async def begin(self, mechanism: str, facts: Facts, response: bytes | None) -> dovecot.Exchange:
        """An exchange whose messages are only handed on (SCRAM). Raises dovecot.Unreachable, ValueError."""
        about = [
            "nologin",
            *(["secured"] if facts.secured else []),
            f"session={facts.session}",
            f"lip={facts.local_ip}",
            f"rip={facts.client_ip}",
            f"lport={facts.local_port}",
            f"rport={facts.client_port}",
        ]
        return await self._client.begin(mechanism, about, response)

    @staticmethod
    def judge(answer: dovecot.Right | dovecot.Wrong, user: str) -> Answer:
        """What an end of an exchange says. Raises Unavailable for Dovecot's own troubles."""
        if isinstance(answer, dovecot.Right):
            return Accepted(answer.user or user)
        if answer.temporary:
            raise Unavailable(f"dovecot: {answer.reason}")
        return Refused(answer.reason or "dovecot says no")

    def addresses(self, user: str) -> tuple[str, ...] | None:  # noqa: ARG002 - Backend
        """Dovecot tells nothing of that: his own."""
        return ()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _learn(self, offered: frozenset[str]) -> None:
        known = PASSWORD_MECHANISMS if "PLAIN" in offered else frozenset()
        if "SCRAM-SHA-256" in offered:
            known |= {"SCRAM-SHA-256"}
        if known != self._mechanisms:
            self._mechanisms = known
            self._on_mechanisms()


async def within(seconds: float, answer: Awaitable[Answer]) -> Answer:
    """The answer, if it comes in time. Raises Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as error:
        raise Unavailable(f"no answer within {seconds:g} s") from error
