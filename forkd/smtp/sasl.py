"""What do the client's answers to a SASL mechanism say? PLAIN, LOGIN, SCRAM-SHA-256, OAUTHBEARER.

Sans-I/O like the rest: a step takes what the client sent and says what comes next. Whether a password is
right, or which verifier a user has, is asked of the caller, who may take his time over it.

    exchange = start("SCRAM-SHA-256")
    step = exchange.step(event.initial)      # of Auth; where it is None, send first() as a challenge
    Challenge(data)          -> send it (replies.challenge), and step() again with the response
    NeedVerifier(user)       -> step = exchange.verifier(look_up(user))
    Password, Bearer         -> the backend decides: 235, or denied() and 535
    Proven(user, final)      -> send `final` as a challenge; the empty response is answered 235
    Failed(why)              -> 535; `why` is for the log, and holds no secret

A step never raises, whatever the client sent, and keeps no more than one of its messages. Names are
prepared by SASLprep (RFC 4013), so that one account has one name under all mechanisms; passwords come as
sent, because a backend that passes them on may not change them.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import scramp
from scramp.utils import ServerError, saslprep

MAX_NAME_OCTETS: Final = 255
"""What every server must take (RFC 4616 2); more is nobody's name."""
MAX_SCRAM_OCTETS: Final = 4096
"""Of one message of SCRAM: our answer repeats the client's nonce, and must fit into a line."""

# --- what a step can give -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Challenge:
    """Send it (replies.challenge), and step() again with the response."""

    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Password:
    """The client gave a password, to be verified; `authorize_as` is whom it wants to act for, or empty."""

    user: str
    password: str = dataclasses.field(repr=False)
    authorize_as: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NeedVerifier:
    """Look up this user's verifier, and go on with Exchange.verifier()."""

    user: str


@dataclasses.dataclass(frozen=True, slots=True)
class Proven:
    """The client knows the password of this user; `final` shows it that we know its verifier.

    SMTP has no room for that in 235: it is one more challenge, whose answer is empty (RFC 4954 4).
    """

    user: str
    final: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Bearer:
    """The client gave a token; `user` is whom it wants to act for, empty: whom the token names."""

    user: str
    token: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """The exchange is over: 535."""

    why: str


Step = Challenge | Password | NeedVerifier | Proven | Bearer | Failed


