"""Next hops that qmgr must find and reach from behind its walls: by name, from an address of ours, by TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.nameserver import NameServer
from tests.support.pki import Authority
from tests.support.served_hop import ServedHop
from tests.support.waiting import wait_for

from .conftest import Make

pytestmark = pytest.mark.both_modes


@pytest.fixture
def pki() -> Iterator[Authority]:
    # Not tmp_path: an ordinary user's forkd reads from here.
    folder = Path(tempfile.mkdtemp(prefix="pki-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield Authority(folder)
    shutil.rmtree(folder, ignore_errors=True)


def config(keys: str, more: str = "") -> str:
    return (
        f'{more}[domain."example.org"]\ntransport = "next"\n'
        f'[transport.next]\nkind = "smtp"\nfamily = "ipv4"\n{keys}\n'
    )


def send(daemon: Daemon) -> dict:
    with daemon.smtp() as client:
        client.sendmail("alice@client.example", ["bob@example.org"], "Subject: x\r\n\r\nx\r\n")
    return wait_for(lambda: daemon.events("delivery"), timeout_s=60)[0]


def test_a_host_whose_name_this_machine_knows(make_daemon: Make):
    """/etc/hosts, then DNS, as libc has it: getaddrinfo in qmgr's own threads."""
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    with ServedHop() as hop:
        daemon = make_daemon(config=config(f'hosts = ["localhost:{hop.port}"]'))
        line = send(daemon)
        assert (line["status"], line["host"]) == ("delivered", "localhost"), line
        assert len(hop.mails) == 1


def test_a_name_that_nobody_knows_is_waited_for(make_daemon: Make):
    """An admin named it: he, or his name server, can mend it. The error says which name."""
    daemon = make_daemon(config=config('hosts = ["nobody.invalid"]'))
    line = send(daemon)
    assert (line["status"], line["enhanced"]) == ("deferred", "4.4.3"), line
    assert "nobody.invalid: " in line["text"]


def test_a_host_whose_name_dns_servers_know(make_daemon: Make):
    """dns.servers are asked, and nobody else."""
    with NameServer() as names, ServedHop() as hop:
        names.add("hub.test", "A", "127.0.0.1")
        servers = f'[dns]\nservers = ["{names.address}"]\n'
        daemon = make_daemon(config=config(f'hosts = ["hub.test:{hop.port}"]', servers))
        line = send(daemon)
        assert line["status"] == "delivered", line


def test_from_an_address_of_ours(make_daemon: Make):
    """source_ipv4: the one thing that qmgr may bind."""
    with ServedHop() as hop:
        keys = f'hosts = ["127.0.0.1:{hop.port}"]\nsource_ipv4 = "127.0.0.9"'
        line = send(make_daemon(config=config(keys)))
        assert line["status"] == "delivered", line
        assert hop.peers == {"127.0.0.9"}


@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_tls_from_the_first_octet(make_daemon: Make, pki: Authority, right: bool):
    """RFC 8314, to a host by name: the certificate has it, or there is no mail."""
    pair = pki.pair("localhost" if right else "other.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.chain, pair.key)
    with ServedHop(tls=context, implicit=True) as hop:
        keys = f'hosts = ["localhost:{hop.port}"]\ntls = "implicit"\ntls_ca = "{pki.file}"'
        line = send(make_daemon(config=config(keys)))
        assert line["status"] == ("delivered" if right else "deferred"), line
        assert len(hop.mails) == right
        if not right:
            assert "its certificate is for other.example, not for localhost" in line["text"]
