"""Which messages a filter means, and what a page of list and stat says (qmgr/requests_*.py)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from forkd.qmgr.requests_filter import chooser
from forkd.qmgr.requests_look import Candidate, look, whole_entry
from forkd.qmgr.requests_pages import OTHERS, age_of, list_page, reason_kind, stat_page
from forkd.queue import state
from forkd.queue.envelope import Recipient
from forkd.queue.outcome import Outcome
from forkd.queue.spool import Spool
from forkd.queue.state import Attempt
from forkd.rpc import channel
from forkd.rpc.messages import QueueAnswer, QueueFilter, QueueRequest
from tests.support.spooling import a_spool, queued


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "spool", durable=False)


def root(spool: Spool) -> str:
    return str(Path(spool.new).parent.parent)


def tried(spool: Spool, queue_id: str, *outcomes: Outcome, **fields: Any) -> None:
    path = f"{spool.new}/{queue_id}"
    line = Attempt(at=time.time(), outcomes=outcomes, **fields)
    state.append(path, line, state.load(path), durable=False)


def deferred(index: int, text: str) -> Outcome:
    return Outcome(index, "deferred", "4.4.1", text)


FITS = {
    "all": ({}, True),
    "sender": ({"senders": ("Bob@Example.org",)}, True),
    "sender, another": ({"senders": ("alice@example.org", "bob@example.org")}, True),
    "sender, not a part": ({"senders": ("ob@example.org",)}, False),
    "sender's domain": ({"senders": ("@example.org",)}, True),
    "sender's domain, not a part": ({"senders": ("@ample.org",)}, False),
    "sender, pattern": ({"senders": ("b*@*.org",)}, True),
    "sender, pattern must fit whole": ({"senders": ("b*@*.or",)}, False),
    "sender, overlapping pattern": ({"senders": ("bob@example.org*.org",)}, False),
    "null sender": ({"senders": ("<>",)}, False),
    "recipient": ({"recipients": ("b@two.test",)}, True),
    "recipient who has it": ({"recipients": ("a@one.test",)}, False),
    "domain": ({"domains": ("TWO.test",)}, True),
    "domain, pattern": ({"domains": ("*.test",)}, True),
    "domain of who has it": ({"domains": ("one.test",)}, False),
    "domain in Unicode": ({"domains": ("bücher.test",)}, True),
    "state": ({"states": ("hold", "deferred")}, True),
    "another state": ({"states": ("hold",)}, False),
    "reason": ({"reason": "TIMED out"}, True),
    "another reason": ({"reason": "refused"}, False),
    "older": ({"received_to": 1_700_000_000.0}, True),
    "not older": ({"received_to": 1_699_999_999.0}, False),
    "newer": ({"received_from": 1_700_000_000.0}, True),
    "not newer": ({"received_from": 1_700_000_001.0}, False),
    "large": ({"size_from": 3}, True),
    "not large": ({"size_from": 1000}, False),
    "small": ({"size_to": 1000}, True),
    "not small": ({"size_to": 3}, False),
    "all of them": ({"senders": ("@example.org",), "domains": ("two.test",), "reason": "timed"}, True),
    "one not": ({"senders": ("@example.org",), "domains": ("two.test",), "reason": "full"}, False),
    "what was chosen elsewhere": ({"besides": "reason-regex=nothing"}, True),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_a_filter_means_what_waits(spool: Spool, name: str) -> None:
    """Recipients that have the message are not looked for; letters' case is not looked at."""
    queue_id = queued(
        spool, "a@one.test", "b@two.test", "c@xn--bcher-kva.test",
        sender="bob@example.org", received_at=1_700_000_000.0,
    )  # fmt: skip
    done, waits = Outcome(0, "delivered", "2.0.0", "ok"), deferred(1, "connect: timed out")
    tried(spool, queue_id, done, waits, next_try_at=9e9)
    fields, wanted = FITS[name]
    seen = look(root(spool), Candidate(queue_id, "w0"))
    assert seen is not None
    assert chooser(QueueFilter(**fields))(seen) is wanted


