"""Next hops that stall, drip, talk before their turn, and messages that end before their end."""

from __future__ import annotations

import asyncio
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.queue.format import Damaged
from forkd.smtp.client_phases import Phase
from tests.support.next_hop import DROP, EHLO, STALL, NextHop, Step, keywords
from tests.support.relaying import a_delivery, a_store, a_way, delivered, on_loop

BDAT = keywords("PIPELINING", "CHUNKING", "8BITMIME")
BIG = b"Subject: big\r\n\r\n" + (b"x" * 76 + b"\r\n") * 100_000
SHORT = 0.2


@pytest.fixture
def socket_path() -> Iterator[str]:
    """Short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="lmtp-", dir="/var/tmp") as folder:
        yield f"{folder}/lmtp"


@pytest.mark.parametrize(
    ("moment", "phase"),
    [
        ("GREETING", Phase.GREETING),
        ("EHLO", Phase.HELLO),
        ("MAIL", Phase.MAIL),
        ("RCPT", Phase.RCPT),
        ("DATA", Phase.DATA),
        (".", Phase.END),
    ],
)
def test_a_server_that_stalls_is_left(tmp_path: Path, moment: str, phase: Phase) -> None:
    """Each wait ends, and says what was waited for."""

    async def main() -> None:
        # Without pipelining each command waits for itself.
        script: dict[str, list[Step]] = {"EHLO": [keywords("SIZE")], moment: [STALL]}
        async with NextHop(script) as slow:
            way = a_way(slow, waits={phase: SHORT})
            told = await delivered(way, a_delivery(tmp_path, "a@next.test"))
            assert f"no answer to {phase.value} within {SHORT:g} s" in told.one.text
            assert ("twice" in told.one.text) == (moment == ".")
            assert (told.one.status, told.one.enhanced) == ("deferred", "4.4.2")
            # Over one message it may be that message's doing.
            assert told.one.away == (moment in ("GREETING", "EHLO"))
            assert slow.mails == []
            await way.close()

    on_loop(main())


def test_a_server_that_does_not_read_is_left(tmp_path: Path) -> None:
    """The wait for room to write ends too; until then no more is held than a few pieces."""

    async def main() -> None:
        message = b"Subject: big\r\n\r\n" + (b"x" * 1022 + b"\r\n") * (25 << 10)
        delivery = a_delivery(tmp_path, "a@next.test", message=message)
        async with NextHop(deaf=True) as slow:
            way = a_way(slow, waits={Phase.BODY: SHORT})
            tracemalloc.start()
            try:
                told = await delivered(way, delivery)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 8 << 20
            assert told.one.text == f"it did not read on within {SHORT:g} s (body)"
            assert told.one.status == "deferred"
            await way.close()

    on_loop(main())


@pytest.mark.slow
def test_replies_that_come_one_by_one_have_each_their_time(tmp_path: Path) -> None:
    """Many recipients are not too many for one wait."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, *(f"u{n}@next.test" for n in range(20)))
        async with NextHop(pause_s=0.2) as server:
            way = a_way(server, waits=dict.fromkeys(Phase, 3.0))
            told = await delivered(way, delivery)
            assert told.statuses == ["delivered"] * 20
            await way.close()

    on_loop(main())


@pytest.mark.parametrize("ehlo", [EHLO, BDAT], ids=["data", "bdat"])
@pytest.mark.parametrize("spoilt", ["changed", "shorter", "gone"])
def test_a_damaged_message_is_never_complete(tmp_path: Path, ehlo: Step, spoilt: str) -> None:
    """Its file turns out wrong while it goes out: the connection ends before the message does."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@next.test", "b@next.test", message=BIG)
        path = Path(delivery.message.path)
        if spoilt == "changed":
            with path.open("r+b") as file:
                file.seek(5_000_000)
                file.write(b"y")
        elif spoilt == "shorter":
            with path.open("r+b") as file:
                file.truncate(5_000_000)
        else:
            path.unlink()
        async with NextHop({"EHLO": [ehlo]}, keep=False) as server, NextHop() as other:
            way = a_way(server, other)
            result = await way.deliver(delivery)
            if spoilt == "gone":
                assert not isinstance(result, Damaged)
                assert [(one.status, one.away) for one in result] == [("deferred", False)] * 2
            else:
                assert isinstance(result, Damaged)
            await way.close()
            await server.all_over()
            assert server.mails == other.mails == []
            assert other.dialogues == []

    on_loop(main())


def test_a_cancelled_delivery_is_never_complete(tmp_path: Path) -> None:
    """qmgr stops: the connection ends, the message with it."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@next.test", message=BIG)
        async with NextHop({"BODY": [STALL]}) as server:
            way = a_way(server)
            task = asyncio.create_task(delivered(way, delivery))
            await server.until(lambda: server.dialogues and server.dialogues[0].octets)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await way.close()
            await server.all_over()
            assert server.mails == []

    on_loop(main())


