"""How admin asks workers (admin/workers.py): honest ones, those that lie, hang, die, and who is none."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from forkd.admin import requests
from forkd.admin import workers as module
from forkd.admin.access import Access
from forkd.admin.rows import Context, Others
from forkd.admin.workers import Workers
from forkd.rpc import channel
from forkd.rpc.messages_sessions import Kicked, SessionEntry, SessionFilter, Sessions, ToWorker
from forkd.rpc.messages_status import ProcessStatus

Answer = Callable[[socket.socket, ToWorker], None]


def entry(at: int) -> SessionEntry:
    return SessionEntry(
        id=f"{at:016}W0", client="192.0.2.1", port=25, listener="mx", state="idle", age_s=at, idle_s=0
    )


def process(pid: int, slot: int = 0, state: str = "running") -> ProcessStatus:
    return ProcessStatus(role="worker", slot=slot, pid=pid, state=state, started_at=1.0, restarts=0)


@asynccontextmanager
async def asked(folder: Path, answer: Answer, *processes: ProcessStatus) -> AsyncIterator[Workers]:
    """Workers, with one that answers so; it is this process, as the kernel will say."""
    loop = asyncio.get_running_loop()
    path = str(folder / "workers.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    listener.bind(path)
    listener.listen()

    async def listing():
        return processes or (process(os.getpid()),)

    workers = Workers(listener, listing)
    running = loop.create_task(workers.run())
    worker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker.connect(path)
    worker.setblocking(False)

    def readable() -> None:
        requests, ended = channel.drain(worker, ToWorker)
        if ended:
            loop.remove_reader(worker.fileno())
        for request in requests:
            answer(worker, request)

    loop.add_reader(worker.fileno(), readable)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield workers
    finally:
        running.cancel()
        workers.close()
        loop.remove_reader(worker.fileno())
        worker.close()
        listener.close()


def ask(folder: Path, answer: Answer, *processes: ProcessStatus, limit: int = 100):
    async def run():
        async with asked(folder, answer, *processes) as workers:
            return await workers.sessions(SessionFilter(), "age", limit)

    return asyncio.run(run())


def test_an_answer_may_have_many_records(tmp_path: Path):
    """They belong together by their number, until one says that it is the last."""

    def answer(worker: socket.socket, request: ToWorker) -> None:
        for at in range(3):
            channel.send(worker, Sessions(n=request.n, entries=(entry(at),), fit=3, total=5, more=at < 2))

    found = ask(tmp_path, answer)
    assert ([each.age_s for _, each in found.entries], found.fit, found.total) == ([0, 1, 2], 3, 5)
    assert not found.silent


def _endless(worker: socket.socket, request: ToWorker) -> None:
    """A text longer than its type allows."""
    record = channel.encode(Sessions(n=request.n, entries=(entry(1),)))
    worker.send(record.replace(b"\xa9192.0.2.1", b"\xda\x02\x00" + b"x" * 512))


LIES: dict[str, Answer] = {
    "no record of ours": lambda worker, _: worker.send(b"\xc1") and None,
    "another answer": lambda worker, request: channel.send(worker, Kicked(n=request.n, ids=())),
    "too many": lambda worker, request: channel.send(
        worker, Sessions(n=request.n, entries=tuple(map(entry, range(100))))
    ),
    "a text without end": _endless,
    "pages with nothing": lambda worker, request: channel.send(worker, Sessions(n=request.n, more=True)),
    "another's session": lambda worker, request: channel.send(
        worker, Sessions(n=request.n, entries=(msgspec.structs.replace(entry(1), id=f"{1:016}W10"),))
    ),
    "what nobody asked": lambda worker, request: [
        channel.send(worker, Sessions(n=1 << 40)) for _ in range(12)
    ] and None,
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_lies_is_not_asked_again(tmp_path: Path, lie: str):
    """And only its own sessions are missing; who is named."""

    async def run():
        async with asked(tmp_path, LIES[lie]) as workers:
            return [await workers.sessions(SessionFilter(), "age", 10) for _ in range(2)]

    for found in asyncio.run(run()):
        assert (found.entries, found.total) == ([], 0)
        assert [each.pid for each in found.silent] == [os.getpid()]
        assert "out of protocol" in found.silent[0].why


def test_a_worker_that_hangs_costs_its_own_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Within a deadline; one that talks slowly is no better."""
    monkeypatch.setattr(module, "ANSWER_S", 0.2)

    def slowly(worker: socket.socket, request: ToWorker) -> None:
        channel.try_send(worker, Sessions(n=request.n, entries=(entry(1),), more=True))
        asyncio.get_running_loop().call_later(0.01, slowly, worker, request)

    for answer in (lambda _worker, _request: None, slowly):
        (tmp_path / "workers.sock").unlink(missing_ok=True)
        (silent,) = ask(tmp_path, answer).silent
        assert silent.why == "no answer within 0.2 s"


