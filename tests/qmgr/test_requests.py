"""Admin's requests to a running qmgr: paging, choosing, acting, while it delivers (qmgr/requests*.py)."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from forkd.config import schema
from forkd.queue.spool import Spool
from forkd.rpc import channel
from forkd.rpc.messages import QueueAnswer, QueueFilter, QueueRequest
from tests.support.reports import reports
from tests.support.spooling import RunningQmgr, a_config, a_spool, queued, running_qmgr
from tests.support.waiting import wait_for


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "spool", durable=False)


def now() -> float:
    return time.time()


def all_pages(qmgr: RunningQmgr, act: str, **fields: object) -> list[QueueAnswer]:
    answers = [qmgr.ask(act, **fields)]
    while answers[-1].more:
        answers.append(qmgr.ask(act, after=answers[-1].after, **fields))
    return answers


def listed(qmgr: RunningQmgr, **fields: object) -> list[str]:
    return [entry.id for answer in all_pages(qmgr, "list", **fields) for entry in answer.entries]


def states(qmgr: RunningQmgr) -> dict[str, str]:
    return {entry.id: entry.state for answer in all_pages(qmgr, "list") for entry in answer.entries}


def waiting(qmgr: RunningQmgr, count: int) -> None:
    """Until so many have been tried and wait for their next try."""
    wait_for(lambda: list(states(qmgr).values()).count("deferred") == count, timeout_s=30)


def many(spool: Spool, count: int) -> list[str]:
    """Messages that no transport takes: every third from bob, the others from alice."""
    senders = ("alice@x.org", "alice@x.org", "bob@x.org")
    return [
        queued(spool, f"u{i}@elsewhere.org", received_at=now(), sender=senders[i % 3]) for i in range(count)
    ]


def test_a_long_queue_is_listed_and_counted_over_pages(tmp_path: Path, spool: Spool) -> None:
    """All of it, in order, and of a filter what fits; other slots' among them."""
    ids = many(spool, 1500)
    ids.append(queued(a_spool(tmp_path / "spool", "w1"), "a@elsewhere.org", received_at=now()))
    with running_qmgr(a_config(tmp_path)) as qmgr:
        waiting(qmgr, len(ids))
        assert listed(qmgr) == sorted(ids)
        assert listed(qmgr, limit=7)[:20] == sorted(ids)[:20]
        answers = all_pages(qmgr, "list", filter=QueueFilter(senders=("bob@x.org",)), limit=1000)
        assert [entry.id for answer in answers for entry in answer.entries] == ids[2:1500:3]
        assert sum(answer.seen for answer in answers) == len(ids)
        assert {answer.count for answer in answers} == {len(ids)}
        assert listed(qmgr, filter=QueueFilter(ids=(ids[5], "A" * 16, ids[3]))) == [ids[3], ids[5]]
        counts = [each for answer in all_pages(qmgr, "stat") for each in answer.counts]
        assert sum(each.count for each in counts if each.kind == "domain") == len(ids)
        assert {(each.name, each.age) for each in counts if each.kind == "state"} == {("deferred", 0)}
        assert qmgr.stop() == 0


def test_the_pages_go_on_where_messages_have_gone(tmp_path: Path, spool: Spool) -> None:
    """Also where the page's last one is removed before the next is asked for."""
    ids = many(spool, 30)
    with running_qmgr(a_config(tmp_path)) as qmgr:
        waiting(qmgr, len(ids))
        first = qmgr.ask("list", limit=10)
        assert first.after == ids[9]
        qmgr.ask("remove", *ids[5:15], who="root")
        rest = qmgr.ask("list", limit=100, after=first.after)
        assert [entry.id for entry in rest.entries] == ids[15:]
        assert qmgr.stop() == 0


def test_an_act_on_chosen_messages_spares_what_does_not_fit_any_more(tmp_path: Path, spool: Spool) -> None:
    """Between choosing and acting, another admin, or a delivery, may have been there."""
    ids = many(spool, 9)
    chosen = QueueFilter(senders=("bob@x.org",), states=("deferred",))
    with running_qmgr(a_config(tmp_path)) as qmgr:
        waiting(qmgr, len(ids))
        bobs = listed(qmgr, filter=chosen)
        assert bobs == ids[2::3]
        assert qmgr.ask("hold", bobs[0], who="root").count == 1
        answer = qmgr.ask("remove", *bobs, ids[0], who="root", filter=chosen)
        assert (answer.count, answer.left) == (2, ())
        assert answer.not_done == tuple(f"{i}: not as it was chosen any more" for i in (bobs[0], ids[0]))
        assert sorted(states(qmgr)) == sorted(set(ids) - set(bobs[1:]))
        assert qmgr.stop() == 0


