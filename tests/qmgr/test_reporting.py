"""Who is told what became of a message: a real qmgr, spool and Maildirs (qmgr/reporting.py, record.py)."""

from __future__ import annotations

import dataclasses
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkd import log
from forkd.config import schema
from forkd.config.report_schema import Reports
from forkd.qmgr.reporting import Case, Reporter
from forkd.qmgr.retry import Retry
from forkd.queue import state, stored
from forkd.queue.envelope import Recipient
from forkd.queue.outcome import Outcome
from forkd.queue.spool import QMGR_SLOT, Spool
from forkd.queue.state import Attempt
from tests.support.reports import Seen, read, reports
from tests.support.spooling import MAIL, RunningQmgr, a_config, a_spool, queued, running_qmgr
from tests.support.waiting import wait_for

SENDER = "sender@test.local"
LOOPED = b"Delivered-To: gone@test.local\r\nDelivered-To: gone2@test.local\r\n" + MAIL
"""It came from there: what delivers to these two a second time refuses it for good (5.4.6)."""
DAY = 86_400.0


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "spool")


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """What was logged, of one act."""
    path = tmp_path / "log"
    with path.open("w") as file:
        log.setup("json", "info", os.dup(file.fileno()))
    try:
        yield lambda act: [
            event for line in path.read_text().splitlines() if (event := json.loads(line)).get("act") == act
        ]
    finally:
        log.setup()


def config(tmp_path: Path, **given: Any) -> schema.Config:
    """As a_config; `given` are keys of [reports] and [queue]."""
    queue = {key: given.pop(key) for key in ("give_up", "retry_first", "durability") if key in given}
    base = a_config(tmp_path, **queue)
    return schema.Config(
        server=base.server, domain=base.domain, transport=base.transport, queue=base.queue,
        reports=Reports(**given),
    )  # fmt: skip


def to(address: str, *notify: str, **more: Any) -> Recipient:
    return Recipient(address=address, notify=notify, **more)


def settled(qmgr: RunningQmgr, queue_id: str) -> bool:
    return any(entry.id == queue_id and entry.state == "deferred" for entry in qmgr.ask("list").entries)


def is_empty(tmp_path: Path) -> bool:
    return not any(path.is_file() for path in (tmp_path / "spool/new").rglob("*"))


def mailbox(tmp_path: Path, user: str) -> list[Seen]:
    return reports(tmp_path / "mail/test.local" / user)


def settle(
    tmp_path: Path, spool: Spool, *recipients: Recipient, settings: schema.Config | None = None, **given: Any
) -> dict[str, list[Seen]]:
    """Queue that, run until the spool is empty; what the sender and the postmaster got."""
    given = {"message": LOOPED, "sender": SENDER, "received_at": time.time(), **given}
    queued(spool, recipients=recipients, **given)
    with running_qmgr(settings or config(tmp_path)) as qmgr:
        wait_for(lambda: is_empty(tmp_path), timeout_s=30)
        assert qmgr.ask("list").count == 0
        assert qmgr.stop() == 0
    return {user: mailbox(tmp_path, user) for user in ("sender", "postmaster", "owner")}


def test_the_sender_is_told_of_a_failure_and_the_message_is_gone(
    tmp_path: Path, spool: Spool, events: Callable[[str], list[dict[str, Any]]]
) -> None:
    """RFC 3461 4.1: without NOTIFY too. One report for all who failed; who has it is not in it."""
    (told,) = settle(
        tmp_path, spool, to("a@test.local"), to("gone@test.local"), to("gone2@test.local")
    )["sender"]  # fmt: skip
    assert told.actions == {"gone@test.local": "failed 5.4.6", "gone2@test.local": "failed 5.4.6"}
    assert told.message["To"] == SENDER
    assert told.message["Return-Path"] == "<>"
    assert "mail loop: Delivered-To is there already" in told.text
    assert told.whole
    assert told.octets.count(b"first line") == 1
    (event,) = events("reported")
    assert event["detail"].startswith(f"failed: told {SENDER} by ")
    assert event["id"] in told.text