def test_a_worker_that_dies_is_named(tmp_path: Path):
    """At once: the end of its connection is its end."""
    (silent,) = ask(tmp_path, lambda worker, _: worker.shutdown(socket.SHUT_RDWR)).silent
    assert silent.why == "it ended"


def test_who_is_no_worker_of_masters_is_not_asked(tmp_path: Path):
    """Identity by channel: whoever may connect is one only if master has that process as one."""
    heard: list[ToWorker] = []
    found = ask(tmp_path, lambda _, request: heard.append(request), process(os.getppid(), slot=3))
    assert not heard
    assert [(each.slot, each.why) for each in found.silent] == [(3, "it is not connected yet")]


def test_a_late_answer_is_none_to_the_next_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It was owed, so it is no lie; a worker that was held up once is asked again."""
    late: list[ToWorker] = []

    def answer(worker: socket.socket, request: ToWorker) -> None:
        late.append(request)
        for each in late if len(late) > 1 else ():
            at = each.n
            channel.send(worker, Sessions(n=each.n, entries=(entry(at),), fit=1, total=1))

    async def run():
        async with asked(tmp_path, answer) as workers:
            monkeypatch.setattr(module, "ANSWER_S", 0.05)
            first = await workers.sessions(SessionFilter(), "age", 10)
            monkeypatch.setattr(module, "ANSWER_S", 20)
            return first, await workers.sessions(SessionFilter(), "age", 10)

    first, second = asyncio.run(run())
    assert [each.why for each in first.silent] == ["no answer within 0.05 s"]
    assert ([each.id for _, each in second.entries], second.silent) == ([entry(late[1].n).id], [])


def test_a_worker_is_believed_of_its_own_sessions_alone(tmp_path: Path):
    """It is not even told of others', and cannot say that they ended; whose worker is silent is known."""
    ours, strange, silent = entry(1).id, f"{2:016}W10", f"{3:016}W3"
    asked_for: list[ToWorker] = []

    def answer(worker: socket.socket, request: ToWorker) -> None:
        asked_for.append(request)
        channel.send(worker, Kicked(n=request.n, ids=(ours, strange, silent)))

    async def run():
        async with asked(tmp_path, answer, process(os.getpid()), process(os.getppid(), slot=3)) as workers:
            done, missing = await workers.kick([ours, strange, silent])
            others = Others(master=None, qmgr=None, prober=None, workers=workers)
            context = Context(who="test", uid=0, access=Access.ADMIN, others=others)
            line = json.dumps({"request": "kick", "ids": [ours, strange, silent]}).encode()
            return done, missing, json.loads(await requests.answer(line, context))["result"]

    done, missing, result = asyncio.run(run())
    assert (done, [each.slot for each in missing]) == ({ours}, [3])
    assert asked_for[0].ids == (ours,)
    assert (result["kicked"], result["not_there"], result["unknown"]) == ([ours], [strange], [silent])


def test_a_kick_ends_what_was_asked_for_alone(tmp_path: Path):
    """A worker that claims more than that is not believed."""
    ours, strange = entry(1).id, entry(2).id

    async def run():
        def answer(worker: socket.socket, request: ToWorker) -> None:
            channel.send(worker, Kicked(n=request.n, ids=(ours, strange)))

        async with asked(tmp_path, answer) as workers:
            return await workers.kick([ours])

    assert asyncio.run(run()) == ({ours}, [])