def test_a_message_that_cannot_be_read_is_shown_as_such(spool: Spool) -> None:
    """Never left out of a list; sender and recipients fit nothing."""
    queue_id = queued(spool)
    Path(f"{spool.new}/{queue_id}").write_bytes(b"x" * 100)
    seen = look(root(spool), Candidate(queue_id, "w0"))
    assert seen is not None
    assert "cannot be read: no footer" in seen.reason
    assert time.time() - 60 < seen.received_at <= time.time()
    assert not chooser(QueueFilter(senders=("<>",)))(seen)
    assert chooser(QueueFilter(reason="cannot be read"))(seen)
    assert look(root(spool), Candidate("A" * 16, "w0")) is None


def a_list(spool: Spool, ids: list[str], **fields: Any) -> QueueAnswer:
    rest = [Candidate(queue_id, "w0") for queue_id in ids if queue_id > fields.get("after", "")]
    answer = list_page(root(spool), rest, QueueRequest(n=1, act="list", **fields))
    channel.encode(answer)  # fits in a record
    return answer


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_pages_join_without_gap_or_repetition(spool: Spool, limit: int) -> None:
    """Whatever ended the page: the limit, the record's size; also where the filter drops most."""
    wide = tuple(Recipient(address=f"{'r' * 200}{i}@{'d' * 60}.test") for i in range(10))
    ids = [queued(spool, recipients=wide, sender=("keep" if i % 3 else "drop") + "@x.org") for i in range(60)]
    chosen = QueueFilter(senders=("keep@x.org",))
    seen: list[str] = []
    after, looked_at, more = "", 0, True
    while more:
        answer = a_list(spool, ids, limit=limit, after=after, filter=chosen)
        seen += [entry.id for entry in answer.entries]
        assert len(answer.entries) <= limit
        after, more, looked_at = answer.after, answer.more, looked_at + answer.seen
    assert seen == [queue_id for i, queue_id in enumerate(ids) if i % 3]
    assert looked_at == len(ids)


def test_what_goes_between_listing_and_looking_is_passed_over(spool: Spool) -> None:
    """Delivered meanwhile: not in the list, and not the end of it."""
    first, gone, last = (queued(spool) for _ in range(3))
    Path(f"{spool.new}/{gone}").unlink()
    answer = a_list(spool, [first, gone, last])
    assert [entry.id for entry in answer.entries] == [first, last]
    assert (answer.seen, answer.more) == (3, False)


def counted(spool: Spool, ids: list[str], **fields: Any) -> dict[tuple[str, str, int], int]:
    request = QueueRequest(n=1, act="stat", **fields)
    counts: dict[tuple[str, str, int], int] = {}
    after, more = "", True
    while more:
        rest = [Candidate(queue_id, "w0") for queue_id in ids if queue_id > after]
        answer = stat_page(root(spool), rest, request)
        channel.encode(answer)
        for each in answer.counts:
            key = each.kind, each.name, each.age
            counts[key] = counts.get(key, 0) + each.count
        after, more = answer.after, answer.more
    return counts


def test_stat_counts_recipients_that_wait_by_domain_and_age(spool: Spool) -> None:
    """As qshape: each recipient; by sender each message; the null sender has a name."""
    now = 1_700_000_000.0
    young = queued(spool, "a@One.test", "b@one.test", "c@two.test", received_at=now - 10, sender="")
    old = queued(spool, "a@one.test", "b@two.test", received_at=now - 100_000, sender="x@from.test")
    tried(spool, old, Outcome(0, "delivered", "2.0.0", "ok"), deferred(1, "421 busy"), next_try_at=9e9)
    assert counted(spool, [young, old], at=now) == {
        ("domain", "one.test", 0): 2, ("domain", "two.test", 0): 1, ("domain", "two.test", 9): 1,
        ("state", "active", 0): 1, ("state", "deferred", 9): 1,
        ("reason", "", 0): 1, ("reason", "421 busy", 9): 1,
    }  # fmt: skip
    by_sender = counted(spool, [young, old], at=now, by_sender=True)
    assert {key: count for key, count in by_sender.items() if key[0] == "domain"} == {
        ("domain", "<>", 0): 1, ("domain", "from.test", 9): 1,
    }  # fmt: skip
    chosen = counted(spool, [young, old], at=now, filter=QueueFilter(senders=("<>",)))
    assert ("state", "deferred", 9) not in chosen


