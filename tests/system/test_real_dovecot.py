"""Mail into a real mail store: Dovecot by LMTP, read back by doveadm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.dovecot import MailStore
from tests.support.sinks import source
from tests.support.waiting import wait_for

from .conftest import Make


@pytest.fixture
def store() -> Iterator[MailStore]:
    with MailStore({"bob@example.org": 0, "eve@example.org": 0, "full@example.org": 1}) as made:
        yield made


def config(store: MailStore, *, tcp: bool = False, more: str = "") -> str:
    address = f"127.0.0.1:{store.port}" if tcp else f"unix:{store.socket}"
    return (
        '[queue]\nretry_first = "100ms"\nretry_max = "1s"\n[domain."example.org"]\ntransport = "store"\n'
        f'[transport.store]\nkind = "lmtp"\naddress = "{address}"\n{more}'
    )


def queued(daemon: Daemon) -> int:
    return sum(1 for each in (daemon.var / "spool" / "new").rglob("*") if each.is_file())


def outcomes(daemon: Daemon, count: int) -> dict[str, dict]:
    """What is logged of deliveries, by recipient."""
    wait_for(lambda: len(daemon.events("delivery")) >= count, timeout_s=30)
    return {line["recipient"]: line for line in daemon.events("delivery")}


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "TCP"])
def test_mail_lies_in_the_mailbox_as_it_was_sent(make_daemon: Make, store: MailStore, tcp: bool):
    """RFC 2033: with its trace on top; Dovecot adds Return-Path and Delivered-To."""
    daemon = make_daemon(config=config(store, tcp=tcp))
    body = "Subject: as it is\r\n\r\n.dot\r\n\r\nlast line\r\n"
    with daemon.smtp() as client:
        client.sendmail("alice@client.example", ["bob@example.org", "eve+work@example.org"], body)
    lines = outcomes(daemon, 2)
    assert {line["status"] for line in lines.values()} == {"delivered"}
    for user in ("bob@example.org", "eve@example.org"):
        (mail,) = store.mails(user)
        text = mail.replace(b"\r\n", b"\n").decode()
        assert "Return-Path: <alice@client.example>" in text
        assert "(forkd) with ESMTP id" in text
        assert text.rstrip("\n").endswith("Subject: as it is\n\n.dot\n\nlast line")


def test_each_recipient_has_its_own_answer(make_daemon: Make, store: MailStore):
    """RFC 2033 4.2: one is unknown at RCPT, one has no room after the message, one has the mail."""
    daemon = make_daemon(config=config(store))
    people = ["full@example.org", "bob@example.org", "nobody@example.org"]
    with daemon.smtp() as client:
        client.sendmail("", ["full@example.org"], "Subject: first\r\n\r\nfull\r\n")
        wait_for(lambda: store.count("full@example.org") == 1, timeout_s=30)
        client.sendmail("", people, "Subject: second\r\n\r\nhello\r\n")
    wait_for(lambda: store.count("bob@example.org") == 1, timeout_s=30)
    lines = outcomes(daemon, 4)
    assert lines["bob@example.org"]["status"] == "delivered"
    assert lines["nobody@example.org"]["status"] == "failed"
    assert "5.1.1" in str(lines["nobody@example.org"])
    assert lines["full@example.org"]["status"] in ("deferred", "failed")
    assert "no room for more" in str(lines["full@example.org"])
    assert store.count("full@example.org") == 1


def test_a_store_that_is_down_keeps_nobody_waiting_longer_than_it(make_daemon: Make, store: MailStore):
    """Mail waits in the queue, and comes once when it is back."""
    store.stop()
    daemon = make_daemon(config=config(store))
    with daemon.smtp() as client:
        client.sendmail("a@client.example", ["bob@example.org"], "Subject: x\r\n\r\nx\r\n")
    line = wait_for(lambda: daemon.events("delivery"), timeout_s=30)[0]
    assert (line["status"], line["recipient"]) == ("deferred", "bob@example.org")
    store.start()
    wait_for(lambda: queued(daemon) == 0, timeout_s=30)
    assert store.count("bob@example.org") == 1


def test_a_client_that_waits_hears_the_store_itself(make_daemon: Make, store: MailStore):
    """accept = "proxy": one recipient in each transaction, so that the reply is true for him."""
    daemon = make_daemon(config=config(store), listener='accept = "proxy"')
    with daemon.smtp() as client:
        client.ehlo()
        for person, code, said in (
            ("bob@example.org", 250, b"2.0.0"),
            ("nobody@example.org", 550, b"5.1.1"),
            ("full@example.org", 250, b"2.0.0"),
            ("full@example.org", 552, b"5.2.2"),
        ):
            assert client.mail("a@client.example")[0] == 250
            assert client.rcpt(person)[0] == 250
            assert client.rcpt("eve@example.org")[0] == 452
            answer = client.data("Subject: x\r\n\r\nx\r\n")
            assert (answer[0], answer[1][:5]) == (code, said), answer
    assert store.count("bob@example.org") == store.count("full@example.org") == 1
    assert store.count("eve@example.org") == 0
    assert queued(daemon) == 0


@pytest.mark.slow
def test_ten_thousand_mails_are_all_in_the_mailbox(make_daemon: Make, store: MailStore):
    """Through a restart of the store; what is there twice was in flight when it was killed."""
    connections = 10
    daemon = make_daemon(config=config(store, more=f"connections = {connections}\n"))
    for turn in range(4):
        if turn == 2:
            store.stop()
        source(daemon.port, 2500, recipient="bob@example.org", numbered=False, sessions=20)
        if turn == 2:
            store.start()
    wait_for(lambda: queued(daemon) == 0, timeout_s=500)
    assert 10_000 <= store.count("bob@example.org") <= 10_000 + connections
    told = [line["status"] for line in daemon.events("delivery")]
    assert told.count("delivered") == 10_000
    assert "failed" not in told
