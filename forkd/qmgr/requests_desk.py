"""How does the loop answer admin without waiting for the disk? Requests under way, and their thread."""

from __future__ import annotations

import collections
import queue
import threading
from collections.abc import Callable
from typing import Any

from forkd import log
from forkd.qmgr.requests import Act, Queue, begin
from forkd.rpc.messages import QueueAnswer, QueueRequest

MOST = 64
"""Requests under way: twice as many clients as admin has. What is more is refused."""

Tell = Callable[[QueueAnswer], None]


class Desk:
    """All methods belong to the loop's thread; what acts yield is done on one thread, in turn.

    wake  called from that thread when take_back() has something to do; must not block
    """

    def __init__(self, queue_: Queue, wake: Callable[[], None]) -> None:
        self._queue = queue_
        self._wake = wake
        self._todo: queue.SimpleQueue[tuple[Act, Tell, int, Callable[[], Any]]] = queue.SimpleQueue()
        self._done: collections.deque[tuple[Act, Tell, int, Any, Exception | None]] = collections.deque()
        self._open = 0
        self._thread: threading.Thread | None = None

    def ask(self, request: QueueRequest, tell: Tell, now: float) -> None:
        """Begin with it; `tell` gets the answer, now or from take_back(). Never waits."""
        if self._open >= MOST:
            tell(QueueAnswer(n=request.n, error="too many requests are under way; ask again"))
            return
        act = begin(self._queue, request, now)
        if isinstance(act, QueueAnswer):
            tell(act)
            return
        self._open += 1
        self._go_on(act, tell, request.n, None, None)

    def take_back(self) -> None:
        """Go on with what the thread has done."""
        while self._done:
            self._go_on(*self._done.popleft())

    def _go_on(self, act: Act, tell: Tell, n: int, result: Any, error: Exception | None) -> None:
        try:
            work = act.throw(error) if error is not None else act.send(result)
        except StopIteration as end:
            answer: QueueAnswer = end.value
        except Exception as bug:  # the boundary of a request: an admin's question must not end the queue
            log.bug(where="queue request", error=bug)
            answer = QueueAnswer(n=n, error="internal error; the log says more")
        else:
            self._hand_over(act, tell, n, work)
            return
        self._open -= 1
        tell(answer)

    def _hand_over(self, act: Act, tell: Tell, n: int, work: Callable[[], Any]) -> None:
        self._todo.put((act, tell, n, work))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="requests", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            act, tell, n, work = self._todo.get()
            result, error = None, None
            try:
                result = work()
            except Exception as bug:  # raised again where the request is answered
                error = bug
            self._done.append((act, tell, n, result, error))
            self._wake()
