"""What is stored instead of a password, and how is one checked against it?

Two verifiers for one password: argon2id (RFC 9106), which needs the password itself (PLAIN, LOGIN), and
that of SCRAM-SHA-256 (RFC 5802, RFC 7677), where the password never crosses the network. The second is the
weaker one if the file is stolen, since PBKDF2 can be guessed at by graphics cards; leave it away
(`forkd user add --no-scram`) where no client uses SCRAM.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final, NamedTuple

import argon2
from scramp.utils import ScramException, saslprep

_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
"""OWASP's choice for servers: 19 MiB and two passes, about 20 ms. RFC 9106's 64 MiB for each guess of each
stranger would be a lever against ourselves."""

SCRAM_ITERATIONS: Final = 20_000
"""Of PBKDF2, in the client at every login: RFC 7677 4 asks for 4,096 at least; 20,000 are 10 ms in C and
half a second in the slowest of phones."""
_SALT_BYTES = 16
_SCRAM = "SCRAM-SHA-256"
_HASH_BYTES = 32

MAX_PASSWORD_BYTES: Final = 1024
"""Nobody types more; PLAIN's message could have 12,288 octets."""


class BadPassword(ValueError):  # noqa: N818
    """A password that cannot be one: empty, too long, or with characters that SASLprep forbids."""


class Scram(NamedTuple):
    """What a server keeps for SCRAM (RFC 5802 3). It is a secret too: who has it can play the server."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Scram({self.iterations} iterations)"

    def __str__(self) -> str:
        """As it stands in the users file: SCRAM-SHA-256$4096:salt$stored:server, base64 (as RFC 5803)."""
        salt, stored, server = map(_base64, (self.salt, self.stored_key, self.server_key))
        return f"{_SCRAM}${self.iterations}:{salt}${stored}:{server}"


def prepared(password: str) -> str:
    """The password as both verifiers see it: SASLprep (RFC 4013), so that a client's keyboard does not
    matter. Raises BadPassword; its text has nothing of the password."""
    try:
        text: str = saslprep(password)
    except ScramException as error:
        raise BadPassword("a character in it may not stand in a password (RFC 4013)") from error
    if not text:
        raise BadPassword("it is empty")
    if len(text.encode()) > MAX_PASSWORD_BYTES:
        raise BadPassword(f"it has more than {MAX_PASSWORD_BYTES} octets")
    return text


def make_argon2(password: str) -> str:
    """A new verifier for PLAIN and LOGIN. Blocks for 20 ms of CPU. Raises BadPassword."""
    return _HASHER.hash(prepared(password))


def check_argon2(verifier: str, password: str) -> bool:
    """Does the password fit? Blocks for 20 ms of CPU without the interpreter's lock. Never raises."""
    try:
        return _HASHER.verify(verifier, prepared(password))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, BadPassword):
        return False


def is_argon2(verifier: str) -> bool:
    """Could check_argon2() work with it?"""
    try:
        argon2.extract_parameters(verifier)
    except argon2.exceptions.InvalidHashError:
        return False
    return True


def make_scram(password: str) -> Scram:
    """A new verifier for SCRAM-SHA-256. Blocks for 10 ms of CPU. Raises BadPassword."""
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password).encode(), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return Scram(salt, SCRAM_ITERATIONS, hashlib.sha256(client_key).digest(), server_key)


def check_scram(verifier: Scram, password: str) -> bool:
    """Does a password that came in the clear (PLAIN, LOGIN) fit? Blocks as make_scram(). Never raises."""
    try:
        octets = prepared(password).encode()
    except BadPassword:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", octets, verifier.salt, verifier.iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(stored, verifier.stored_key)


def read_scram(text: str) -> Scram:
    """What Scram.__str__ wrote. Raises ValueError that says what is wrong with it."""
    try:
        name, salting, keys = text.split("$")
        iterations, salt = salting.split(":")
        stored, server = keys.split(":")
        found = Scram(_octets(salt), int(iterations), _octets(stored), _octets(server))
    except (ValueError, binascii.Error) as error:
        raise ValueError("not of the form SCRAM-SHA-256$iterations:salt$stored:server") from error
    if name != _SCRAM:
        raise ValueError(f"it begins with {_SCRAM}")
    if found.iterations < 4096 or len(found.salt) < 12:
        raise ValueError("4096 iterations and 12 octets of salt at least (RFC 7677 4)")
    if len(found.stored_key) != _HASH_BYTES or len(found.server_key) != _HASH_BYTES:
        raise ValueError("both keys have 32 octets")
    return found


class Nobody:
    """Verifiers of users who do not exist, so that asking for one looks as asking for any other.

    The salt of one name is always the same, on every worker and after every restart: it is made from the
    name and a key of this machine (machine-id(5) asks for such a derived key), so that whoever asks twice
    is not told by a new salt that the name is made up.
    """

    def __init__(self, machine_id: Path = Path("/etc/machine-id")) -> None:
        try:
            seed = machine_id.read_bytes()
        except OSError:
            seed = os.uname().nodename.encode()
        self._key = hmac.digest(seed, b"forkd: salts of users who do not exist", "sha256")
        self._argon2 = make_argon2(secrets.token_hex())

    def argon2(self) -> str:
        """Costs as much to check as a real one, and no password fits."""
        return self._argon2

    def scram(self, user: str) -> Scram:
        """The salt that this name has; no proof fits."""
        salt = hmac.digest(self._key, user.encode("utf-8", "surrogatepass"), "sha256")[:_SALT_BYTES]
        random = secrets.token_bytes
        return Scram(salt, SCRAM_ITERATIONS, random(_HASH_BYTES), random(_HASH_BYTES))


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
