"""Which certificates are in force: proved, sealed, kept when the new ones are bad."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd import log
from forkd.config.schema import Certificate, Config, Tls
from forkd.master.certificates import Certificates
from forkd.master.child import Child
from forkd.master.errors import StartError
from forkd.rpc import channel, passing
from forkd.rpc.messages import ToRole
from tests.support.pki import Authority, Pair

NAME = "mx.example"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Path]:
    """What is logged, as a file."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        log.setup("logfmt", "info", os.dup(file.fileno()))
        yield path
        log.finish()
        log.setup()


def configured(pairs: dict[str, Pair], **tls: object) -> Certificates:
    tables = {name: Certificate(chain=pair.chain, key=pair.key) for name, pair in pairs.items()}
    return Certificates(Config(certificate=tables, tls=Tls(**tls)))  # type: ignore[arg-type]


def contents(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 20, 0)


def test_good_pairs_are_handed_on_sealed(authority: Authority):
    """What stood in the files, in memory files that nobody can change any more (memfd_create(2))."""
    pairs = {name: authority.pair(name) for name in (NAME, "*.example")}
    certificates = configured(pairs, client_ca=authority.file)
    certificates.open()
    assert list(certificates.pairs) == list(pairs)
    for name, (chain, key) in certificates.pairs.items():
        assert contents(chain) == pairs[name].chain.read_bytes()
        assert contents(key) == pairs[name].key.read_bytes()
        for descriptor in (chain, key):
            with pytest.raises(OSError) as raised:
                os.pwrite(descriptor, b"x", 0)
            assert raised.value.errno == errno.EPERM
    assert contents(certificates.client_ca) == authority.file.read_bytes()
    certificates.close()


def test_one_file_may_have_both(authority: Authority, tmp_path: Path):
    """`key` not given: it stands in the chain's file."""
    pair = authority.pair(NAME)
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.chain.read_bytes())
    certificates = Certificates(Config(certificate={NAME: Certificate(chain=both)}))
    certificates.open()
    certificates.close()


def test_without_certificates_nothing_is_looked_at():
    """Nothing is due, no worker is given anything."""
    certificates = Certificates(Config())
    certificates.open()
    assert certificates.due is None
    assert (certificates.pairs, certificates.client_ca) == ({}, -1)


def _spoil(what: str, pair: Pair, other: Pair) -> None:
    match what:
        case "mismatch":
            pair.key.write_bytes(other.key.read_bytes())
        case "no chain":
            pair.chain.unlink()
        case "no key":
            pair.key.unlink()
        case "swapped":
            chain, key = pair.chain.read_bytes(), pair.key.read_bytes()
            pair.chain.write_bytes(key)
            pair.key.write_bytes(chain)
        case "garbage":
            pair.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nrubbish\n-----END PRIVATE KEY-----\n")
        case "half a chain":
            pair.chain.write_bytes(pair.chain.read_bytes()[:200])
        case "empty":
            pair.chain.write_bytes(b"")
        case "folder":
            pair.chain.unlink()
            pair.chain.mkdir()
        case "fifo":
            pair.key.unlink()
            os.mkfifo(pair.key)
        case "huge":
            pair.key.write_bytes(bytes((1 << 20) + 1))
        case "encrypted":
            plain = pair.key.read_bytes()
            subprocess.run(
                ["openssl", "pkey", "-out", pair.key, "-aes256", "-passout", "pass:x"],
                input=plain,
                check=True,
                capture_output=True,
            )


BAD = [
    ("mismatch", "key", "the key is not that of the certificate in"),
    ("no chain", "chain", "No such file or directory"),
    ("no key", "key", "No such file or directory"),
    ("swapped", "chain", "no PEM certificate in it"),
    ("garbage", "key", "no PEM private key in it"),
    ("half a chain", "chain", "no PEM certificate in it"),
    ("empty", "chain", "empty"),
    ("folder", "chain", "not a regular file"),
    ("fifo", "key", "not a regular file"),
    ("huge", "key", "larger than"),
    ("encrypted", "key", "the key has a passphrase"),
]


