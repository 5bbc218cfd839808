"""How does a sandbox ask forkd's broker, and how does it see that it may not, or that nobody is there?

forkd/broker/PROTOCOL.md describes requests and answers; forkd.sdk.capabilities writes and reads them. What
goes wrong is raised here, for all of them.
"""

from __future__ import annotations

import _socket
import select
import sys
from json.decoder import JSONDecoder
from time import monotonic

from forkd.sdk.views import NotGranted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

BROKER_FD = 5
"""The sandbox's end of its channel to the broker (forkd.sandbox.wire has the same number)."""
MAX_RECORD_BYTES = 131_072
"""Of a request or an answer (forkd.broker.protocol has the same number)."""
WAIT_S = 4.0
"""For an answer, where forkd says nothing else: it says four fifths of limits.timeout."""

_AF_UNIX, _SOCK_SEQPACKET = 1, 5
_MSG_DONTWAIT, _MSG_NOSIGNAL, _MSG_CMSG_CLOEXEC = 0x40, 0x4000, 0x4000_0000
_FD_SPACE = 24
"""CMSG_SPACE of one descriptor."""
# JSONDecoder.decode() would do the same with two regular expressions around it.
_parse = JSONDecoder().scan_once  # type: ignore[attr-defined]


class CapabilityError(Exception):
    """A capability could not do what it was asked for; the classes below say why."""


class QuotaExceeded(CapabilityError):  # noqa: N818 - authors read it as a sentence
    """The plugin has asked for more than it may in this session, or in this second."""


class Unavailable(CapabilityError):  # noqa: N818
    """The broker is away or late, the store cannot be used, or a target refuses the connection."""


class StateError(CapabilityError):
    """The store will not do it: a value of the wrong type or too large, no room for a new key."""


class Channel:
    """The sandbox's channel to the broker: one request, one answer.

    granted  as the specification has it: dns and state (whether), connect (names of targets), wait_s
    """

    __slots__ = ("_buffer", "_buffers", "_lost", "_n", "_owed", "_poll", "_socket", "granted", "wait_s")

    def __init__(self, granted: dict[str, Any]) -> None:
        self.granted = granted
        self.wait_s: float = granted.get("wait_s", WAIT_S)
        self._socket: Any = None
        self._poll: Any = None
        # Made in the zygote: whoever asks for nothing never touches it, nobody touches more than he is sent.
        self._buffer = memoryview(bytearray(MAX_RECORD_BYTES))
        self._buffers = (self._buffer,)
        self._n = 0
        self._owed = False
        """An answer that came too late is still to come: one request at a time."""
        self._lost = False

    def ask(self, request: str) -> tuple[dict[str, Any], int]:
        """Send a request, all of it but its number, and wait for the answer: (answer, descriptor or -1).

        Raises NotGranted, QuotaExceeded, StateError as the broker answers; Unavailable, also when there is no
        answer in time.
        """
        until = monotonic() + self.wait_s
        if self._owed:
            _drop(self._receive(until)[1])
        self._n = n = self._n + 1
        try:
            record = f'{{"n":{n},{request}}}'.encode()
        except UnicodeEncodeError:
            raise StateError("text with a lone surrogate has no encoding") from None
        if len(record) > MAX_RECORD_BYTES:
            raise StateError(f"the request has {len(record)} octets, {MAX_RECORD_BYTES} are the most")
        self._send(record)
        self._owed = True
        answer, fd = self._receive(until)
        while answer["n"] != n:  # one that was late
            _drop(fd)
            self._owed = True
            answer, fd = self._receive(until)
        if "error" in answer:
            _drop(fd)
            raise _ERRORS.get(answer["error"], Unavailable)(answer.get("text", ""))
        return answer, fd

    def _send(self, record: bytes) -> None:
        if self._lost:
            raise Unavailable("there is no broker any more in this session")
        try:
            if self._socket is None:
                self._socket = _socket.socket(_AF_UNIX, _SOCK_SEQPACKET, 0, BROKER_FD)
                self._poll = select.poll()
                self._poll.register(BROKER_FD, select.POLLIN)
            self._socket.send(record, _MSG_DONTWAIT | _MSG_NOSIGNAL)
        except OSError as error:
            self._away(error)

    def _receive(self, until: float) -> tuple[dict[str, Any], int]:
        try:
            if not self._poll.poll(max(0.0, until - monotonic()) * 1000):
                raise Unavailable(f"the broker did not answer within {self.wait_s:g} s")
            size, passed, _, _ = self._socket.recvmsg_into(
                self._buffers, _FD_SPACE, _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            self._away(error)
        if not size:
            self._away(None)
        self._owed = False
        fd = int.from_bytes(passed[0][2][:4], _BYTEORDER) if passed else -1
        answer: dict[str, Any] = _parse(bytes(self._buffer[:size]).decode(), 0)[0]
        return answer, fd

    def _away(self, error: OSError | None) -> NoReturn:
        self._lost = True
        raise Unavailable(f"the broker is away{f': {error.strerror}' if error else ''}") from error


def _drop(fd: int) -> None:
    """Close a descriptor that nobody asked for any more."""
    if fd >= 0:
        _socket.close(fd)


_BYTEORDER = sys.byteorder
_ERRORS: dict[str, type[Exception]] = {
    "not_granted": NotGranted,
    "quota": QuotaExceeded,
    "unavailable": Unavailable,
    "state": StateError,
}
"""What a broker's refusal becomes."""


def unplugged() -> tuple[Channel, Unplugged]:
    """A channel without a broker, and what answers on it: for capabilities.warm()."""
    channel = Channel({})
    channel._socket = channel._poll = answers = Unplugged(channel)
    return channel, answers


class Unplugged:
    """In the place of a channel's socket and its poll object: what it `says` is every request's answer."""

    __slots__ = ("_channel", "says")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.says = b""

    def send(self, _record: bytes, _flags: int) -> None:
        pass

    def poll(self, _wait_ms: float) -> bool:
        return True

    def recvmsg_into(self, _buffers: Any, _space: int, _flags: int) -> tuple[int, list[Any], int, None]:
        answer = b'{"n":%d,%b}' % (self._channel._n, self.says)
        self._channel._buffer[: len(answer)] = answer
        return len(answer), [], 0, None
