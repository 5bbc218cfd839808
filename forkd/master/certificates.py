"""Which certificates are in force? Read by master, proved before they are used, handed on sealed.

Master may be root, workers are not: it alone opens the files. What it has read lies in memory files that
are sealed against change; their descriptors go to workers, by the fork or over the channel. The key never
is in master's own memory (the kernel copies it), so no role that is forked later has a copy of it.

A pair is proved by a handshake with itself, in memory: the key fits, the chain loads, OpenSSL's own rules
about sizes and digests hold, and what a client would say of its dates is a note for the log. At start-up a
bad pair is an error; later it is logged once, and what was in force stays so, also when the files are gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import ssl
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from forkd import log
from forkd.config.schema import Config
from forkd.exits import Exit
from forkd.master.child import Child
from forkd.master.errors import StartError
from forkd.rpc import passing
from forkd.rpc.messages import Certificate
from forkd.sealed import memory_file, seal

MAX_FILE_BYTES = 1 << 20
"""A chain has some 10 KiB, a folder of client CAs half a megabyte."""
SOON_S = 14 * 86_400.0
"""Renewal has gone wrong when this little is left: ACME clients renew 30 days before the end."""

_EXPIRED = {9, 10}
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED."""


class BadFile(Exception):  # noqa: N818 - the admin's fault, not ours
    """A file that cannot be used; `path` and one line why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


Look = tuple[int, ...]
"""What stat() says of a file; () when it is not there."""


@dataclasses.dataclass(slots=True, eq=False)
class Held:
    """One pair, or tls.client_ca, as it is in force.

    name         of the [certificate]; empty: tls.client_ca
    paths        chain and key (the same path where the key stands in the chain's file), or the one file
    descriptors  sealed memory files, as many as paths
    seen         of the files, when they were last read
    serial       counts up with each pair that came into force
    """

    name: str
    paths: tuple[Path, ...]
    descriptors: tuple[int, ...] = ()
    seen: tuple[Look, ...] = ()
    serial: int = 0

    @property
    def shown(self) -> str:
        """The table it is configured in."""
        return f'[certificate."{self.name}"]' if self.name else "[tls] client_ca"


class Certificates:
    """From open() to close(): what workers are given, and what they are told later."""

    def __init__(self, config: Config) -> None:
        self._reread_s = float(config.tls.reread)
        self._ciphers = config.tls.ciphers
        self._held = [
            Held(name, (each.chain, each.key or each.chain)) for name, each in config.certificate.items()
        ]
        if config.tls.client_ca is not None:
            self._held.append(Held("", (config.tls.client_ca,)))
        self._told: dict[int, tuple[Child, dict[str, int]]] = {}
        self.due: float | None = None
        """Monotonic time of the next look at the files; None: there are none."""

    def open(self) -> None:
        """Read and prove all of them. Raises StartError, which names table, key and file."""
        for held in self._held:
            try:
                for note in self._take(held):
                    log.certificate(act="note", name=held.name, reason=note, level="warning")
            except BadFile as error:
                key = "" if not held.name else "key = " if error.path != held.paths[0] else "chain = "
                raise StartError(Exit.CONFIG, f"{held.shown} {key}{error}") from error
        if self._held:
            self.due = time.monotonic() + self._reread_s

    def close(self) -> None:
        """Give the memory files back; workers have copies."""
        for held in self._held:
            close_all(held.descriptors)
            held.descriptors = ()

    @property
    def pairs(self) -> dict[str, tuple[int, int]]:
        """For a worker that is forked now: name -> chain and key."""
        return {held.name: (held.descriptors[0], held.descriptors[1]) for held in self._held if held.name}

    @property
    def client_ca(self) -> int:
        """For a worker that is forked now; -1: not configured."""
        return next((held.descriptors[0] for held in self._held if not held.name), -1)

    def forked(self, child: Child) -> None:
        """This worker was forked with what is in force now."""
        self._told[child.pid] = (child, {held.name: held.serial for held in self._held})

    def look(self, now: float, workers: Iterable[Child]) -> None:
        """Read what has changed, tell workers what they do not have. Blocks for one stat per file."""
        self.due = now + self._reread_s
        for held in self._held:
            if _look(held.paths) != held.seen:
                self._reread(held)
        alive = {child.pid: child for child in workers}
        for pid in [pid for pid, (child, _) in self._told.items() if alive.get(pid) is not child]:
            del self._told[pid]
        for child, has in self._told.values():
            self._tell(child, has)

    def _tell(self, child: Child, has: dict[str, int]) -> None:
        """What cannot be said now (a worker that does not read) is said with the next look."""
        for held in self._held:
            if (
                has.get(held.name) != held.serial
                and child.channel is not None
                and passing.try_send(child.channel, Certificate(name=held.name), held.descriptors)
            ):
                has[held.name] = held.serial

    def _reread(self, held: Held) -> None:
        try:
            notes = self._take(held)
        except BadFile as error:
            # Once: `seen` is what it was just read as, and only another change makes us look again.
            log.certificate(act="kept", name=held.name, reason=str(error), level="error")
            return
        log.certificate(act="replaced", name=held.name)
        for note in notes:
            log.certificate(act="note", name=held.name, reason=note, level="warning")

    def _take(self, held: Held) -> list[str]:
        """Put the files into force; notes about them. Raises BadFile, what was in force still is then."""
        held.seen = _look(held.paths)
        fresh: list[int] = []
        try:
            for path in held.paths:
                fresh.append(sealed(path))
            notes = self._prove_pair(held, fresh) if held.name else _prove_authorities(held, fresh[0])
        except BaseException:
            close_all(fresh)
            raise
        close_all(held.descriptors)
        held.descriptors = tuple(fresh)
        held.serial += 1
        return notes

    def _prove_pair(self, held: Held, descriptors: list[int]) -> list[str]:
        """Load it, and shake hands with it. Raises BadFile."""
        chain, key = (f"/proc/self/fd/{number}" for number in descriptors)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self._ciphers:
                server.set_ciphers(self._ciphers)
        except ssl.SSLError as error:
            raise BadFile(Path(self._ciphers), "[tls] ciphers: OpenSSL knows none of these") from error
        # The chain's file alone first, so that the file at fault is the one that is named.
        public = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        public.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        public.check_hostname = False
        try:
            public.load_verify_locations(chain)
        except (ssl.SSLError, OSError) as error:
            raise BadFile(held.paths[0], "no PEM certificate in it, or not a whole one") from error
        try:
            server.load_cert_chain(chain, key, password=_no_passphrase)
        except _HasPassphrase as error:
            raise BadFile(
                held.paths[1], "the key has a passphrase, and nobody is there to type it (openssl pkey)"
            ) from error
        except (ssl.SSLError, OSError) as error:
            raise _load_failure(held, error) from error
        return _shake_hands(server, public)


class _HasPassphrase(ssl.SSLError):
    """OpenSSL asked for one."""


def _no_passphrase() -> str:
    raise _HasPassphrase


def _load_failure(held: Held, error: OSError) -> BadFile:
    reason = getattr(error, "reason", "") or ""
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return BadFile(held.paths[1], f"the key is not that of the certificate in {held.paths[0]}")
    if reason in ("NO_START_LINE", "BAD_BASE64_DECODE", "BAD_END_LINE", "UNSUPPORTED", ""):
        return BadFile(held.paths[1], "no PEM private key in it, or not a whole one")
    return BadFile(held.paths[0], _short(error))


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> list[str]:
    """What a client who trusts this very certificate would find, as notes. Nothing leaves the process."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    try:
        for _ in range(4):
            for side in (theirs, ours):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        certificate = theirs.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        kind = "" if error.verify_code in _EXPIRED else "clients will refuse it: "
        return [f"{kind}{error.verify_message}"]
    except ssl.SSLError as error:
        return [f"a handshake with it fails: {_short(error)}"]
    left_s = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
    if left_s < SOON_S:
        return [f"it expires in {left_s / 86_400:.0f} days, on {certificate['notAfter']}"]
    return []


def _prove_authorities(held: Held, descriptor: int) -> list[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(f"/proc/self/fd/{descriptor}")
    except (ssl.SSLError, OSError) as error:
        raise BadFile(held.paths[0], "no PEM certificate in it, or not a whole one") from error
    if not context.cert_store_stats()["x509_ca"]:
        return ["no certificate in it is one of an authority"]
    return []


def sealed(path: Path) -> int:
    """A sealed memory file with what stands in `path`; the kernel copies. Raises BadFile."""
    try:
        # O_NONBLOCK: a FIFO in its place must not stop master.
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadFile(path, _open_failure(error)) from error
    target = -1
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise BadFile(path, "not a regular file")
        if not 0 < status.st_size <= MAX_FILE_BYTES:
            raise BadFile(path, "empty" if not status.st_size else f"larger than {MAX_FILE_BYTES >> 20} MiB")
        target = memory_file("forkd: certificate")
        while os.sendfile(target, source, None, MAX_FILE_BYTES):
            if os.fstat(target).st_size > MAX_FILE_BYTES:
                raise BadFile(path, "grows while it is read")
        seal(target)
    except BadFile:
        close_all([target])
        raise
    except OSError as error:
        close_all([target])
        raise BadFile(path, error.strerror or str(error)) from error
    finally:
        os.close(source)
    return target


def _open_failure(error: OSError) -> str:
    if error.errno == errno.EACCES and os.geteuid() != 0:
        return f"{error.strerror}: uid {os.geteuid()} may not read it"
    return error.strerror or str(error)


def _look(paths: Iterable[Path]) -> tuple[Look, ...]:
    """What tells a file from its successor, links followed (certbot's `live` folder is links)."""
    looks: list[Look] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            looks.append(())
        else:
            looks.append(
                (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            )
    return tuple(looks)


def _short(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else error.strerror or "unreadable"


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
