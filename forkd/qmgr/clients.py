"""Who asks qmgr for something? Admin, about the queue; workers, whose clients wait for the next hop."""

from __future__ import annotations

import collections
import functools
import select
import socket
import time
from collections.abc import Callable, Mapping

from forkd import log
from forkd.qmgr import proxying
from forkd.qmgr.lanes import Pass
from forkd.qmgr.manager import Manager
from forkd.qmgr.requests_desk import Desk
from forkd.rpc import channel
from forkd.rpc.messages import Deliver, Delivered, QueueAnswer, QueueRequest
from forkd.smtp import replies
from forkd.smtp.reply import Reply

MOST_WAITED = 256
"""Clients of one worker that wait for a next hop: half of what one transport has places for."""


class Clients:
    """Their connections, on the loop's thread and in its poll.

    sockets  by name: `qmgr` is admin's, `proxy` the workers'
    """

    def __init__(
        self, manager: Manager, desk: Desk, poll: select.epoll, sockets: Mapping[str, socket.socket]
    ) -> None:
        self._manager = manager
        self._desk = desk
        self._poll = poll
        self.draining = False
        """Qmgr stops: nothing new is delivered."""
        self._listeners = {
            sock.fileno(): (sock, serve)
            for name, serve in (("qmgr", self._asked), ("proxy", self._told_to_deliver))
            if (sock := sockets.get(name)) is not None
        }
        self._clients: dict[int, tuple[socket.socket, Callable[[int], None]]] = {}
        self._waited: collections.Counter[socket.socket] = collections.Counter()
        """Of each worker's connection: clients that wait."""
        for fd, (listener, _) in self._listeners.items():
            listener.setblocking(False)
            self._poll.register(fd, select.EPOLLIN)

    def listen(self) -> None:
        """Accept again, where there was no descriptor for it."""
        for fd in self._listeners:
            self._poll.modify(fd, select.EPOLLIN)

    def ready(self, fd: int) -> None:
        """Somebody has come, or says something; others' descriptors are passed over."""
        if fd in self._listeners:
            self._accept(*self._listeners[fd])
        elif fd in self._clients:
            self._clients[fd][1](fd)

    def take_back(self) -> None:
        """Answer admin what has been found out."""
        self._desk.take_back()

    def _accept(self, listener: socket.socket, serve: Callable[[int], None]) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return  # gone again
        except OSError as error:
            # No descriptors, say. It would be ready again at once: not before the next beat.
            self._poll.modify(listener.fileno(), 0)
            log.queue_event(act="refused", detail=f"a connection: {error.strerror}", level="error")
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client, serve
        self._poll.register(client.fileno(), select.EPOLLIN)

    def _hang_up(self, fd: int) -> None:
        self._poll.unregister(fd)
        client, _ = self._clients.pop(fd)
        self._waited.pop(client, None)
        client.close()

    def _asked(self, fd: int) -> None:
        """By admin."""
        client, _ = self._clients[fd]
        asked: list[QueueRequest]
        try:
            asked, ended = channel.drain(client, QueueRequest, at_most=16)
        except channel.BadRecord as error:
            log.queue_event(act="bad_request", detail=str(error), level="warning")
            asked, ended = [], True
        for request in asked:
            self._desk.ask(request, functools.partial(self._tell_admin, client), time.time())
        if ended and fd in self._clients:
            self._hang_up(fd)

    def _tell_admin(self, client: socket.socket, answer: QueueAnswer) -> None:
        # Who does not read its answers is not worth waiting for; who has gone has no descriptor any more.
        if not channel.try_send(client, answer) and client.fileno() in self._clients:
            self._hang_up(client.fileno())

    def _told_to_deliver(self, fd: int) -> None:
        """By a worker, whose client waits."""
        client, _ = self._clients[fd]
        asked: list[Deliver]
        try:
            asked, ended = channel.drain(client, Deliver)
        except channel.BadRecord as error:
            log.queue_event(act="bad_request", detail=str(error), level="warning")
            asked, ended = [], True
        if ended:
            self._hang_up(fd)  # and its clients are gone too
            return
        for request in asked:
            self._deliver_now(client, request)

    def _deliver_now(self, client: socket.socket, request: Deliver) -> None:
        def tell(attempt: Pass) -> None:
            if client in self._waited:
                self._waited[client] -= 1
            results = [result for _, result in attempt.results]
            if why := attempt.damage or attempt.dropped:
                log.queue_event(act="not_delivered", id=attempt.message.id, detail=why, level="warning")
            _answer(client, request, proxying.reply(results, attempt.wanted))

        # While draining, lanes answer with nothing; workers have ended before, unless somebody killed us.
        refused = "stopping" if self.draining else ""
        if self._waited[client] >= MOST_WAITED:
            refused = "too many clients of this worker wait already"
        refused = refused or self._manager.deliver_now(request.slot, request.name, tell, time.time())
        if refused:
            log.queue_event(act="not_delivered", id=request.name[:20], detail=refused, level="warning")
            _answer(client, request, replies.NOT_TAKEN_NOW)
        else:
            self._waited[client] += 1


def _answer(client: socket.socket, request: Deliver, reply: Reply) -> None:
    """A worker that is gone, or does not read, has no client any more."""
    channel.try_send(
        client, Delivered(n=request.n, code=reply.code, enhanced=reply.enhanced or "", lines=reply.lines)
    )
