"""Mail that goes on by SMTP to a next hop that does not always want it: smtp-sink, as asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dns.message import QueryMessage

from tests.support.daemon import Daemon
from tests.support.nameserver import NameServer
from tests.support.params import quick_first
from tests.support.sinks import Sink, source
from tests.support.waiting import wait_for

from .conftest import Make


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    with made:
        yield made


def config(sink: Sink, more: str = "", queue: str = 'retry_first = "100ms"\nretry_max = "1s"\n') -> str:
    return (
        f'[queue]\n{queue}[domain."example.org"]\ntransport = "next"\n'
        f'[transport.next]\nkind = "smtp"\nhosts = ["127.0.0.1:{sink.port}"]\n{more}'
    )


def queued(daemon: Daemon) -> int:
    return sum(1 for each in (daemon.var / "spool" / "new").rglob("*") if each.is_file())


def test_mail_goes_on_as_it_came(make_daemon: Make, sink: Sink):
    """RFC 5321 3.7: envelope kept, our Received field on top, not an octet else changed."""
    daemon = make_daemon(config=config(sink))
    body = b"Subject: as it is\r\n\r\n.dot\r\n8 bit: \xc3\xa9\r\n"
    with daemon.smtp() as client:
        client.sendmail("alice@example.com", ["bob@example.org", "eve@example.org"], body, ["BODY=8BITMIME"])
    wait_for(sink.mails, timeout_s=20)
    wait_for(lambda: queued(daemon) == 0, timeout_s=20)
    (mail,) = sink.mails()
    assert sink.recipients() == {"bob@example.org": 1, "eve@example.org": 1}
    assert b"X-Mail-Args: <alice@example.com>" in mail
    head, _, rest = mail.partition(b"Subject: as it is")
    assert b"(forkd) with ESMTP id" in head
    assert b"Subject: as it is" + rest.rstrip(b"\n") == body.replace(b"\r\n", b"\n").rstrip(b"\n")


def test_mail_finds_its_way_by_mx(make_daemon: Make, sink: Sink):
    """The first host is down, the second takes it; what DNS says does not exist fails; a server of names that
    says nothing now leaves mail waiting."""
    with NameServer() as names:
        names.add("far.test", "MX", "10 down.far.test.", "20 up.far.test.")
        names.add("down.far.test", "A", "127.0.0.2")
        names.add("up.far.test", "A", "127.0.0.1")
        names.add("never.test", "MX", "0 .")
        names.add("broken.test", "MX", "10 broken.test.")
        from_records = names.answer

        def answer(query: QueryMessage) -> bytes | None:
            broken = query.question[0].name.to_text().startswith("broken.")
            return names.refuses(query) if broken else from_records(query)

        names.answer = answer
        daemon = make_daemon(
            config='[queue]\nrelay_transport = "world"\n[networks]\nrelay = ["127.0.0.0/8"]\n'
            f'[dns]\nservers = ["{names.address}"]\n[transport.world]\nkind = "smtp"\nport = {sink.port}\n'
        )
        people = ["a@far.test", "b@never.test", "c@gone.test", "d@broken.test"]
        with daemon.smtp() as client:
            client.sendmail("alice@test.local", people, "Subject: x\r\n\r\nx\r\n")

        def told() -> dict[str, tuple[str, str]]:
            lines = daemon.events("delivery")
            ours = [each for each in lines if each["recipient"] in people]
            return {each["recipient"]: (each["status"], each["enhanced"]) for each in ours}

        wait_for(lambda: len(told()) == 4, timeout_s=40)
        assert told() == {
            "a@far.test": ("delivered", "2.0.0"),
            "b@never.test": ("failed", "5.1.10"),
            "c@gone.test": ("failed", "5.1.2"),
            "d@broken.test": ("deferred", "4.4.3"),
        }
    assert sink.recipients() == {"a@far.test": 1}


NOT_NOW = {
    "no greeting": ("-r", "CONNECT"),
    "421 at EHLO": ("-Q", "EHLO"),
    "450 at MAIL": ("-r", "MAIL"),
    "450 at RCPT": ("-r", "RCPT"),
    "450 at DATA": ("-r", "DATA"),
    "450 at the end": ("-r", "."),
    "421 at MAIL": ("-Q", "MAIL"),
    "gone at DATA": ("-q", "DATA"),
    "silence at DATA": ("-w", "60"),
    "silence at RCPT": ("-p", "-W", "RCPT:60"),  # pipelining, it would answer DATA before the RCPT it delays
}


@pytest.mark.parametrize("name", quick_first(NOT_NOW, 4))
def test_what_is_not_taken_now_is_taken_later_and_once(make_daemon: Make, sink: Sink, name: str):
    """4xx, 421, an end or silence, wherever: deferred, and each comes once when all is well again."""
    daemon = make_daemon(config=config(sink, 'timeout = "2s"\n'))
    sink.stop()
    for file in sink.folder.glob("mail.*"):
        file.unlink()
    sink.start(*NOT_NOW[name])
    source(daemon.port, 3)
    wait_for(lambda: any(line["status"] == "deferred" for line in daemon.events("delivery")), timeout_s=30)
    sink.stop()
    for file in sink.folder.glob("mail.*"):
        file.unlink()  # of transactions that it did not answer 250
    sink.start()
    wait_for(lambda: queued(daemon) == 0, timeout_s=60)
    assert sink.recipients() == {f"{number}user@example.org": 1 for number in (1, 2, 3)}
    assert not any(line["status"] == "failed" for line in daemon.events("delivery"))


NEVER = {
    "at MAIL": ("-f", "MAIL"),
    "at RCPT": ("-f", "RCPT"),
    "at DATA": ("-f", "DATA"),
    "at the end": ("-f", "."),
}


@pytest.mark.parametrize("name", quick_first(NEVER))
def test_what_is_refused_for_good_fails_with_the_next_hops_words(make_daemon: Make, sink: Sink, name: str):
    """5xx: nothing is tried again, and what the next hop said stands in the log."""
    daemon = make_daemon(config=config(sink))
    sink.stop()
    sink.start(*NEVER[name], "-B", "554 5.7.1 not from you")
    source(daemon.port, 1)
    line = wait_for(lambda: daemon.events("delivery"), timeout_s=30)[0]
    assert (line["status"], line["recipient"]) == ("failed", "1user@example.org")
    assert "5.7.1 not from you" in str(line)


@pytest.mark.slow
def test_of_ten_thousand_mails_none_is_lost_on_a_next_hop_that_comes_and_goes(make_daemon: Make, sink: Sink):
    """Each is given over at least once; what is given twice was in flight when the next hop was killed."""
    connections, kills = 20, 0
    daemon = make_daemon(config=config(sink, f'connections = {connections}\ntimeout = "5s"\n'))
    sent: set[str] = set()
    for turn, moods in enumerate((("-r", "RCPT"), ("-q", "DATA"), ("-w", "60"), ("-Q", "MAIL"), ())):
        sink.stop()
        kills += 1
        sink.start(*moods)
        sent |= source(daemon.port, 2000, recipient=f"-{turn}@example.org", sessions=20)
    wait_for(lambda: queued(daemon) == 0, timeout_s=400)
    assert len(sent) == 10_000
    given = sink.recipients()
    assert set(given) == sent
    assert given.total() - len(sent) <= connections * kills
    assert not any(line["status"] == "failed" for line in daemon.events("delivery"))
