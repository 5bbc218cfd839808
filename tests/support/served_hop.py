"""A scripted next hop for tests whose client is a real daemon: it serves on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any

from tests.support.next_hop import Mail, NextHop, Step


class ServedHop:
    """As NextHop, but served while the context is open, whatever this thread does."""

    def __init__(self, *arguments: Any, **how: Any) -> None:
        self._made = arguments, how
        self._ready = threading.Event()
        self._over: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run)
        self.hop: NextHop | None = None

    def __enter__(self) -> ServedHop:
        self._thread.start()
        self._ready.wait()
        assert self.hop is not None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        arguments, how = self._made
        async with NextHop(*arguments, **how) as self.hop:
            self._ready.set()
            await self._over.wait()

    @property
    def port(self) -> int:
        assert self.hop is not None
        return self.hop.port

    @property
    def mails(self) -> list[Mail]:
        assert self.hop is not None
        return self.hop.mails

    @property
    def peers(self) -> set[str]:
        """Who came with mail."""
        assert self.hop is not None
        return {dialogue.peer for dialogue in self.hop.dialogues if dialogue.mails}

    def say(self, number: int, step: Step) -> None:
        """Out of turn, on that connection (NextHop.say)."""
        assert self.hop is not None and self._loop is not None
        asyncio.run_coroutine_threadsafe(self.hop.say(number, step), self._loop).result(30)