def test_nobody_tells_the_null_sender(
    tmp_path: Path, spool: Spool, events: Callable[[str], list[dict[str, Any]]]
) -> None:
    """RFC 5321 4.5.5. A report that fails is gone, with a line in the log."""
    found = settle(tmp_path, spool, to("gone@test.local"), sender="")
    assert found == {"sender": [], "postmaster": [], "owner": []}
    (event,) = events("untold")
    assert event["detail"] == "gone@test.local failed, and nobody is told: it has the null sender"
    assert event["level"] == "warning"


POSTMASTER = "postmaster@test.local"
COPIES: dict[str, tuple[dict[str, Any], str, tuple[str, ...], tuple[int, int]]] = {
    # settings, sender, NOTIFY -> reports to the sender, copies
    "nobody": ({}, SENDER, (), (1, 0)),
    "told": ({"postmaster": POSTMASTER}, SENDER, (), (1, 0)),
    "null sender": ({"postmaster": POSTMASTER}, "", (), (0, 1)),
    "wants none": ({"postmaster": POSTMASTER}, SENDER, ("NEVER",), (0, 1)),
    "all failures": ({"postmaster": POSTMASTER, "copies": "failures"}, SENDER, (), (1, 1)),
    "our own address": ({}, "MAILER-DAEMON@mx.test.local", (), (0, 0)),
}


@pytest.mark.parametrize("row", COPIES)
def test_copies_go_to_the_postmaster(tmp_path: Path, spool: Spool, row: str) -> None:
    """[reports] copies: what no sender hears of, or all; with the header alone."""
    settings, sender, notify, (told, copies) = COPIES[row]
    recipient = to("gone@test.local", *notify)
    found = settle(tmp_path, spool, recipient, sender=sender, settings=config(tmp_path, **settings))
    assert (len(found["sender"]), len(found["postmaster"])) == (told, copies)
    for copy in found["postmaster"]:
        assert copy.actions == {"gone@test.local": "failed 5.4.6"}
        assert not copy.whole


def test_a_copy_that_fails_is_the_end_of_it(
    tmp_path: Path, spool: Spool, events: Callable[[str], list[dict[str, Any]]]
) -> None:
    """A copy about a copy would go the same way: no loop, whatever fails."""
    found = settle(
        tmp_path, spool, to("gone@test.local"), settings=config(tmp_path, postmaster="gone@test.local"),
        sender="",
    )  # fmt: skip
    assert found["postmaster"] == []
    assert len(events("untold")) == 1


def test_a_copy_that_fails_behind_an_alias_is_the_end_of_it_too(
    tmp_path: Path, spool: Spool, events: Callable[[str], list[dict[str, Any]]]
) -> None:
    """Whom postmaster stands for refuses it: the next copy would be refused as well, and the one after it."""
    found = settle(
        tmp_path, spool, to("gone@test.local", original=POSTMASTER), sender="",
        settings=config(tmp_path, postmaster=POSTMASTER, copies="failures"),
    )  # fmt: skip
    assert found["postmaster"] == []
    assert len(events("untold")) == 1


def listed(tmp_path: Path, **given: Any) -> schema.Config:
    """As config(), with these mailboxes alone."""
    made = config(tmp_path, **given)
    domain = schema.Domain(mailboxes=("gone", "gone2", "a", "sender"))
    return msgspec.structs.replace(made, domain={**made.domain, "test.local": domain})


UNREACHED: dict[str, tuple[str, dict[str, Any], int, int, str]] = {
    # sender, settings -> reports in the queue, copies, what the log says
    "nowhere": ("x@elsewhere.org", {}, 1, 0, "which waits: no way leads there"),
    "nowhere, a postmaster": ("x@elsewhere.org", {"postmaster": POSTMASTER}, 0, 1, "no way leads there"),
    "nobody": ("forged@test.local", {}, 0, 0, "there is no such address of ours"),
    "nobody, a postmaster": ("forged@test.local", {"postmaster": POSTMASTER}, 0, 1, "there is no such"),
}


