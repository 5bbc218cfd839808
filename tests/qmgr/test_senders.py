"""How does a message go out that has several senders (qmgr/senders.py)?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from forkd.deliver.transport import Delivery, Result, Target
from forkd.qmgr import senders
from forkd.queue import stored
from forkd.queue.commit import commit
from forkd.queue.envelope import Envelope, Recipient
from forkd.queue.format import Damaged
from tests.support.spooling import a_config, a_spool, queued, running_qmgr
from tests.support.waiting import wait_for

OWNER = "owner-list@a.org"
RECIPIENTS = (
    Recipient(address="a@x.org"),
    Recipient(address="b@x.org", sender=OWNER),
    Recipient(address="c@x.org"),
    Recipient(address="d@x.org", sender=OWNER),
    Recipient(address="e@x.org", sender="owner-other@a.org"),
)


@pytest.fixture
def message(tmp_path: Path) -> stored.StoredMessage:
    spool = a_spool(tmp_path)
    file = spool.begin()
    file.write(b"Subject: x\r\n\r\nbody\r\n")
    envelope = Envelope(
        session="S", received_at=1.0, sender="s@y.org", recipients=RECIPIENTS, envid="E", ret="FULL"
    )
    (queue_id,) = commit(spool, [(file, envelope)])
    return stored.load(f"{spool.new}/{queue_id}", str(queue_id))


def delivery(message: stored.StoredMessage, *indexes: int) -> Delivery:
    return Delivery(message, tuple(Target(i, RECIPIENTS[i].address, "x", "x.org") for i in indexes))


class Noting:
    """A transport that notes what it is given; damaged for senders of `broken`."""

    name = "noting"
    parallel = batch = connections = 1

    def __init__(self, *broken: str) -> None:
        self.seen: list[tuple[str, str, str, str]] = []
        self._broken = broken

    def destination(self, _: Target) -> str:
        return ""

    def one(self, delivery: Delivery) -> list[Result] | Damaged:
        envelope = delivery.message.envelope
        to = " ".join(target.address[0] for target in delivery.targets)
        self.seen.append(
            (envelope.sender, to, envelope.envid, b"".join(delivery.message.chunks())[:9].decode())
        )
        if envelope.sender in self._broken:
            return Damaged("no")
        return [Result(target, "delivered", "2.0.0", envelope.sender) for target in delivery.targets]

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        return [self.one(each) for each in deliveries]


class NotingLater(Noting):
    async def deliver(self, delivery: Delivery) -> list[Result] | Damaged:  # type: ignore[override]
        await asyncio.sleep(0)
        return self.one(delivery)

    async def close(self) -> None:
        pass


def delivered(way: Noting, *deliveries: Delivery) -> list[list[Result] | Damaged]:
    if isinstance(way, NotingLater):
        return [asyncio.run(senders.deliver_async(way, each)) for each in deliveries]
    return senders.deliver(way, deliveries)


@pytest.mark.parametrize("kind", [Noting, NotingLater], ids=["threads", "event loop"])
def test_each_sender_has_a_delivery_of_its_own(message: stored.StoredMessage, kind: type[Noting]) -> None:
    """With that sender, and without ENVID for a list (RFC 3461 5.2.7.1); the answer is one, in order."""
    way = kind()
    first, second = delivered(way, delivery(message, 0, 1, 2, 3, 4), delivery(message, 3))
    assert way.seen == [
        ("s@y.org", "a c", "E", "Subject: "),
        (OWNER, "b d", "", "Subject: "),
        ("owner-other@a.org", "e", "", "Subject: "),
        (OWNER, "d", "", "Subject: "),
    ]
    assert not isinstance(first, Damaged)
    assert not isinstance(second, Damaged)
    assert [(result.target.index, result.text) for result in first] == [
        (0, "s@y.org"), (1, OWNER), (2, "s@y.org"), (3, OWNER), (4, "owner-other@a.org")
    ]  # fmt: skip
    assert [result.target.index for result in second] == [3]


@pytest.mark.parametrize("kind", [Noting, NotingLater], ids=["threads", "event loop"])
def test_a_message_of_one_sender_stays_one(message: stored.StoredMessage, kind: type[Noting]) -> None:
    """Nearly every message."""
    way = kind()
    delivered(way, delivery(message, 0, 2))
    assert [(sender, to, envid) for sender, to, envid, _ in way.seen] == [("s@y.org", "a c", "E")]


@pytest.mark.parametrize("kind", [Noting, NotingLater], ids=["threads", "event loop"])
def test_damage_is_no_reason_to_deliver_twice(message: stored.StoredMessage, kind: type[Noting]) -> None:
    """Who has it already is told; the others' next try meets the damage."""
    (answer,) = delivered(kind(OWNER), delivery(message, 0, 1))
    assert not isinstance(answer, Damaged)
    assert [(result.target.index, result.status) for result in answer] == [(0, "delivered"), (1, "deferred")]
    (answer,) = delivered(kind(OWNER), delivery(message, 1))
    assert isinstance(answer, Damaged)


