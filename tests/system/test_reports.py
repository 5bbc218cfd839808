"""The real daemon: what a sender hears of mail that failed, as he asked for it (RFC 3461, 3464, 6533)."""

from __future__ import annotations

import smtplib
import tempfile
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, free_port, swaks
from tests.support.people import Person
from tests.support.queueing import Queue
from tests.support.reports import Seen, reports
from tests.support.waiting import wait_for

from .conftest import Make
from .test_queue_programs import transports

POSTMASTER = '[reports]\npostmaster = "postmaster@test.local"\n'
SENDER = "alice@test.local"


@pytest.fixture
def queue() -> Iterator[Queue]:
    """Where every user can execute it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="forkd-queue-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Queue(folder)


@pytest.fixture
def refusing(make_daemon: Make, who: Person, queue: Queue) -> Daemon:
    """virus.local refuses all mail; test.local has Maildirs."""
    server = 'launcher_user = "uucp"\n' if who.name == "root" else ""
    rest = transports(queue).replace('[domain."test.local"]', '[domain."taken.local"]')
    return make_daemon(server=server, config=f'{POSTMASTER}[domain."test.local"]\n{rest}')


def told(daemon: Daemon, user: str = "alice", count: int = 1) -> list[Seen]:
    """So many reports in a mailbox, once the queue is empty."""
    wait_for(lambda: len(daemon.mailbox(user)) >= count, timeout_s=30)
    wait_for(lambda: "the queue is empty" in daemon.forkd("queue", "list").stdout, timeout_s=30)
    found = reports(daemon.var / "mail/test.local" / user)
    assert len(found) == count
    return found


def test_a_refusal_comes_back_as_it_was_asked_for(refusing: Daemon) -> None:
    """NOTIFY, ORCPT, ENVID and RET from the client to the report; recipients who have it are not in it."""
    with refusing.smtp() as client:
        client.ehlo()
        assert client.has_extn("dsn")
        assert client.mail(SENDER, ["RET=HDRS", "ENVID=order+2B17"])[0] == 250
        options = {
            "one@virus.local": ["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;First+2Bone@example.org"],
            "two@virus.local": ["NOTIFY=NEVER"],
            "three@virus.local": [],
            "bob@test.local": ["NOTIFY=FAILURE"],
        }
        for recipient, given in options.items():
            assert client.rcpt(recipient, given)[0] == 250
        assert client.data(b"Subject: Lunch\r\nMessage-ID: <l@test.local>\r\n\r\nsecret words\r\n")[0] == 250
    (report,) = told(refusing)
    assert report.actions == {"one@virus.local": "failed 5.7.1", "three@virus.local": "failed 5.7.1"}
    assert report.about["Original-Envelope-Id"] == "order+17"
    assert report.about["Reporting-MTA"].startswith("dns; ")
    assert report.recipients[0]["Original-Recipient"] == "rfc822; First+one@example.org"
    assert "554 5.7.1 This mail contains a virus" in report.recipients[0]["Diagnostic-Code"]
    assert "This mail contains a virus" in report.text
    assert not report.whole
    assert b"secret words" not in report.octets
    assert report.message["In-Reply-To"] == "<l@test.local>"
    assert report.message["Auto-Submitted"] == "auto-replied"
    assert report.message["Return-Path"] == "<>"
    # Nobody was told of the second: the postmaster is.
    (copy,) = told(refusing, "postmaster")
    assert copy.actions == {"two@virus.local": "failed 5.7.1"}


def test_success_is_told_to_who_asks(refusing: Daemon) -> None:
    """Into a mailbox: delivered; into a queue that tells nothing: relayed."""
    with refusing.smtp() as client:
        client.sendmail(
            SENDER, ["bob@test.local", "carol@taken.local"], "Subject: x\n\nhello\n",
            rcpt_options=["NOTIFY=SUCCESS,FAILURE"],
        )  # fmt: skip
    # Each has its own outcome at its own time: in one report or in two.
    wait_for(lambda: refusing.mailbox("alice"))
    wait_for(lambda: "the queue is empty" in refusing.forkd("queue", "list").stdout, timeout_s=30)
    actions = [report.actions for report in reports(refusing.var / "mail/test.local/alice")]
    assert {key: value for each in actions for key, value in each.items()} == {
        "bob@test.local": "delivered 2.0.0",
        "carol@taken.local": "relayed 2.0.0",
    }


def test_who_asks_for_nothing_hears_of_failures_and_gets_all_back(refusing: Daemon) -> None:
    """Another client, that knows no DSN: failures are told, and what is short comes back whole."""
    done = swaks(refusing, f"--from {SENDER} --to dan@virus.local", data="Subject: s\n\nall of it\n")
    assert done.returncode == 0, done.stdout
    (report,) = told(refusing)
    assert report.whole
    assert b"all of it" in report.octets


def test_letters_beyond_ascii_come_back_in_their_form(refusing: Daemon) -> None:
    """RFC 6533: to a sender whose address has such letters."""
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message.set_content("hallo\n")
    with refusing.smtp() as client:
        client.ehlo()
        client.sendmail(
            "jörg@test.local",
            ["eve@virus.local"],
            message.as_bytes(policy=message.policy.clone(utf8=True)),
            mail_options=["SMTPUTF8", "BODY=8BITMIME"],
        )
    found = wait_for(lambda: list((refusing.var / "mail/test.local").glob("j*/new/*")), timeout_s=30)
    (report,) = reports(found[0].parent.parent)
    assert report.message["Content-Type"].params["report-type"] == "global-delivery-status"
    assert report.message["To"] == "jörg@test.local"
    assert report.returned.get_content_type() == "message/global"
    assert "Subject: Grüße".encode() in report.octets


def test_the_null_sender_is_not_told_and_nothing_goes_round(refusing: Daemon) -> None:
    """A report that is refused is the end: the postmaster has a copy, the queue is empty."""
    with refusing.smtp() as client:
        client.sendmail("", ["one@virus.local"], "Subject: a report of somebody else's\n\nx\n")
    (copy,) = told(refusing, "postmaster")
    assert copy.actions == {"one@virus.local": "failed 5.7.1"}
    assert "nobody (the null sender)" in copy.text
    assert [event["detail"] for event in refusing.events("queue") if event["act"] == "untold"] == []


def test_a_report_that_is_refused_itself_goes_to_the_postmaster(refusing: Daemon) -> None:
    """The double bounce of qmail: sender and recipient both refuse."""
    with refusing.smtp() as client:
        client.sendmail("one@virus.local", ["two@virus.local"], "Subject: x\n\nx\n")
    (copy,) = told(refusing, "postmaster")
    assert copy.actions == {"one@virus.local": "failed 5.7.1"}
    assert len([event for event in refusing.events("delivery") if event["status"] == "failed"]) == 2


def test_a_postmaster_who_refuses_his_copies_gets_no_more_of_them(
    make_daemon: Make, who: Person, queue: Queue
) -> None:
    """He is an alias, and whom it stands for takes nothing: one copy, and none of that one."""
    server = 'launcher_user = "uucp"\n' if who.name == "root" else ""
    rest = f'{POSTMASTER}[aliases]\nfiles = ["aliases"]\n{transports(queue)}'
    daemon = make_daemon(server=server, config=rest, start=False)
    (daemon.folder / "aliases").write_text("postmaster@test.local: one@virus.local\n")
    daemon.start()
    with daemon.smtp() as client:
        client.sendmail("", ["two@virus.local"], "Subject: a report of somebody else's\n\nx\n")
    untold = wait_for(lambda: [e for e in daemon.events("queue") if e["act"] == "untold"], timeout_s=30)
    wait_for(lambda: "the queue is empty" in daemon.forkd("queue", "list").stdout, timeout_s=30)
    assert [event["detail"].split()[0] for event in untold] == ["one@virus.local"]
    failed = [event["recipient"] for event in daemon.events("delivery") if event["status"] == "failed"]
    assert failed == ["two@virus.local", "one@virus.local"]


def test_a_loop_ends_in_a_report(make_daemon: Make) -> None:
    """What was delivered here before is refused for good (5.4.6), and its sender hears of it."""
    daemon = make_daemon()
    with daemon.smtp() as client:
        client.sendmail(
            SENDER, ["bob@test.local"], "Delivered-To: Bob@test.local\nSubject: x\n\nround and round\n"
        )
    (report,) = told(daemon)
    assert report.actions == {"bob@test.local": "failed 5.4.6"}
    assert "went round in a circle" in report.text


def test_reports_survive_a_restart(make_daemon: Make) -> None:
    """A message whose sender cannot be told now waits, and the report is in the queue, not the message."""
    daemon = make_daemon()
    with daemon.smtp() as client:
        client.sendmail("x@elsewhere.example", ["bob@test.local"], "Delivered-To: bob@test.local\n\nx\n")
    wait_for(lambda: "no transport" in daemon.forkd("queue", "list").stdout, timeout_s=30)
    daemon.stop()
    daemon.start()
    listed = wait_for(lambda: daemon.forkd("queue", "list", "--json").stdout, timeout_s=30)
    assert '"sender": ""' in listed.replace('"sender":""', '"sender": ""')


def test_a_proxy_does_not_announce_what_it_cannot_promise(
    make_daemon: Make, who: Person, queue: Queue
) -> None:
    """accept = "proxy": who reports, if anybody, is the next hop. Another listener of the daemon does."""
    port = free_port()
    rest = transports(queue)
    daemon = make_daemon(
        server='launcher_user = "uucp"\n' if who.name == "root" else "",
        config=f'[listener.proxy]\naddress = "127.0.0.1:{port}"\naccept = "proxy"\n{rest}',
    )
    for event in daemon.events("listening"):
        host, _, at = event["address"].rpartition(":")
        with smtplib.SMTP(host, int(at), timeout=30) as client:
            client.ehlo()
            assert client.has_extn("dsn") is (int(at) != port)