@pytest.mark.parametrize("row", UNREACHED)
def test_a_failure_whose_sender_cannot_be_told(
    tmp_path: Path, spool: Spool, events: Callable[[str], list[dict[str, Any]]], row: str
) -> None:
    """The postmaster hears of it; without one it waits where an admin sees it; a forged one is gone."""
    sender, given, waits, copies, said = UNREACHED[row]
    queue_id = queued(
        spool, recipients=(to("gone@test.local"),), message=LOOPED, sender=sender, received_at=time.time()
    )
    with running_qmgr(listed(tmp_path, **given)) as qmgr:
        wait_for(lambda: events("untold") or events("reported"))
        wait_for(lambda: len(mailbox(tmp_path, "postmaster")) == copies)
        wait_for(lambda: [e.recipients for e in qmgr.ask("list").entries] == [(sender,)] * waits)
        assert qmgr.stop() == 0
    told = [e for act in ("untold", "reported") for e in events(act) if e["id"] == queue_id]
    assert any(said in event["detail"] for event in told)
    assert (waits or not copies) == any(event.get("level") == "warning" for event in told)


@pytest.mark.parametrize("sender", ["x@elsewhere.org", "forged@test.local"])
def test_who_cannot_be_told_fills_no_queue(
    tmp_path: Path, spool: Spool, events: Callable[[str], list[dict[str, Any]]], sender: str
) -> None:
    """Anybody may ask for a report on each success, in anybody's name."""
    found = settle(
        tmp_path, spool, to("a@test.local", "SUCCESS", "DELAY"), message=MAIL, sender=sender,
        settings=listed(tmp_path, postmaster=POSTMASTER),
    )  # fmt: skip
    assert found == {"sender": [], "postmaster": [], "owner": []}
    (event,) = events("untold")
    assert event["detail"].startswith(f"{sender} is told nothing: ")


def test_nobody_is_warned_where_no_way_leads(tmp_path: Path, spool: Spool) -> None:
    """The message waits; no warning waits beside it, now or with the next try."""
    queue_id = queued(
        spool, recipients=(to("b@elsewhere.org"),), sender="x@elsewhere.org",
        received_at=time.time() - 5 * 3600,
    )  # fmt: skip
    with running_qmgr(config(tmp_path)) as qmgr:
        wait_for(lambda: qmgr.ask("show", queue_id).entries[0].attempts == 1)
        assert qmgr.stop() == 0
    assert state.load(f"{spool.new}/{queue_id}").warned
    assert not [*(tmp_path / "spool/new" / QMGR_SLOT).iterdir()]


def a_case(spool: Spool, *outcomes: Outcome, **given: Any) -> Case:
    given = {"recipients": (to("a@test.local"), to("b@test.local")), "sender": SENDER, **given}
    queue_id = queued(spool, received_at=time.time(), **given)
    message = stored.load(f"{spool.new}/{queue_id}", queue_id)
    return Case(message, {outcome.recipient: outcome for outcome in outcomes}, {})


def written(tmp_path: Path, case: Case) -> Seen:
    """The one report on it."""
    Spool.prepare(tmp_path / "spool", [QMGR_SLOT])
    (queue_id,) = Reporter(config(tmp_path), str(tmp_path / "spool"), lambda _: Retry()).report(case).ids
    message = stored.load(f"{tmp_path}/spool/new/{QMGR_SLOT}/{queue_id}", queue_id)
    return read(b"".join(message.chunks()))


def test_reports_that_say_something_else_have_another_id(tmp_path: Path, spool: Spool) -> None:
    """RFC 5322 3.6.4; mail stores drop what comes twice under one. One that a crash doubled has the same."""
    case = a_case(spool, Outcome(0, "failed", "5.1.1", "no"), Outcome(1, "failed", "5.1.1", "no"))
    ids = []
    for outcomes in (case.outcomes, {0: case.outcomes[0]}, {1: case.outcomes[1]}, {0: case.outcomes[0]}):
        ids.append(written(tmp_path, dataclasses.replace(case, outcomes=outcomes)).message["Message-ID"])
    assert ids[1] == ids[3]
    assert len(set(ids)) == 3