class HangsAtTheSecond(NotingLater):
    """Takes one, says so by `first`, and waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.first = asyncio.Event()

    async def deliver(self, delivery: Delivery) -> list[Result] | Damaged:  # type: ignore[override]
        if self.seen:
            self.first.set()
            await asyncio.Event().wait()
        return await super().deliver(delivery)


def test_who_has_it_when_qmgr_stops_is_told(message: stored.StoredMessage) -> None:
    """Else a restart would give it to them again; where nobody has it nothing is said."""

    async def cut_short(indexes: Sequence[int], way: NotingLater) -> list[Result] | Damaged:
        task = asyncio.ensure_future(senders.deliver_async(way, delivery(message, *indexes)))
        await (way.first.wait() if isinstance(way, HangsAtTheSecond) else asyncio.sleep(0))
        task.cancel()
        return await task

    answer = asyncio.run(cut_short((0, 1, 4), HangsAtTheSecond()))
    assert not isinstance(answer, Damaged)
    assert [(result.target.index, result.status) for result in answer] == [(0, "delivered")]
    assert asyncio.run(cut_short((0, 1), NotingLater())) == []


class StumblesAtTheSecond(NotingLater):
    async def deliver(self, delivery: Delivery) -> list[Result] | Damaged:  # type: ignore[override]
        if self.seen:
            raise LookupError
        return await super().deliver(delivery)


def test_our_own_bug_is_no_reason_to_deliver_twice(message: stored.StoredMessage) -> None:
    """What was delivered before it is told."""
    answer = asyncio.run(senders.deliver_async(StumblesAtTheSecond(), delivery(message, 0, 1)))
    assert not isinstance(answer, Damaged)
    assert [(result.target.index, result.status) for result in answer] == [(0, "delivered"), (1, "deferred")]


def test_what_becomes_of_a_list_is_told_its_owner(tmp_path: Path) -> None:
    """RFC 5321 3.9.2: of its members alone, and the sender of the others."""
    spool = a_spool(tmp_path / "spool")
    recipients = (
        Recipient(address="a@elsewhere.org"),
        Recipient(address="b@elsewhere.org", sender="owner-list@test.local"),
    )
    queued(spool, sender="s@test.local", recipients=recipients, received_at=time.time() - 6 * 86_400)
    mail = tmp_path / "mail/test.local"
    with running_qmgr(a_config(tmp_path)) as qmgr:
        for user, told, other in (("s", "a", "b"), ("owner-list", "b", "a")):
            (report,) = wait_for(lambda: [*mail.glob(f"{user}/new/*")])  # noqa: B023 - called at once
            text = report.read_text()
            assert f"Final-Recipient: rfc822; {told}@elsewhere.org" in text
            assert f"{other}@elsewhere.org" not in text
        assert qmgr.stop() == 0
