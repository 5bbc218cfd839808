"""Whom does admin ask, and what when they do not answer? Master over its channel, qmgr over its socket;
workers are asked over a socket of admin's (workers.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from forkd.rpc.channel import RequestClient, Unavailable
from forkd.rpc.message import Message
from forkd.rpc.messages import Done, QueueAnswer
from forkd.rpc.messages_reload import Reloaded
from forkd.rpc.messages_status import AskStatus, ProcessStatus, Status

MASTER_TIMEOUT_S = 5.0
RELOAD_TIMEOUT_S = 900.0
"""qmgr ends its deliveries, and looks through the queue before it is ready; plugins load."""
QMGR_TIMEOUT_S = 30.0
"""A list of a long queue, or a flush, while the disk is busy."""

T = TypeVar("T")


class Refused(Exception):  # noqa: N818 - a state of the world
    """The request cannot be answered; the text is for the admin who asked."""


class Away(Refused):
    """Who should answer is not there; what can be known without it may be looked up elsewhere."""


class Master:
    """Numbered requests over the role's own channel; answer() is called with what came back."""

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self._send = send
        self._n = 0
        self._waiting: dict[int, asyncio.Future[Status | Done | Reloaded]] = {}
        self._looking: asyncio.Task[Status] | None = None

    async def ask(
        self, make: Callable[[int], Message], timeout_s: float = MASTER_TIMEOUT_S
    ) -> Status | Done | Reloaded:
        """The answer to `make(n)`. Raises Refused when master does not give one, or gives an error."""
        self._n += 1
        n = self._n
        future: asyncio.Future[Status | Done | Reloaded] = asyncio.get_running_loop().create_future()
        self._waiting[n] = future
        try:
            if not self._send(make(n)):
                raise Refused("master does not read its channel")
            answer = await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise Refused(f"master did not answer within {timeout_s:g} s") from None
        finally:
            del self._waiting[n]
        if isinstance(answer, Done | Reloaded) and answer.error:
            raise Refused(answer.error)
        return answer

    async def status(self) -> Status:
        """What there is. Raises Refused."""
        answer = await self.ask(lambda n: AskStatus(n=n))
        assert isinstance(answer, Status)
        return answer

    async def glance(self) -> Status:
        """The same, as all are told who ask while one question is under way: over HTTP everybody may make us
        ask, as often as he likes. Raises Refused."""
        if self._looking is None:
            self._looking = asyncio.create_task(self.status())
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def _looked(self, task: asyncio.Task[Status]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left who does

    async def processes(self) -> tuple[ProcessStatus, ...]:
        """Which processes there are. Raises Refused."""
        return (await self.status()).processes

    def answer(self, message: Message) -> None:
        """What master said; an answer that nobody waits for any more is dropped."""
        if isinstance(message, Status | Done | Reloaded):
            future = self._waiting.get(message.n)
            if future is not None and not future.done():
                future.set_result(message)


class Qmgr:
    """qmgr, over RequestClient."""

    def __init__(self, client: RequestClient) -> None:
        self._client = client

    async def ask(self, make: Callable[[int], Message]) -> QueueAnswer:
        """The answer to `make(n)`. Raises Refused."""
        try:
            answer: QueueAnswer = await self._client.request(make, timeout_s=QMGR_TIMEOUT_S)
        except Unavailable:
            raise Away("qmgr does not answer; the log tells whether it is being restarted") from None
        if answer.error:
            raise Refused(answer.error)
        return answer