HOSTS = [
    ("localhost", None),
    ("127.0.0.1", None),
    ("::1", None),
    ("192.0.2.7", "dns; [192.0.2.7]"),
    ("2001:db8::7", "dns; [IPv6:2001:db8::7]"),
    ("mx.next.example", "dns; mx.next.example"),
]


@pytest.mark.parametrize(("host", "told"), HOSTS, ids=[row[0] for row in HOSTS])
def test_a_next_hop_has_the_name_that_others_know(
    tmp_path: Path, spool: Spool, host: str, told: str | None
) -> None:
    """RFC 3464 2.1.2; a mail store on this machine has none, and the path of its socket is not told."""
    why = "no connection to /run/store/lmtp: no such file"
    seen = written(tmp_path, a_case(spool, Outcome(0, "failed", "5.4.7", why, host=host)))
    assert seen.recipients[0].get("Remote-MTA") == told
    assert "no connection to (path): no such file" in seen.text
    assert b"/run/store" not in seen.octets


CONTACTS = [
    (SENDER, "a@test.local", "postmaster@test.local"),
    ("x@discard.local", "a@test.local", "postmaster@discard.local"),
    ("x@test.local", "b@discard.local", "postmaster@test.local"),
]


@pytest.mark.parametrize(("sender", "recipient", "contact"), CONTACTS, ids=[row[0] for row in CONTACTS])
def test_who_is_to_be_asked_is_there(
    tmp_path: Path, spool: Spool, sender: str, recipient: str, contact: str
) -> None:
    """mx.test.local is our host, and no mail domain; each of our domains has a postmaster."""
    case = a_case(spool, Outcome(0, "failed", "5.1.1", "no"), recipients=(to(recipient),), sender=sender)
    assert f"For help, write to {contact} and" in written(tmp_path, case).text


SUCCESS: dict[str, tuple[Recipient, str]] = {
    "delivered": (to("a@test.local", "SUCCESS"), "delivered 2.0.0"),
    "dropped": (to("a@discard.local", "SUCCESS", "FAILURE"), "delivered 2.0.0"),
    "alias": (to("team@test.local", "SUCCESS", fate="expanded"), "expanded 2.0.0"),
    "list": (to("list@test.local", "SUCCESS", fate="delivered"), "delivered 2.0.0"),
}


@pytest.mark.parametrize("row", SUCCESS)
def test_who_asks_is_told_of_success(tmp_path: Path, spool: Spool, row: str) -> None:
    """NOTIFY=SUCCESS, with ENVID and ORCPT as they came (RFC 3461 6); the header alone comes back (4.3)."""
    recipient, wanted = SUCCESS[row]
    asked = Recipient(
        address=recipient.address, notify=recipient.notify, fate=recipient.fate, orcpt="rfc822;First+40x.org"
    )
    (told,) = settle(
        tmp_path, spool, to("b@test.local"), asked, message=MAIL, envid="QQ+2B314", ret="FULL"
    )["sender"]  # fmt: skip
    assert told.actions == {recipient.address: wanted}
    assert told.about["Original-Envelope-Id"] == "QQ+314"
    assert told.recipients[0]["Original-Recipient"] == "rfc822; First@x.org"
    assert not told.whole


@pytest.mark.parametrize(
    "notify", [("NEVER",), ("FAILURE",), ("DELAY",), ()], ids=lambda n: "+".join(n) or "none"
)
def test_who_does_not_ask_is_not_told_of_success(
    tmp_path: Path, spool: Spool, notify: tuple[str, ...]
) -> None:
    """RFC 3461 4.1."""
    assert settle(tmp_path, spool, to("a@test.local", *notify), message=MAIL)["sender"] == []