def test_what_an_act_does_not_change_waits_as_it_did(tmp_path: Path, spool: Spool) -> None:
    """A release of what is not held: no try now, and none later than it was due."""
    (queue_id,) = many(spool, 1)
    with running_qmgr(a_config(tmp_path)) as qmgr:
        waiting(qmgr, 1)
        (before,) = qmgr.ask("list").entries
        assert qmgr.ask("release", queue_id, who="root").not_done == (f"{queue_id}: not held",)
        assert qmgr.ask("list").entries == (before,)
        assert qmgr.stop() == 0


@pytest.mark.parametrize("act", ["hold", "remove"])
def test_an_act_on_many_is_whole_and_survives_a_restart(tmp_path: Path, spool: Spool, act: str) -> None:
    """What was answered is on disk; the others are as they were, and due when they were."""
    ids = many(spool, 400)
    config = a_config(tmp_path)
    with running_qmgr(config) as qmgr:
        waiting(qmgr, len(ids))
        due = {entry.id: entry.next_try_at for page in all_pages(qmgr, "list") for entry in page.entries}
        todo, count = ids[:300], 0
        while todo:
            answer = qmgr.ask(act, *todo, who="root")
            todo, count = list(answer.left), count + answer.count
        assert count == 300
        os.kill(qmgr.pid, 9)
        qmgr.ended()
    with running_qmgr(config) as qmgr:
        wait_for(lambda: qmgr.ask("list").count)
        found = states(qmgr)
        assert [found.get(queue_id) for queue_id in ids[:300]] == ["hold" if act == "hold" else None] * 300
        assert [found[queue_id] for queue_id in ids[300:]] == ["deferred"] * 100
        again = {entry.id: entry.next_try_at for page in all_pages(qmgr, "list") for entry in page.entries}
        assert [again[queue_id] for queue_id in ids[300:]] == [due[queue_id] for queue_id in ids[300:]]
        assert qmgr.stop() == 0


def test_what_is_bounced_is_reported_and_gone(tmp_path: Path, spool: Spool) -> None:
    """Waiting or held; its sender has one report for all who did not get it, and the null sender none. As any
    report it is there before its message goes, so it is in the mailbox, or found in the spool."""
    config = a_config(tmp_path, scan_interval=schema.Seconds(3600))
    sender = {"sender": "me@test.local", "received_at": now()}
    waits = queued(spool, "b@elsewhere.org", "c@elsewhere.org", "a@test.local", **sender)
    held = queued(spool, "d@test.local", hold="looks bad", **sender)
    silent = queued(spool, "e@elsewhere.org", received_at=now(), sender="")
    with running_qmgr(config) as qmgr:
        wait_for(lambda: states(qmgr) == {waits: "deferred", held: "hold", silent: "deferred"}, timeout_s=30)
        answer = qmgr.ask("bounce", waits, held, silent, "A" * 16, who="root")
        assert (answer.count, answer.not_done) == (3, ("A" * 16 + ": not in the queue",))
        found = wait_for(lambda: len(all_ := reports(tmp_path / "mail/test.local/me")) == 2 and all_)
        assert sorted(report.actions.items() for report in found) == sorted(
            [
                dict.fromkeys(("b@elsewhere.org", "c@elsewhere.org"), "failed 5.0.0").items(),
                {"d@test.local": "failed 5.0.0"}.items(),
            ]
        )
        assert all("removed from the queue by the administrator" in report.text for report in found)
        wait_for(lambda: not listed(qmgr))
        assert not [path for path in (tmp_path / "spool/new").rglob("*") if path.is_file()]
        assert not (tmp_path / "mail/test.local/d").exists()
        assert qmgr.stop() == 0