class ScramVerifier(NamedTuple):
    """What a server keeps of a password for SCRAM-SHA-256 (RFC 5802 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"ScramVerifier({self.iterations} iterations)"


# --- mechanisms ---------------------------------------------------------------------------------------


class Exchange(abc.ABC):
    """One run of a mechanism; start() makes it. After anything but Challenge and NeedVerifier it is over."""

    def first(self) -> bytes:
        """The challenge where AUTH came without an initial response: empty where the client begins."""
        return b""

    @abc.abstractmethod
    def step(self, data: bytes) -> Step:
        """What the client sent means."""

    def verifier(self, verifier: ScramVerifier) -> Step:  # noqa: ARG002 - SCRAM's, and nobody else's
        """Go on after NeedVerifier.

        Where there is no such user the client shall not notice: give a verifier that no password fits, with
        a salt that is always the same for one name, and as many iterations as real ones have (RFC 5802 9).
        """
        return Failed("no verifier was asked for")

    def denied(self) -> Challenge | Failed:
        """The backend has said no to Password or Bearer: what the client is told before 535, if anything."""
        return Failed("denied")


class _Plain(Exchange):
    """RFC 4616: everything in one message."""

    def step(self, data: bytes) -> Step:
        parts = data.split(b"\0")
        if len(parts) != 3:
            return Failed("malformed message")
        return _password(*parts)


class _Login(Exchange):
    """Never a standard, but what old clients know: two questions (draft-murchison-sasl-login)."""

    def __init__(self) -> None:
        self._user: bytes | None = None

    def first(self) -> bytes:
        """The server begins."""
        return b"Username:"

    def step(self, data: bytes) -> Step:
        if self._user is None:
            self._user = data
            return Challenge(b"Password:")
        return _password(b"", self._user, data)


def _password(authorize_as: bytes, user: bytes, password: bytes) -> Password | Failed:
    try:
        secret = password.decode("utf-8")
        name, other = _name(user), _name(authorize_as) if authorize_as else ""
    except ValueError:
        return Failed("malformed name or password")
    if not secret or "\0" in secret:
        return Failed("malformed name or password")
    return Password(name, secret, other)


def _name(octets: bytes) -> str:
    if len(octets) > MAX_NAME_OCTETS:
        raise ValueError("too long")
    try:
        name = str(saslprep(octets.decode("utf-8")))
    except scramp.ScramException as error:
        raise ValueError("a character that no name may have") from error
    if not name:
        raise ValueError("empty")
    return name


class _Scram(Exchange):
    """RFC 5802, 7677, without channel binding. Nobody acts for somebody else (scramp refuses an authzid)."""

    def __init__(self, nonce: str | None) -> None:
        self._nonce = nonce
        self._first = ""
        self._user = ""
        self._server: Any = None

    def step(self, data: bytes) -> Step:
        try:
            text = _scram_text(data)
        except ValueError:
            return Failed("malformed message")
        if self._server is not None:
            return self._finish(text)
        if self._first:
            return Failed("a verifier is awaited")
        self._user = _scram_name(text)
        self._first = text
        return NeedVerifier(self._user) if self._user else Failed("malformed message")

    def verifier(self, verifier: ScramVerifier) -> Step:
        """See Exchange."""
        if not self._user or self._server is not None:
            return Failed("no verifier was asked for")
        self._server = _scram_server(lambda _: _as_scramp_wants(verifier), self._nonce)
        try:
            self._server.set_client_first(self._first)
            return Challenge(self._server.get_server_first().encode())
        except scramp.ScramException:
            return Failed("the verifier is none")  # the message was read before, so it is not that

    def _finish(self, final: str) -> Step:
        try:
            self._server.set_client_final(final)
            return Proven(self._user, self._server.get_server_final().encode())
        except scramp.ScramException as error:
            # Its words may repeat the client's, so they are not for a log.
            wrong = error.server_error is ServerError.INVALID_PROOF
            return Failed("wrong password" if wrong else "malformed message")


def _scram_server(verifier_of: Callable[[str], Any], nonce: str | None) -> Any:
    return scramp.ScramMechanism("SCRAM-SHA-256").make_server(verifier_of, s_nonce=nonce)


def _as_scramp_wants(verifier: ScramVerifier) -> tuple[bytes, bytes, bytes, int]:
    return verifier.salt, verifier.stored_key, verifier.server_key, verifier.iterations


def _scram_name(first: str) -> str:
    """The user that a first message names, or empty where it is none."""
    found: list[str] = []

    def note(name: str) -> tuple[bytes, bytes, bytes, int]:
        found.append(name)
        return bytes(16), bytes(32), bytes(32), 4096

    try:
        # scramp wants the verifier while it reads the message that says whose: so it is read twice.
        _scram_server(note, None).set_client_first(first)
    except scramp.ScramException:
        return ""
    return found[0] if len(found[0].encode()) <= MAX_NAME_OCTETS else ""


def scram_user(first: bytes) -> str:
    """The user that a first message of SCRAM names, or empty; for who passes the exchange on unread."""
    try:
        return _scram_name(_scram_text(first))
    except ValueError:
        return ""


def _scram_text(data: bytes) -> str:
    if len(data) > MAX_SCRAM_OCTETS:
        raise ValueError("too long")
    return data.decode("utf-8")


_BEARER = re.compile(r"n,(?:a=([^,]*))?,\x01((?:[A-Za-z]+=[^\x01]*\x01)*)\x01")
_TOKEN = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.I)
"""b64token of RFC 6750 2.1."""


class _OAuthBearer(Exchange):
    """RFC 7628: a token of OAuth 2, which only an `auth` hook can judge."""

    def __init__(self) -> None:
        self._denied = False

    def step(self, data: bytes) -> Step:
        if self._denied:
            return Failed("denied")
        try:
            match = _BEARER.fullmatch(data.decode("utf-8"))
            if match is None:
                return Failed("malformed message")
            pairs = [pair.partition("=") for pair in match[2].split("\x01")[:-1]]
            user = _sasl_name(match[1] or "")
        except ValueError:
            return Failed("malformed message")
        tokens = [value for key, _, value in pairs if key.lower() == "auth"]
        found = _TOKEN.fullmatch(tokens[0]) if len(tokens) == 1 else None
        return Failed("malformed message") if found is None else Bearer(user, found[1])

    def denied(self) -> Challenge | Failed:
        """An error the client can read, which it answers before 535 (RFC 7628 3.2.2, 3.2.3)."""
        self._denied = True
        return Challenge(b'{"status":"invalid_token"}')


def _sasl_name(text: str) -> str:
    """saslname of RFC 5801 4: `=2C` is a comma, `=3D` an equals sign."""
    if not text:
        return ""
    if re.search(r"=(?!2C|3D)", text):
        raise ValueError("malformed name")
    return _name(text.replace("=2C", ",").replace("=3D", "=").encode())


@dataclasses.dataclass(frozen=True, slots=True)
class Mechanism:
    """One row: what it is, and what the caller must be able to do."""

    name: str
    source: str
    needs: str
    """`password`: verify a password; `verifier`: know the user's ScramVerifier; `token`: judge a token."""


MECHANISMS: Mapping[str, Mechanism] = {
    row.name: row
    for row in (
        Mechanism("PLAIN", "RFC 4616", "password"),
        Mechanism("LOGIN", "draft-murchison-sasl-login-00", "password"),
        Mechanism("SCRAM-SHA-256", "RFC 7677", "verifier"),
        Mechanism("OAUTHBEARER", "RFC 7628", "token"),
    )
}


def start(mechanism: str, *, nonce: str | None = None) -> Exchange:
    """Begin an exchange of one of MECHANISMS.

    nonce  ours, for SCRAM; tests know it before, all others leave it to chance.

    Raises KeyError for an unknown mechanism, which the engine has refused before.
    """
    match MECHANISMS[mechanism].name:
        case "PLAIN":
            return _Plain()
        case "LOGIN":
            return _Login()
        case "SCRAM-SHA-256":
            return _Scram(nonce)
        case _:
            return _OAuthBearer()