def test_a_cancelled_delivery_tells_who_has_it(tmp_path: Path) -> None:
    """qmgr stops between two transactions: the recipients of the first do not get it again."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@next.test", "b@next.test", "c@next.test")
        script: dict[str, list[Step]] = {
            "EHLO": [keywords("PIPELINING", "LIMITS RCPTMAX=1")],
            "RCPT": [b"250 ok", b"550 5.1.1 no", b"250 ok"],
            ".": [b"250 taken", STALL],
        }
        async with NextHop(script) as server:
            way = a_way(server)
            task = asyncio.create_task(way.deliver(delivery))
            await server.until(lambda: server.dialogues and server.dialogues[0].verbs().count("DATA") == 3)
            task.cancel()
            told = await task
            assert not isinstance(told, Damaged)
            said = [(one.target.address, one.status) for one in told]
            assert said == [("a@next.test", "delivered"), ("b@next.test", "failed")]
            await way.close()
            await server.all_over()

    on_loop(main())


def test_a_server_that_has_seen_enough(tmp_path: Path) -> None:
    """A refusal before the end of the message is its answer."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@next.test", message=BIG)
        script: dict[str, list[Step]] = {"BODY": [(b"552 5.3.4 enough", STALL)]}
        async with NextHop(script) as server, NextHop() as other:
            way = a_way(server, other)
            told = await delivered(way, delivery)
            assert (told.one.status, told.one.enhanced) == ("failed", "5.3.4")
            assert server.mails == other.mails == []
            await way.close()

    on_loop(main())


@pytest.mark.parametrize("ehlo", [EHLO, BDAT], ids=["data", "bdat"])
def test_a_large_message_takes_little_memory(tmp_path: Path, ehlo: Step) -> None:
    """25 MiB: a few pieces of it at a time, the server's side of the socket in this process included."""

    async def main() -> None:
        message = b"Subject: big\r\n\r\n" + (b"x" * 1022 + b"\r\n") * (25 << 10)
        delivery = a_delivery(tmp_path, "a@next.test", message=message)
        del message
        async with NextHop({"EHLO": [ehlo]}, keep=False) as server:
            way = a_way(server)
            tracemalloc.start()
            try:
                told = await delivered(way, delivery)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert told.one.status == "delivered"
            assert server.dialogues[0].octets > 25 << 20
            assert peak < 8 << 20
            await way.close()

    on_loop(main())


# --- LMTP ------------------------------------------------------------------------------------------------


def test_lmtp_answers_for_each_recipient(tmp_path: Path, socket_path: str) -> None:
    """RFC 2033 4.2; without DSN it is the last step: delivered, not relayed."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@s.test", "b@s.test", "c@s.test", "d@s.test")
        script: dict[str, list[Step]] = {
            "EHLO": [keywords("PIPELINING")],
            "RCPT": [b"250 ok", b"550 5.1.1 no", b"250 ok"],
            ".": [b"250 2.0.0 kept", b"452 4.2.2 full", b"552 5.2.2 over quota"],
        }
        async with NextHop(script, path=socket_path) as server:
            store = a_store(socket_path)
            told = await delivered(store, delivery)
            assert told.statuses == ["delivered", "failed", "deferred", "failed"]
            assert told.codes == ["2.0.0", "5.1.1", "4.2.2", "5.2.2"]
            assert not any(result.relayed or result.away for result in told.results)
            assert server.dialogues[0].verbs()[0] == "LHLO"
            await store.close()

    on_loop(main())


def test_lmtp_that_ends_between_two_replies(tmp_path: Path, socket_path: str) -> None:
    """Who has an answer has it; the others may have the mail or not."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@s.test", "b@s.test")
        async with NextHop({".": [b"250 kept", DROP]}, path=socket_path):
            store = a_store(socket_path)
            told = await delivered(store, delivery)
            assert told.statuses == ["delivered", "deferred"]
            assert "twice" in told.results[1].text
            await store.close()

    on_loop(main())


def test_a_store_that_is_not_there(tmp_path: Path, socket_path: str) -> None:
    """Deferred and away; the error names the socket."""

    async def main() -> None:
        told = await delivered(a_store(socket_path), a_delivery(tmp_path, "a@s.test"))
        assert told.one.text == f"no connection to {socket_path}: no such file or directory"
        assert (told.one.status, told.one.away) == ("deferred", True)

    on_loop(main())