def test_stat_of_countless_domains_fits_in_records(spool: Spool) -> None:
    """A message to a thousand domains, and many messages: bounded, and no recipient is left out."""
    many = tuple(Recipient(address=f"u@{'long' * 12}.{i}.test") for i in range(1000))
    ids = [queued(spool, recipients=many, received_at=time.time())]
    ids += [queued(spool, f"u@{'d' * 60}.{i}.test", received_at=time.time()) for i in range(600)]
    domains = {key: count for key, count in counted(spool, ids).items() if key[0] == "domain"}
    assert sum(domains.values()) == 1600
    assert domains["domain", OTHERS, 0] == 900


@pytest.mark.parametrize(
    ("minutes", "age"),
    [(0, 0), (4.9, 0), (5, 1), (9.9, 1), (10, 2), (639, 7), (1279, 8), (1280, 9), (1e9, 9)],
)
def test_ages_double(minutes: float, age: int) -> None:
    """5 10 20 40 80 160 320 640 1280 1280+; a clock that was set back makes nothing older."""
    assert age_of(minutes * 60) == age
    assert age_of(-minutes * 60) == 0


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("connect to mx1.a.org[192.0.2.1]:25: timed out", "connect to mx2.a.org[192.0.2.2]:25: timed out",
         "connect to … timed out"),
        ("450 4.2.1 <a@b.org>: wait 300s", "450 4.2.1 <c@b.org>: wait 60s", "450 4.2.1 … wait …"),
        ("no route", "no  route", "no route"),
    ],
    ids=["host", "reply", "blanks"],
)  # fmt: skip
def test_reasons_of_one_kind_count_together(one: str, other: str, kind: str) -> None:
    """Addresses, hosts, times differ from message to message; codes say what it is."""
    assert reason_kind(one) == reason_kind(other) == kind


def test_show_tells_how_it_came_to_this(spool: Spool) -> None:
    """All attempts, holds among them, and what each next hop said."""
    queue_id = queued(spool, "a@one.test")
    tried(
        spool,
        queue_id,
        Outcome(0, "deferred", "4.4.1", "busy", host="mx.one.test", reply="421 busy"),
        next_try_at=9e9,
    )
    path = f"{spool.new}/{queue_id}"
    state.append(path, Attempt(at=2.0, hold="held by root"), state.load(path), durable=False)
    entry = whole_entry(root(spool), Candidate(queue_id, "w0"))
    assert entry is not None
    assert (entry.state, entry.reason, entry.attempts) == ("hold", "held by root", 1)
    for word in ('"host":"mx.one.test"', '"reply":"421 busy"', '"deferred":1', '"hold":"held by root"'):
        assert word in entry.detail


def test_a_show_of_a_thousand_recipients_fits_in_a_record(spool: Spool) -> None:
    """The first of them, and how many there are."""
    wide = tuple(Recipient(address=f"{'r' * 60}{i}@{'d' * 60}.test") for i in range(1000))
    queue_id = queued(spool, recipients=wide)
    tried(spool, queue_id, *(deferred(i, "x" * 300) for i in range(1000)), next_try_at=9e9)
    entry = whole_entry(root(spool), Candidate(queue_id, "w0"))
    assert entry is not None
    channel.encode(QueueAnswer(n=1, entries=(entry,), count=1))
    assert '"recipients":1000' in entry.detail