@pytest.mark.parametrize(("what", "key", "said"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_pair_stops_start_up(authority: Authority, what: str, key: str, said: str):
    """One line: table, key, file, reason; no descriptor is left."""
    pair = authority.pair(NAME)
    _spoil(what, pair, authority.pair("other.example"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StartError) as raised:
        configured({NAME: pair}).open()
    text = str(raised.value)
    assert text.startswith(f'[certificate."{NAME}"] {key} = {getattr(pair, key)}: ')
    assert said in text
    assert "\n" not in text
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("what", [row[0] for row in BAD])
def test_a_bad_new_pair_keeps_the_old(authority: Authority, lines: Path, what: str):
    """Said once however often is looked; the next good one is taken."""
    pair = authority.pair(NAME)
    certificates = configured({NAME: pair})
    certificates.open()
    old = contents(certificates.pairs[NAME][0])
    _spoil(what, pair, authority.pair("other.example"))
    for now in (1.0, 2.0, 3.0):
        certificates.look(now, [])
    assert contents(certificates.pairs[NAME][0]) == old
    log.flush()
    assert lines.read_text().count("act=kept") == 1
    for path in (pair.chain, pair.key):
        if path.is_dir():
            path.rmdir()
    new = authority.pair(NAME)
    certificates.look(4.0, [])
    assert contents(certificates.pairs[NAME][0]) == new.chain.read_bytes() != old
    log.flush()
    assert lines.read_text().count("act=replaced") == 1
    certificates.close()


@pytest.mark.parametrize(
    ("days", "said"), [(-1, "certificate has expired"), (5, "expires in"), (90, ""), (4000, "not yet valid")]
)
def test_dates_are_a_note(authority: Authority, lines: Path, days: float, said: str):
    """Expired, not yet valid or soon to expire is a warning: an admin may have reasons."""
    certificates = configured({NAME: authority.pair(NAME, days=days)})
    certificates.open()
    log.flush()
    assert ("act=note" in lines.read_text()) == bool(said)
    assert said in lines.read_text()
    certificates.close()


def test_ciphers_that_openssl_does_not_know(authority: Authority):
    """Told at start-up."""
    with pytest.raises(StartError, match="ciphers"):
        configured({NAME: authority.pair(NAME)}, ciphers="NOSUCH").open()


def test_workers_are_told_once_of_what_they_do_not_have(authority: Authority):
    """Those forked before the change; those forked after have it already; the dead are forgotten."""
    pairs = {NAME: authority.pair(NAME), "two.example": authority.pair("two.example")}
    certificates = configured(pairs, client_ca=authority.file)
    certificates.open()
    (ours, theirs), (ours2, theirs2) = channel.pair(), channel.pair()
    old, late = Child(1, ours), Child(2, ours2)
    certificates.forked(old)
    certificates.look(1.0, [old])
    assert passing.drain(theirs, ToRole) == ([], False)
    new = authority.pair(NAME)
    certificates.look(2.0, [old])
    certificates.forked(late)
    certificates.look(3.0, [old, late])
    ((message, descriptors),) = passing.drain(theirs, ToRole)[0]
    assert message.name == NAME
    assert [contents(d) for d in descriptors] == [new.chain.read_bytes(), new.key.read_bytes()]
    assert passing.drain(theirs2, ToRole) == ([], False)
    Authority(authority.folder)
    certificates.look(4.0, [late])
    ((message, others),) = passing.drain(theirs2, ToRole)[0]
    assert message.name == ""
    assert contents(others[0]) == authority.file.read_bytes()
    for descriptor in (*descriptors, *others):
        os.close(descriptor)
    for end in (ours, theirs, ours2, theirs2):
        end.close()
    certificates.close()


def test_a_worker_that_does_not_read_is_told_later(authority: Authority):
    """Its socket is full now: with the next look."""
    certificates = configured({NAME: authority.pair(NAME)})
    certificates.open()
    ours, theirs = channel.pair()
    child = Child(1, ours)
    certificates.forked(child)
    filled = 0
    while _send_one(ours):
        filled += 1
    authority.pair(NAME)
    certificates.look(1.0, [child])
    for _ in range(filled):
        theirs.recv(10)
    certificates.look(2.0, [child])
    ((message, descriptors),) = passing.drain(theirs, ToRole)[0]
    assert message.name == NAME
    for descriptor in descriptors:
        os.close(descriptor)
    ours.close()
    theirs.close()
    certificates.close()


def _send_one(sock: socket.socket) -> bool:
    try:
        sock.send(b"x", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True
