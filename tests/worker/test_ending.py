"""How sessions end whose clients did not end them: what each is told, and what of its mail (ending.py)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from forkd.sdk import Plugin
from forkd.smtp import replies
from forkd.worker import ending
from tests.support.fake_host import FakePlugin
from tests.support.working import Gate, GatedHop, SlowDisk, SlowHost, run, working

STOPPING = b"421 4.3.2 Service is stopping"
ASKED = (FakePlugin("p", ("message",)),)


def test_whoever_is_left_when_the_time_is_over_is_told(tmp_path: Path):
    """421 in the middle of a transaction, of the data, of a chunk, of a hook; nothing of it is kept."""

    async def test() -> None:
        gate = Gate()
        host = SlowHost({"p": Plugin(message=lambda *_: None)}, ASKED, gate=gate)
        async with working(tmp_path, plugins=ASKED, host=host) as worker:
            mailing, sending, chunking, asking = [await worker.client() for _ in range(4)]
            assert (await mailing.say("EHLO a", "MAIL FROM:<>")).startswith(b"250")
            await sending.to_data()
            sending.writer.write(b"Subject: x\r\n\r\nhel")
            assert (await chunking.say("EHLO a", "MAIL FROM:<>", "RCPT TO:<b@test.local>")).startswith(b"250")
            chunking.writer.write(b"BDAT 100\r\nSubject")
            await asking.send_mail()
            await gate.reached.wait()
            stopping = asyncio.create_task(ending.end_all(worker.services))
            for client in (mailing, sending, chunking, asking):
                assert (await client.hear()).startswith(STOPPING)
                assert await client.rest() == b""
            gate.open.set()
            await stopping
            assert worker.kept == []

    run(test())


def test_mail_that_is_being_committed_is_told_of_before(tmp_path: Path):
    """However late the disk is: after a 421 its client would send it again."""

    async def test() -> None:
        disk = SlowDisk()
        async with working(tmp_path, fs=disk) as worker:
            client = await worker.client()
            await client.send_mail()
            while not worker.session.committing:
                await asyncio.sleep(0)
            threading.Timer(2 * ending.LAST_S, disk.open.set).start()
            stopping = asyncio.create_task(ending.end_all(worker.services))
            assert (await client.hear()).startswith(b"250 2.0.0")
            assert (await client.hear()).startswith(STOPPING)
            await stopping
            assert len(worker.kept) == 1

    run(test())


@pytest.mark.parametrize("in_time", [True, False])
def test_the_next_hop_has_a_moment_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_time: bool
):
    """Its answer first; without it 421, for it may not have the message."""
    monkeypatch.setattr(ending, "NEXT_HOP_S", 60.0 if in_time else 0.05)

    async def test() -> None:
        hop = GatedHop(replies.queued("X"))
        async with working(tmp_path, next_hop=hop) as worker:
            client = await worker.client()
            await client.send_mail()
            await hop.gate.reached.wait()
            ending.kick(worker.session)
            if in_time:
                hop.gate.open.set()
                assert (await client.hear()).startswith(b"250 2.0.0")
            assert (await client.rest()).startswith(b"421 4.3.2 Connection closed")

    run(test())
