"""What does a client answer to a SASL mechanism? PLAIN, LOGIN, SCRAM-SHA-256, the other side of sasl.py.

exchange = start(choose(...), credentials)
exchange.first()          the initial response, or None: the server begins
exchange.answer(octets)   the response to a challenge; None: give up, with `*`
exchange.convinced        235 may be believed: a server that need not know the password cannot fake it
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import scramp

MIN_ITERATIONS: Final = 4096
"""RFC 7677 4: fewer are for whoever wants to try passwords."""
MAX_ITERATIONS: Final = 500_000
"""What a server can make us compute: half a second."""
_CLEAR: Final = ("PLAIN", "LOGIN")


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to the server. Raises ValueError for a NUL, which no mechanism can carry."""

    user: str
    password: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or not self.password or "\0" in self.user + self.password:
            raise ValueError("user and password must not be empty, nor have a NUL")


class ClientExchange(abc.ABC):
    """One run of a mechanism; start() makes it."""

    convinced = True
    """Success may be believed."""

    @abc.abstractmethod
    def first(self) -> bytes | None:
        """The initial response; None: the server begins."""

    @abc.abstractmethod
    def answer(self, challenge: bytes) -> bytes | None:
        """The response; None: this challenge is none that the mechanism has."""


class _Plain(ClientExchange):
    """RFC 4616."""

    def __init__(self, credentials: Credentials) -> None:
        self._message = f"\0{credentials.user}\0{credentials.password}".encode()

    def first(self) -> bytes:
        return self._message

    def answer(self, challenge: bytes) -> None:  # noqa: ARG002 - there is none
        return None


class _Login(ClientExchange):
    """Two questions, in whatever words (draft-murchison-sasl-login)."""

    def __init__(self, credentials: Credentials) -> None:
        self._answers = [credentials.password.encode(), credentials.user.encode()]

    def first(self) -> None:
        return None

    def answer(self, challenge: bytes) -> bytes | None:  # noqa: ARG002 - the words differ from server to server
        return self._answers.pop() if self._answers else None


class _Scram(ClientExchange):
    """RFC 5802, 7677, without channel binding."""

    def __init__(self, credentials: Credentials, nonce: str | None) -> None:
        self.convinced = False
        self._client: Any = scramp.ScramClient(
            ["SCRAM-SHA-256"], credentials.user, credentials.password, c_nonce=nonce
        )
        self._challenges = 0

    def first(self) -> bytes:
        return str(self._client.get_client_first()).encode()

    def answer(self, challenge: bytes) -> bytes | None:
        self._challenges += 1
        try:
            text = challenge.decode("utf-8")
            if self._challenges == 1:
                self._client.set_server_first(text)
                if not MIN_ITERATIONS <= int(self._client.iterations) <= MAX_ITERATIONS:
                    return None
                return str(self._client.get_client_final()).encode()
            if self._challenges == 2:
                self._client.set_server_final(text)
                self.convinced = True
                return b""
        except (scramp.ScramException, ValueError):  # malformed, or not the one who knows our password
            pass
        return None


def choose(offered: Sequence[str], wanted: Sequence[str], *, clear: bool) -> str | None:
    """The best mechanism that both have; None: there is none. `clear`: one that gives the password away
    will do."""
    return next((name for name in wanted if name in offered and (clear or name not in _CLEAR)), None)


def start(mechanism: str, credentials: Credentials, *, nonce: str | None = None) -> ClientExchange:
    """Begin an exchange. `nonce`: tests know it before, all others leave it to chance.

    Raises ValueError for a name or password that the mechanism cannot have (SASLprep).
    """
    if mechanism == "PLAIN":
        return _Plain(credentials)
    if mechanism == "LOGIN":
        return _Login(credentials)
    try:
        return _Scram(credentials, nonce)
    except scramp.ScramException as error:
        raise ValueError("a user name or password that SCRAM cannot carry") from error
