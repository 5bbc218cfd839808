"""The running qmgr: a real process on a real spool (qmgr/main.py)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from forkd.config import schema
from forkd.exits import Exit
from forkd.queue import state
from forkd.queue.envelope import Recipient
from forkd.queue.outcome import Outcome
from forkd.queue.spool import Spool
from forkd.queue.state import Attempt
from forkd.rpc import channel
from forkd.rpc.messages import Heartbeat, Ready
from tests.support.spooling import MAIL, RunningQmgr, a_config, a_spool, queued, running_qmgr
from tests.support.waiting import wait_for


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "spool")


def mails(tmp_path: Path, user: str = "a") -> list[bytes]:
    folder = tmp_path / f"mail/test.local/{user}/new"
    return [path.read_bytes() for path in folder.iterdir()] if folder.is_dir() else []


def now() -> float:
    return time.time()


def spool_is_empty(spool: Spool) -> bool:
    return not any(Path(spool.new).iterdir())


def settled(qmgr: RunningQmgr, queue_id: str, wanted: str) -> bool:
    return any(entry.id == queue_id and entry.state == wanted for entry in qmgr.ask("list").entries)


def test_what_is_in_the_spool_at_the_start_is_delivered(tmp_path: Path, spool: Spool) -> None:
    """No poke is needed for mail that came before us; the removal follows the delivery."""
    queued(spool, received_at=now())
    with running_qmgr(a_config(tmp_path)) as qmgr:
        assert isinstance(channel.receive(qmgr.master, Ready), Ready)
        wait_for(lambda: spool_is_empty(spool))
        (mail,) = mails(tmp_path)
        assert mail.endswith(MAIL.replace(b"\r\n", b"\n"))
        assert qmgr.stop() == 0


def test_a_poke_delivers_at_once(tmp_path: Path, spool: Spool) -> None:
    """Long before the walk (here: never) would find it."""
    with running_qmgr(a_config(tmp_path, scan_interval=schema.Seconds(3600))) as qmgr:
        channel.receive(qmgr.master, Ready)
        qmgr.poke(spool, queued(spool, received_at=now()))
        wait_for(lambda: mails(tmp_path))
        assert qmgr.stop() == 0


def test_a_lost_poke_costs_one_scan_interval(tmp_path: Path, spool: Spool) -> None:
    """Never mail (README, "One message", 9); also for a slot that did not exist when we started."""
    with running_qmgr(a_config(tmp_path, scan_interval=schema.Seconds(0.1))) as qmgr:
        channel.receive(qmgr.master, Ready)
        queued(a_spool(tmp_path / "spool", "w9"), received_at=now())
        wait_for(lambda: mails(tmp_path))
        assert qmgr.stop() == 0


BAD_POKES = [
    b"w0/../../../etc/passwd\n", b"/\n", b"\xff\n", b"w0\n", b"../x/AAAAAAAAAAAAAAA\n",
    b"w0/AAAAAAAAAAAAAAAAW0\n",
]  # fmt: skip


@pytest.mark.parametrize("poke", BAD_POKES)
def test_a_poke_is_not_believed(tmp_path: Path, spool: Spool, poke: bytes) -> None:
    """Workers are distrusted: a name is a slot and an id, or nothing."""
    with running_qmgr(a_config(tmp_path)) as qmgr:
        channel.receive(qmgr.master, Ready)
        os.write(qmgr.poke_fd, poke)
        qmgr.poke(spool, queued(spool, received_at=now()))
        wait_for(lambda: mails(tmp_path))
        wait_for(lambda: qmgr.ask("list").count == 0)
        assert qmgr.stop() == 0


def test_a_deferred_recipient_waits_and_the_others_have_it_once(tmp_path: Path, spool: Spool) -> None:
    """Outcomes are recorded per recipient; a restart and a flush deliver to nobody twice."""
    queue_id = queued(spool, "a@test.local", "b@elsewhere.org", received_at=now())
    config = a_config(tmp_path)
    with running_qmgr(config) as qmgr:
        wait_for(lambda: settled(qmgr, queue_id, "deferred"))
        (entry,) = qmgr.ask("list").entries
        assert entry.recipients == ("b@elsewhere.org",)
        assert entry.attempts == 1
        assert 200 < entry.next_try_at - now() < 400
        assert "no transport" in entry.reason
        assert qmgr.stop() == 0
    with running_qmgr(config) as qmgr:
        assert qmgr.ask("list").entries[0].attempts == 1, "not due: not tried by a restart"
        assert qmgr.ask("flush", queue_id).count == 1
        wait_for(lambda: qmgr.ask("list").entries[0].attempts == 2)
        assert len(mails(tmp_path)) == 1
        assert qmgr.stop() == 0


def test_given_up_mail_leaves_the_queue_once_its_sender_is_told(tmp_path: Path, spool: Spool) -> None:
    """Too old and still deferred: failed, no further try; what is left is the report."""
    queue_id = queued(spool, "b@elsewhere.org", sender="a@test.local", received_at=now() - 6 * 86_400)
    with running_qmgr(a_config(tmp_path)) as qmgr:
        wait_for(lambda: mails(tmp_path))
        wait_for(lambda: qmgr.ask("list").count == 0)
        assert spool_is_empty(spool)
        assert qmgr.stop() == 0
    (report,) = mails(tmp_path)
    assert b"given up after 6.0 days" in report
    assert queue_id.encode() in report


def test_a_quarantined_message_waits_for_its_release(tmp_path: Path, spool: Spool) -> None:
    """Held from its commit on: no flush and no restart delivers it; the list says why it is there."""
    queue_id = queued(spool, received_at=now(), hold="virus: EICAR")
    config = a_config(tmp_path)
    for _ in range(2):
        with running_qmgr(config) as qmgr:
            wait_for(lambda: settled(qmgr, queue_id, "hold"))
            assert qmgr.ask("flush").count == 0
            refused = qmgr.ask("flush", queue_id)
            assert (refused.count, refused.not_done) == (0, (f"{queue_id}: on hold; it must be released",))
            (entry,) = qmgr.ask("list").entries
            assert (entry.reason, entry.next_try_at, entry.attempts) == ("virus: EICAR", 0.0, 0)
            assert qmgr.stop() == 0
    with running_qmgr(config) as qmgr:
        assert qmgr.ask("release", queue_id, who="root").count == 1
        wait_for(lambda: spool_is_empty(spool))
        assert qmgr.stop() == 0
    assert len(mails(tmp_path)) == 1


def test_a_release_survives_a_restart(tmp_path: Path, spool: Spool) -> None:
    """The line in `.state` outweighs the envelope's hold (FORMAT.md)."""
    queue_id = queued(spool, "b@elsewhere.org", received_at=now(), hold="virus")
    with running_qmgr(a_config(tmp_path)) as qmgr:
        assert qmgr.ask("release", queue_id, who="root").count == 1
        wait_for(lambda: settled(qmgr, queue_id, "deferred"))
        assert qmgr.stop() == 0
    with running_qmgr(a_config(tmp_path)) as qmgr:
        assert settled(qmgr, queue_id, "deferred")
        assert qmgr.stop() == 0