@pytest.mark.parametrize(
    ("ret", "size", "whole"),
    [("FULL", 100, True), ("HDRS", 100, False), ("", 100, True), ("FULL", 60_000, False)],
)
def test_what_comes_back(tmp_path: Path, spool: Spool, ret: str, size: int, whole: bool) -> None:
    """RET, and [reports] max_returned above it."""
    message = LOOPED + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * (size // 72)
    (told,) = settle(tmp_path, spool, to("gone@test.local"), message=message, ret=ret)["sender"]
    assert told.whole is whole
    assert (b"x" * 70 in told.octets) is whole
    returned = told.returned.get_content() if whole else told.returned.get_payload(decode=True).decode()
    assert "Received: from x" in str(returned), "as it went on from here"


def test_a_sender_with_other_letters_is_told_in_them(tmp_path: Path, spool: Spool) -> None:
    """RFC 6533: message/global-delivery-status, to whom has no other address."""
    queued(
        spool, recipients=(to("gone@test.local"),), sender="jörg@test.local", smtputf8=True, body="8BITMIME",
        message="Delivered-To: gone@test.local\r\nSubject: Größe\r\n\r\nüber\r\n".encode(),
        received_at=time.time(),
    )  # fmt: skip
    with running_qmgr(config(tmp_path)) as qmgr:
        wait_for(lambda: is_empty(tmp_path))
        assert qmgr.stop() == 0
    (folder,) = (path for path in (tmp_path / "mail/test.local").iterdir())
    (told,) = reports(folder)
    assert told.message["Content-Type"].params["report-type"] == "global-delivery-status"
    assert told.returned.get_content_type() == "message/global"
    assert "\nSubject: Größe\n".encode() in told.octets


def test_a_delay_is_told_once(tmp_path: Path, spool: Spool) -> None:
    """With the try that comes after warn_after; over restarts, and however often it is tried."""
    settings = config(tmp_path)
    queue_id = queued(
        spool, recipients=(to("b@elsewhere.org"), to("a@test.local")), sender=SENDER,
        received_at=time.time() - 5 * 3600,
    )  # fmt: skip
    for tries in (1, 2, 3):
        with running_qmgr(settings) as qmgr:
            if tries > 1:
                assert qmgr.ask("flush", queue_id).count == 1
            wait_for(lambda tries=tries: qmgr.ask("show", queue_id).entries[0].attempts == tries)  # type: ignore[misc]
            wait_for(lambda: mailbox(tmp_path, "sender"))
            wait_for(lambda: qmgr.ask("list").count == 1)
            assert qmgr.stop() == 0
    (told,) = mailbox(tmp_path, "sender")
    assert told.actions == {"b@elsewhere.org": "delayed 4.3.5"}
    assert "Will-Retry-Until" in told.recipients[0]
    assert state.load(f"{spool.new}/{queue_id}").warned


def test_a_warning_speaks_for_the_whole_message(tmp_path: Path, spool: Spool) -> None:
    """Once, whomever it was about: who was not tried by then is not warned of later."""
    queue_id = queued(
        spool, recipients=(to("a@test.local"), to("b@elsewhere.org")), sender=SENDER,
        received_at=time.time() - 5 * 3600,
    )  # fmt: skip
    known = state.State()
    for outcome in (
        Outcome(0, "deferred", "4.0.0", "later", told=True),
        Outcome(0, "delivered", "2.0.0", "ok"),
    ):
        state.append(f"{spool.new}/{queue_id}", Attempt(at=1.0, outcomes=(outcome,)), known)
    with running_qmgr(config(tmp_path)) as qmgr:
        wait_for(lambda: qmgr.ask("show", queue_id).entries[0].attempts == 3)
        wait_for(lambda: settled(qmgr, queue_id))
        assert qmgr.ask("list").count == 1
        assert qmgr.stop() == 0
    assert mailbox(tmp_path, "sender") == []


WARNINGS: dict[str, tuple[tuple[str, ...], int, int, int]] = {
    # NOTIFY, age in hours, warn_after in hours -> warnings
    "late": ((), 5, 4, 1),
    "not yet": ((), 3, 4, 0),
    "asked": (("DELAY",), 5, 4, 1),
    "not asked": (("FAILURE",), 5, 4, 0),
    "wants none": (("NEVER",), 5, 4, 0),
    "nobody is": ((), 5, 0, 0),
    "earlier": ((), 3, 2, 1),
}


@pytest.mark.parametrize("row", WARNINGS)
def test_who_is_warned_of_a_delay(tmp_path: Path, spool: Spool, row: str) -> None:
    """NOTIFY=DELAY (RFC 3461 4.1), and [reports] warn_after; who was not told will not be either."""
    notify, hours, warn_after, told = WARNINGS[row]
    queue_id = queued(
        spool, recipients=(to("b@elsewhere.org", *notify),), sender=SENDER,
        received_at=time.time() - hours * 3600,
    )  # fmt: skip
    with running_qmgr(config(tmp_path, warn_after=schema.Seconds(warn_after * 3600))) as qmgr:
        wait_for(lambda: qmgr.ask("show", queue_id).entries[0].attempts == 1)
        wait_for(lambda: len(mailbox(tmp_path, "sender")) == told)
        wait_for(lambda: qmgr.ask("list").count == 1)
        assert qmgr.stop() == 0
    assert len(mailbox(tmp_path, "sender")) == told
    assert state.load(f"{spool.new}/{queue_id}").warned is (0 < warn_after <= hours)


def test_what_is_given_up_is_told(tmp_path: Path, spool: Spool) -> None:
    """5.4.7, with the last reason; the message is gone."""
    (told,) = settle(
        tmp_path, spool, to("b@elsewhere.org"), received_at=time.time() - 6 * DAY
    )["sender"]  # fmt: skip
    assert told.actions == {"b@elsewhere.org": "failed 5.4.7"}
    assert "given up after 6.0 days: no transport for this recipient" in told.text


def test_who_failed_is_told_while_another_waits_and_not_again(tmp_path: Path, spool: Spool) -> None:
    """Failed recipients are final once reported; a restart and a flush tell nobody twice, and try only who
    waits."""
    recipients = (
        to("gone@test.local"),
        to("a@test.local", "SUCCESS"),
        to("b@elsewhere.org"),
        to("c@test.local", "FAILURE"),
    )
    queue_id = queued(
        spool, recipients=recipients, message=LOOPED, sender=SENDER, received_at=time.time()
    )  # fmt: skip
    for tries in (1, 2):
        with running_qmgr(config(tmp_path)) as qmgr:
            if tries > 1:
                assert qmgr.ask("flush", queue_id).count == 1
            wait_for(lambda tries=tries: qmgr.ask("show", queue_id).entries[0].attempts == tries)  # type: ignore[misc]
            wait_for(lambda: mailbox(tmp_path, "sender"))
            assert qmgr.stop() == 0
    (told,) = mailbox(tmp_path, "sender")
    assert told.actions == {"gone@test.local": "failed 5.4.6", "a@test.local": "delivered 2.0.0"}
    last = state.load(f"{spool.new}/{queue_id}").last
    assert [last[index].told for index in range(4)] == [True, True, False, True]


def test_mail_that_failed_before_there_were_reports_is_told_of(tmp_path: Path, spool: Spool) -> None:
    """Lines of an older forkd, which kept such mail and told nobody."""
    queue_id = queued(spool, recipients=(to("b@elsewhere.org"),), sender=SENDER, received_at=time.time())
    line = b'{"at":1.0,"outcomes":[[0,"failed","5.1.1","nobody of that name"]]}'
    Path(f"{spool.new}/{queue_id}.state").write_bytes(b"%08x %b\n" % (zlib.crc32(line), line))
    with running_qmgr(config(tmp_path)) as qmgr:
        wait_for(lambda: is_empty(tmp_path))
        assert qmgr.stop() == 0
    (told,) = mailbox(tmp_path, "sender")
    assert told.actions == {"b@elsewhere.org": "failed 5.1.1"}
    assert "nobody of that name" in told.text


def test_members_of_a_list_are_its_owners_business(tmp_path: Path, spool: Spool) -> None:
    """RFC 5321 3.9.2: the owner hears of them, not who wrote to the list; ENVID is not the owner's."""
    owned = to("gone@test.local", sender="owner@test.local", original="list@test.local")
    found = settle(tmp_path, spool, owned, to("gone2@test.local"), envid="mine")
    assert [told.actions for told in found["owner"]] == [{"gone@test.local": "failed 5.4.6"}]
    assert [told.actions for told in found["sender"]] == [{"gone2@test.local": "failed 5.4.6"}]
    assert "Original-Envelope-Id" not in found["owner"][0].about
    assert "list@test.local (passed on to gone@test.local)" in found["owner"][0].text


def test_reports_come_from_a_slot_of_qmgrs_own(tmp_path: Path, spool: Spool) -> None:
    """Committed as any mail: a report that cannot be delivered now waits in the queue."""
    queued(
        spool, recipients=(to("gone@test.local"),), message=LOOPED, sender="x@elsewhere.org",
        received_at=time.time(),
    )  # fmt: skip
    for _ in range(2):
        with running_qmgr(config(tmp_path)) as qmgr:
            (entry,) = wait_for(lambda: [e for e in qmgr.ask("list").entries if e.state == "deferred"])
            assert (entry.sender, entry.recipients) == ("", ("x@elsewhere.org",))
            assert entry.id.endswith(QMGR_SLOT.upper())
            path = f"{tmp_path}/spool/new/{QMGR_SLOT}/{entry.id}"
            assert stored.load(path, entry.id).envelope.recipients == (to("x@elsewhere.org", "NEVER"),)
            assert qmgr.stop() == 0


def test_a_spool_that_takes_no_report_keeps_the_message(
    tmp_path: Path, spool: Spool, events: Callable[[str], list[dict[str, Any]]]
) -> None:
    """Nothing is forgotten before somebody was told: it is tried again, without delivering again."""
    slot = tmp_path / f"spool/tmp/{QMGR_SLOT}"
    slot.rmdir()
    queue_id = queued(
        spool, recipients=(to("gone@test.local"), to("a@test.local")), message=LOOPED, sender=SENDER,
        received_at=time.time(),
    )  # fmt: skip
    with running_qmgr(config(tmp_path)) as qmgr:
        wait_for(lambda: events("unreported"))
        wait_for(lambda: qmgr.ask("list").entries[0].state == "deferred")
        assert mailbox(tmp_path, "sender") == []
        assert qmgr.stop() == 0
    slot.mkdir()
    known = state.load(f"{spool.new}/{queue_id}")
    assert [known.last[i].status for i in (0, 1)] == ["failed", "delivered"]
    with running_qmgr(config(tmp_path)) as qmgr:
        qmgr.ask("flush", queue_id)
        wait_for(lambda: is_empty(tmp_path))
        assert qmgr.stop() == 0
    assert [told.actions for told in mailbox(tmp_path, "sender")] == [{"gone@test.local": "failed 5.4.6"}]
    assert len(list((tmp_path / "mail/test.local/a/new").iterdir())) == 1


def test_what_a_next_hop_took_over_is_its_to_tell(tmp_path: Path, spool: Spool) -> None:
    """Recorded as told, and as relayed: a later attempt at others says neither too much nor too little."""
    queue_id = queued(
        spool, recipients=tuple(to(f"{user}@test.local", "SUCCESS") for user in "xyz"), sender=SENDER,
        message=MAIL, received_at=time.time(),
    )  # fmt: skip
    line = Attempt(
        at=time.time(),
        outcomes=(
            Outcome(0, "delivered", "2.1.5", "passed on", told=True),
            Outcome(1, "delivered", "2.0.0", "taken", relayed=True, host="mx.next.example"),
        ),
    )
    state.append(f"{spool.new}/{queue_id}", line, state.State())
    with running_qmgr(config(tmp_path)) as qmgr:
        wait_for(lambda: is_empty(tmp_path))
        assert qmgr.stop() == 0
    (told,) = mailbox(tmp_path, "sender")
    assert told.actions == {"y@test.local": "relayed 2.0.0", "z@test.local": "delivered 2.0.0"}
    assert told.recipients[0]["Remote-MTA"] == "dns; mx.next.example"
