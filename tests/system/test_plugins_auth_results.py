"""auth_results: real daemon, real broker, a real name server; real messages signed by dkimpy."""

from __future__ import annotations

import email
import smtplib
from collections.abc import Iterator

import dkim
import pytest

from tests.support.daemon import Daemon
from tests.support.nameserver import NameServer
from tests.support.vectors import vector
from tests.support.waiting import wait_for

from .conftest import Make

PLUGIN = """
plugin = "auth_results"
[settings]
trusted = []
authserv_id = "mx.test.local"
refuse_spf = ["fail"]
[grants]
reads = ["envelope", "headers", "body"]
edit_headers = ["Authentication-Results"]
export = ["SPFRESULT"]
dns = ["any"]
"""
MESSAGE = b"From: ann@example.com\r\nTo: user@test.local\r\nSubject: hello\r\n\r\nbody\r\n"


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        text = vector("data/test.txt").read_text().strip()
        pieces = " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
        server.add("test._domainkey.example.com", "TXT", pieces)
        server.add("example.com", "TXT", '"v=spf1 include:policy.example.com -all"')
        server.add("policy.example.com", "TXT", '"v=spf1 a:hosts.example.com -all"')
        server.add("hosts.example.com", "A", "127.0.0.1", "192.0.2.1")
        server.add("strict.example.com", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
        yield server


def results(daemon: Daemon) -> list[str]:
    """The field's values in the one mail that arrived, unfolded."""
    (path,) = wait_for(lambda: daemon.mailbox("user"), timeout_s=20)
    values = email.message_from_bytes(path.read_bytes()).get_all("Authentication-Results", [])
    return [" ".join(value.split()) for value in values]


@pytest.mark.both_modes
def test_the_results_stand_on_top_and_forged_ones_are_gone(make_daemon: Make, names: NameServer) -> None:
    """SPF over an include and an address, DKIM over a key in two strings; a strict domain refuses at MAIL."""
    daemon = make_daemon(
        config=f'[dns]\nservers = ["{names.address}"]\n', plugins={"15-auth_results.toml": PLUGIN}
    )
    signature = dkim.sign(MESSAGE, b"test", b"example.com", vector("data/test.private").read_bytes())
    forged = b"Authentication-Results: mx.test.local; spf=pass\r\n"
    forged += b"Authentication-Results: other.example; x=y\r\n"
    client = daemon.smtp()
    client.ehlo()
    with pytest.raises(smtplib.SMTPSenderRefused) as refused:
        client.sendmail("ann@strict.example.com", ["user@test.local"], MESSAGE)
    assert refused.value.smtp_code == 550
    assert refused.value.smtp_error.startswith(b"5.7.23 SPF: strict.example.com says")
    client.sendmail("ann@example.com", ["user@test.local"], forged + signature + MESSAGE)
    client.quit()
    ours, *others = results(daemon)
    assert ours.startswith(
        "mx.test.local; spf=pass smtp.mailfrom=ann@example.com; dkim=pass header.d=example.com"
    )
    assert others == ["other.example; x=y"]
    asked = [name for name in names.asked if "example.com" in name]
    assert "test._domainkey.example.com. TXT" in asked or "test._domainkey.example.com TXT" in asked