def test_an_admin_holds_what_waits(tmp_path: Path, spool: Spool) -> None:
    """Over a restart and against a flush; released it is tried at once, with its attempts so far."""
    queue_id = queued(spool, "b@elsewhere.org", received_at=now())
    config = a_config(tmp_path)
    with running_qmgr(config) as qmgr:
        wait_for(lambda: settled(qmgr, queue_id, "deferred"))
        assert qmgr.ask("hold", queue_id, who="root").count == 1
        assert settled(qmgr, queue_id, "hold")
        assert qmgr.ask("hold", queue_id, who="root").count == 1, "held already: nothing to do, no error"
        assert qmgr.stop() == 0
    with running_qmgr(config) as qmgr:
        assert qmgr.ask("flush", queue_id).count == 0
        (entry,) = qmgr.ask("list").entries
        assert (entry.state, entry.reason, entry.attempts) == ("hold", "held by root", 1)
        assert qmgr.ask("release", queue_id, who="root").count == 1
        wait_for(lambda: settled(qmgr, queue_id, "deferred") and qmgr.ask("list").entries[0].attempts == 2)
        assert qmgr.ask("remove", queue_id, who="root").count == 1
        assert spool_is_empty(spool)
        assert qmgr.stop() == 0


def test_hold_and_release_say_which_they_could_not(tmp_path: Path, spool: Spool) -> None:
    """The others are done; what is not held is not released, and what is not there is neither."""
    waiting, held = (queued(spool, "b@elsewhere.org", received_at=now(), hold=hold) for hold in ("", "virus"))
    missing = "A" * 16
    with running_qmgr(a_config(tmp_path)) as qmgr:
        wait_for(lambda: settled(qmgr, waiting, "deferred"))
        answer = qmgr.ask("release", waiting, missing, held, who="root")
        assert answer.count == 1
        assert answer.not_done == (f"{waiting}: not held", f"{missing}: not in the queue")
        assert qmgr.ask("hold", missing).not_done == (f"{missing}: not in the queue",)
        assert qmgr.ask("hold").error == "hold takes ids"
        assert qmgr.stop() == 0


