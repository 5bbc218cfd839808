"""What do transports know that nobody else may? Certificates, keys and passwords for other servers, read by
master and handed to qmgr sealed.

As with certificates.py: master alone may be allowed to open the files, and no role that is forked later has a
copy of them in its memory. They are read at start-up, where a bad one is an error, and again for each qmgr
that is started later; one that is bad then is logged, and what was in force stays so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from forkd import log
from forkd.config.next_hop_schema import MAX_PASSWORD_OCTETS, NextHop, password_length
from forkd.config.problems import toml_key
from forkd.config.schema import Config
from forkd.exits import Exit
from forkd.master.certificates import BadFile, close_all, sealed
from forkd.master.errors import StartError

KEYS = ("tls_ca", "tls_certificate", "tls_key", "password_file")
"""Of a transport, in the order of RoleStart.next_hops."""


@dataclasses.dataclass(slots=True, eq=False)
class Held:
    """Of one transport: the files by key (None: it has none), and what they held when they were read."""

    name: str
    paths: tuple[Path | None, ...]
    descriptors: tuple[int, ...] = ()


class NextHopFiles:
    """From open() to close(): what a qmgr that is forked is given."""

    def __init__(self, config: Config) -> None:
        self._held = [
            Held(name, _paths(table))
            for name, table in config.transport.items()
            if isinstance(table, NextHop) and any(_paths(table))
        ]

    @property
    def paths(self) -> list[Path]:
        """All that are read."""
        return [path for held in self._held for path in held.paths if path is not None]

    def open(self) -> None:
        """Read all of them. Raises StartError, which names table, key and file."""
        for held in self._held:
            try:
                _take(held)
            except BadFile as error:
                raise StartError(Exit.CONFIG, f"{_shown(held, error)}{error}") from error

    def current(self) -> dict[str, tuple[int, ...]]:
        """For a qmgr that is forked now: name of a transport -> descriptors, one for each of KEYS."""
        for held in self._held:
            try:
                _take(held)
            except BadFile as error:
                reason = f"{_shown(held, error)}{error}"
                log.certificate(act="kept", name=held.name, reason=reason, level="error")
        return {held.name: held.descriptors for held in self._held}

    def close(self) -> None:
        """Give the memory files back; qmgr has copies."""
        for held in self._held:
            close_all(held.descriptors)
            held.descriptors = ()


def _paths(table: NextHop) -> tuple[Path | None, ...]:
    authorities = None
    if table.verifies and not table.tls_fingerprints:
        authorities = table.tls_ca or _of_system()
    certificate = None if table.tls == "off" else table.tls_certificate
    key = None if certificate is None else table.tls_key or certificate
    return authorities, certificate, key, table.password_file


def _of_system() -> Path | None:
    """Whom this machine trusts, in one file."""
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile or paths.openssl_cafile)


def _shown(held: Held, error: BadFile) -> str:
    key = next((key for key, path in zip(KEYS, held.paths, strict=True) if path == error.path), "")
    return f"[transport.{toml_key(held.name)}] {key} = "


def _take(held: Held) -> None:
    """Put the files into force. Raises BadFile; what was in force still is then."""
    fresh: list[int] = []
    try:
        for path in held.paths:
            fresh.append(-1 if path is None else sealed(path))
        _prove(held, fresh)
    except BaseException:
        close_all(fresh)
        raise
    close_all(held.descriptors)
    held.descriptors = tuple(fresh)


def _prove(held: Held, descriptors: list[int]) -> None:
    """OpenSSL can use them, and the password is one. Raises BadFile."""
    authorities, chain, key, _ = (f"/proc/self/fd/{number}" for number in descriptors)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with _bad(held.paths[0], "no PEM certificate in it, or not a whole one"):
        if held.paths[0] is not None:
            context.load_verify_locations(authorities)
    reason = "the key does not fit the certificate, one of both is no PEM, or the key has a passphrase"
    with _bad(held.paths[2], reason):
        if held.paths[1] is not None:
            context.load_cert_chain(chain, key, password="")
    if held.paths[3] is not None:
        octets = bytearray(MAX_PASSWORD_OCTETS + 2)
        del octets[os.preadv(descriptors[3], [octets], 0) :]
        try:
            password_length(octets)
        except ValueError as error:
            raise BadFile(held.paths[3], str(error)) from error
        finally:
            octets[:] = bytes(len(octets))


@contextlib.contextmanager
def _bad(path: Path | None, reason: str) -> Iterator[None]:
    try:
        yield
    except (ssl.SSLError, OSError) as error:
        assert path is not None
        raise BadFile(path, reason) from error