def test_a_message_that_is_held_and_released_in_turn_is_delivered_once(tmp_path: Path, spool: Spool) -> None:
    """By several admins at once, while qmgr delivers: every message ends up in the mailbox, and once."""
    config = a_config(tmp_path, scan_interval=schema.Seconds(3600))
    with running_qmgr(config) as qmgr:
        ids = [queued(spool, received_at=now(), hold="wait") for _ in range(60)]
        for queue_id in ids:
            qmgr.poke(spool, queue_id)
        wait_for(lambda: list(states(qmgr).values()).count("hold") == len(ids))

        def tease() -> None:
            for _ in range(5):
                for act in ("release", "hold", "flush"):
                    qmgr.ask(act, *ids, who="root")

        admins = [threading.Thread(target=tease) for _ in range(3)]
        for admin in admins:
            admin.start()
        for admin in admins:
            admin.join()

        def gone() -> bool:
            if left := listed(qmgr):
                qmgr.ask("release", *left, who="root")
            return not left

        wait_for(gone, timeout_s=30)
        assert len(list((tmp_path / "mail/test.local/a/new").iterdir())) == len(ids)
        assert not list(Path(spool.new).iterdir())
        assert qmgr.stop() == 0


def test_who_asks_and_does_not_wait_is_served_and_hurts_nobody(tmp_path: Path, spool: Spool) -> None:
    """More of them than may be under way at once, gone before their answers: the loop goes on, and what they
    asked for is done."""
    queue_id = queued(spool, "u@elsewhere.org", received_at=now())
    with running_qmgr(a_config(tmp_path)) as qmgr:
        waiting(qmgr, 1)
        sockets = []
        for _ in range(80):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            client.connect(str(qmgr.path))
            channel.send(client, QueueRequest(n=1, act="hold", ids=(queue_id,)))
            sockets.append(client)
            client.close()
        assert qmgr.deliver("w0", "x").code == 451
        wait_for(lambda: states(qmgr) == {queue_id: "hold"})
        assert qmgr.stop() == 0


def test_a_page_of_odd_files_is_still_a_page(tmp_path: Path, spool: Spool) -> None:
    """A FIFO, a folder, a damaged file under a message's name: shown as unreadable, nobody waits for it."""
    good = many(spool, 3)
    with running_qmgr(a_config(tmp_path)) as qmgr:
        waiting(qmgr, 3)
        path = Path(spool.new) / good[1]
        path.unlink()
        os.mkfifo(path)
        assert stat.S_ISFIFO(path.stat().st_mode)
        answer = qmgr.ask("list")
        assert [entry.id for entry in answer.entries] == good
        assert "cannot be read" in answer.entries[1].reason
        assert qmgr.ask("show", good[1]).entries[0].reason.startswith("cannot be read")
        assert qmgr.ask("release", good[1]).not_done[0].startswith(f"{good[1]}: cannot be read")
        assert qmgr.ask("remove", good[1]).count == 1
        assert not path.exists()
        assert qmgr.stop() == 0


@pytest.mark.parametrize(
    ("act", "fields", "said"),
    [
        ("list", {"filter": QueueFilter(ids=("../x",))}, "is not a queue id"),
        ("hold", {}, "hold takes ids"),
        ("remove", {"destination": "x"}, "remove takes no destination"),
        ("flush", {"destination": "nowhere.test"}, "no mail is known to wait for 'nowhere.test'"),
    ],
    ids=["id in a filter", "no ids", "destination", "unknown destination"],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, spool: Spool, act: str, fields: dict[str, object], said: str
) -> None:
    """And nothing is done."""
    with running_qmgr(a_config(tmp_path)) as qmgr:
        assert said in qmgr.ask(act, **fields).error
        assert qmgr.stop() == 0


def test_a_transport_of_this_machine_is_held_and_released(tmp_path: Path, spool: Spool) -> None:
    """What is for it waits, what is not goes on; the release brings it there."""
    with running_qmgr(a_config(tmp_path)) as qmgr:
        assert qmgr.ask("hold", destination="local").count == 1
        held = queued(spool, "a@test.local", received_at=now())
        qmgr.poke(spool, held)
        other = queued(spool, "a@discard.local", received_at=now())
        qmgr.poke(spool, other)
        wait_for(lambda: list(states(qmgr)) == [held])
        assert qmgr.ask("release", destination="local").count == 1
        wait_for(lambda: not states(qmgr))
        assert len(list((tmp_path / "mail/test.local/a/new").iterdir())) == 1
        assert qmgr.stop() == 0