def test_a_rewritten_recipient_is_named_beside_the_first(tmp_path: Path, spool: Spool) -> None:
    """As Postfix: Delivered-To where it went, X-Original-To what the client said."""
    to = (Recipient(address="a@test.local", original="info@test.local"), Recipient(address="b@test.local"))
    queued(spool, received_at=now(), recipients=to)
    with running_qmgr(a_config(tmp_path)) as qmgr:
        wait_for(lambda: spool_is_empty(spool))
        assert qmgr.stop() == 0
    (rewritten,), (plain,) = mails(tmp_path), mails(tmp_path, "b")
    assert b"\nX-Original-To: info@test.local\nDelivered-To: a@test.local\n" in rewritten
    assert b"X-Original-To" not in plain


def test_a_message_whose_state_says_all_is_done_is_removed(tmp_path: Path, spool: Spool) -> None:
    """FORMAT.md, "Leftovers": cut between line and removal."""
    queue_id = queued(spool, received_at=now())
    done = Attempt(at=now(), outcomes=(Outcome(0, "delivered", "2.0.0", "ok"),))
    state.append(f"{spool.new}/{queue_id}", done, state.State())
    with running_qmgr(a_config(tmp_path)) as qmgr:
        wait_for(lambda: spool_is_empty(spool))
        assert qmgr.stop() == 0
    assert mails(tmp_path) == []


def test_a_damaged_file_goes_to_bad(tmp_path: Path, spool: Spool) -> None:
    """Never deleted, never delivered, and the others go on."""
    queue_id = queued(spool, received_at=now())
    path = Path(spool.new) / queue_id
    path.write_bytes(path.read_bytes()[:-1])
    queued(spool, received_at=now())
    with running_qmgr(a_config(tmp_path)) as qmgr:
        wait_for(lambda: spool_is_empty(spool) and mails(tmp_path))
        assert qmgr.stop() == 0
    assert [p.name for p in (tmp_path / "spool/bad").iterdir()] == [queue_id]
    assert len(mails(tmp_path)) == 1


def test_a_second_qmgr_on_the_spool_refuses(tmp_path: Path, spool: Spool) -> None:
    """One flock: two would deliver everything twice."""
    with running_qmgr(a_config(tmp_path)) as first:
        channel.receive(first.master, Ready)
        (tmp_path / "q.sock").rename(tmp_path / "first.sock")
        with running_qmgr(a_config(tmp_path)) as second:
            assert second.ended() == Exit.IN_USE
        assert first.stop() == 0


