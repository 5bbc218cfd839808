"""What does the broker hold of one sandbox? Its channel: one request in flight, one answer, and what ends it.

Everything on it is hostile. A breach (no JSON, too large, a second request before the answer, descriptors,
a flood of requests that are refused) closes this channel and is logged; the plugin sees Unavailable from
then on. A sandbox that does not read its answers fills its own socket, and then its channel is closed:
nobody waits for it, and nothing is kept for it here.
"""

from __future__ import annotations

import array
import asyncio
import socket
from collections.abc import Callable
from typing import Any

from forkd import log
from forkd.broker.protocol import MAX_RECORD_BYTES, Answer, BreachError, Refused, decode, encode
from forkd.broker.serving import Caller, FloodError, Reply, Service

_MSG_DONTWAIT, _MSG_NOSIGNAL = int(socket.MSG_DONTWAIT), int(socket.MSG_NOSIGNAL)
_MSG_TRUNC, _MSG_CTRUNC = int(socket.MSG_TRUNC), int(socket.MSG_CTRUNC)


class Channel:
    """Open until close(); on_close is called once, however it ends.

    settle  called before each request is looked at: takes what the worker has said until now, so that the
            request is the session's that asks it. Two sockets have no order between them. None: it never
            says that another one begins (limits.reuse = 1).
    """

    __slots__ = ("_caller", "_loop", "_on_close", "_service", "_settle", "_socket", "_task")

    def __init__(
        self,
        service: Service,
        caller: Caller,
        end: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_close: Callable[[], None],
        *,
        settle: Callable[[], None] | None = None,
    ) -> None:
        self._service = service
        self._caller = caller
        self._socket = end
        self._loop = loop
        self._on_close: Callable[[], None] | None = on_close
        self._settle = settle
        self._task: asyncio.Task[None] | None = None
        loop.add_reader(end.fileno(), self._readable)

    def begin(self, caller: Caller) -> None:
        """The sandbox serves another session from now on."""
        self._caller = caller

    def close(self) -> None:
        """Let go of the sandbox; an answer under way is dropped. Idempotent."""
        on_close, self._on_close = self._on_close, None
        if on_close is None:
            return
        if self._task is not None:
            self._task.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        on_close()

    def _readable(self) -> None:
        try:
            # No room for descriptors: those that are sent are dropped by the kernel, which says so.
            record, _, flags, _ = self._socket.recvmsg(MAX_RECORD_BYTES + 1, 0, _MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not record and not flags & _MSG_CTRUNC:
            self.close()  # it is dead; an empty record means the same to us
            return
        if self._settle is not None:
            self._settle()
            if self._on_close is None:
                return  # its worker was not to be believed
        try:
            if flags & _MSG_CTRUNC:
                raise BreachError("a record with descriptors")
            if flags & _MSG_TRUNC:
                raise BreachError(f"a record of more than {MAX_RECORD_BYTES} octets")
            if self._task is not None:
                raise BreachError("a request before the answer to another")
            answer = self._service.answer(self._caller, decode(record))
        except (BreachError, FloodError) as error:
            self._breach(str(error))
            return
        if asyncio.iscoroutine(answer):
            self._task = self._loop.create_task(self._later(self._caller, answer))
        else:
            self._send(answer)

    async def _later(self, caller: Caller, coming: Any) -> None:
        made: socket.socket | None = None
        try:
            reply: Reply = await coming
            answer, made = reply
            self._task = None
            if caller is self._caller:
                self._send(answer, made)
            else:
                # Asked in a session that is over. The next one drops the answer by its number, but must get
                # neither a socket nor what the other one asked for.
                self._send(Refused(answer.n, "unavailable", "asked in an earlier session"))
        except FloodError as error:
            self._task = None
            self._breach(str(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the boundary of a request: our fault, told once, and the others go on
            self._task = None
            log.bug(where="broker", error=error, session=caller.session)
            self.close()
        finally:
            if made is not None:
                made.close()

    def _send(self, answer: Answer, passed: socket.socket | None = None) -> None:
        if self._on_close is None:
            return
        record = encode(answer)
        try:
            if len(record) > MAX_RECORD_BYTES:
                record = encode(Refused(answer.n, "unavailable", "the answer is too large"))
            if passed is None:
                self._socket.send(record, _MSG_DONTWAIT | _MSG_NOSIGNAL)
            else:
                rights = array.array("i", [passed.fileno()])
                self._socket.sendmsg(
                    [record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], _MSG_DONTWAIT | _MSG_NOSIGNAL
                )
        except BlockingIOError:
            self._breach("it does not read its answers")
        except OSError:
            self.close()

    def _breach(self, why: str) -> None:
        if self._on_close is not None:
            caller = self._caller
            self._service.counters[f"plugin.{caller.plugin}.breach"] += 1
            log.broker_breach(plugin=caller.plugin, session=caller.session, detail=why)
            self.close()