def test_it_ends_when_master_is_gone(tmp_path: Path, spool: Spool) -> None:
    """End of file on the channel."""
    with running_qmgr(a_config(tmp_path)) as qmgr:
        channel.receive(qmgr.master, Ready)
        qmgr.master.close()
        assert qmgr.ended() == 0


def test_the_heartbeat_comes_from_the_loop_with_its_counters(tmp_path: Path, spool: Spool) -> None:
    """For `forkd status`."""
    queued(spool, "a@test.local", "b@discard.local", "c@elsewhere.org", received_at=now())
    with running_qmgr(a_config(tmp_path)) as qmgr:
        qmgr.master.settimeout(10)

        def counted() -> bool:
            beat = channel.receive(qmgr.master, Ready | Heartbeat)
            return (
                isinstance(beat, Heartbeat)
                and beat.counters["delivered"] == 2
                and beat.counters["deferred"] == 1
            )

        wait_for(counted)
        assert qmgr.stop() == 0


def test_lists_are_paged_and_bounded(tmp_path: Path, spool: Spool) -> None:
    """A record stays below MAX_RECORD_BYTES however long the addresses; pages cover the queue once."""
    long = [f"{'x' * 200}{i}@{'y' * 60}.org" for i in range(30)]
    ids = [queued(spool, *long, received_at=now()) for _ in range(60)]
    with running_qmgr(a_config(tmp_path)) as qmgr:
        wait_for(lambda: all(e.attempts for e in qmgr.ask("list", limit=1).entries))
        seen: list[str] = []
        more = True
        while more:
            answer = qmgr.ask("list", after=seen[-1] if seen else "", limit=1000)
            assert answer.count == 60
            seen += [entry.id for entry in answer.entries]
            more = answer.more
        assert seen == ids
        assert qmgr.ask("show", ids[0]).entries[0].more_recipients == 20
        assert qmgr.stop() == 0


@pytest.mark.parametrize(
    ("act", "ids"), [("dance", ()), ("show", ("../x",)), ("remove", ()), ("show", ("A" * 16,))]
)
def test_what_is_not_in_the_table_is_refused(
    tmp_path: Path, spool: Spool, act: str, ids: tuple[str, ...]
) -> None:
    """With a sentence, and the connection stays."""
    with running_qmgr(a_config(tmp_path)) as qmgr:
        assert qmgr.ask(act, *ids).error
        assert qmgr.stop() == 0


def test_a_client_that_sends_rubbish_is_dropped_and_no_other(tmp_path: Path, spool: Spool) -> None:
    """PROTOCOL.md: what it does not have ends the connection."""
    import socket

    with running_qmgr(a_config(tmp_path)) as qmgr:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(10)
            client.connect(str(qmgr.path))
            client.send(b"rubbish")
            assert client.recv(100) == b""
        assert qmgr.ask("list").count == 0
        assert qmgr.stop() == 0


def test_a_thousand_messages_each_arrive_once(tmp_path: Path, spool: Spool) -> None:
    """Batches, lanes and the walk together: nobody's mail twice, none lost."""
    with running_qmgr(a_config(tmp_path, scan_interval=schema.Seconds(0.05), durability="none")) as qmgr:
        channel.receive(qmgr.master, Ready)
        fast = Spool(tmp_path / "spool", "w0", durable=False)
        for number in range(1000):
            message = f"Subject: {number}\r\n\r\n".encode()
            queue_id = queued(fast, f"u{number % 7}@test.local", message=message, received_at=now())
            if number % 3:
                qmgr.poke(fast, queue_id)
        wait_for(lambda: spool_is_empty(spool), timeout_s=30)
        assert qmgr.stop() == 0
    subjects = [
        mail.split(b"Subject: ")[1].split(b"\n")[0] for n in range(7) for mail in mails(tmp_path, f"u{n}")
    ]
    assert sorted(map(int, subjects)) == list(range(1000))
