"""What is answered over HTTP? A table of paths, which `/` lists; what is not in it is 404.

Requests are GET or HEAD, have no body, and each has a connection of its own (`Connection: close`): a scraper
comes every few seconds, and nothing of one request can be taken for another's. A client has DEADLINE_S to
ask and as long to take its answer, then it is cut; when all places are taken and another one comes, who has
kept us waiting longest is cut at once. On a unix socket no user but root and ours has more than MAX_OF_ONE.

    200  the row's answer, whatever status that has
    400  no HTTP/1 request, or one with a body    405  another method (Allow)    404  no such path
    408  not asked in time    431  longer than MAX_HEAD_BYTES    500  a bug of ours    505  another HTTP
    503  he has MAX_OF_ONE already
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from forkd import log
from forkd.admin.accepting import Clients, Held, let_go
from forkd.admin.access import Peer

DEADLINE_S = 10.0
"""Prometheus waits as long for a scrape by default."""

MAX_HEAD_BYTES = 8192
"""Request line and fields, as nginx and Apache allow for one line."""

MAX_CLIENTS = 32
"""At once; for the next one somebody gives way who has not asked yet, does not read, or does not hang up."""

MAX_OF_ONE = 8
"""Connections of one user at once, where the kernel tells who it is: the next one is refused."""

_UNKNOWN: Final = -1
"""The uid of who comes over TCP."""

TEXT: Final = "text/plain; charset=utf-8"

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
"""RFC 9112 3 and 5: no blank before the colon, no folded line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a path has to say."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT


Paths = Mapping[str, Callable[[], Awaitable[Answer]]]
"""Path -> who answers it, in DEADLINE_S."""


class Refused(Exception):  # noqa: N818 - the client's fault, as a value
    """It gets this status, with what was wrong."""

    def __init__(self, status: HTTPStatus, said: str, fields: str = "") -> None:
        super().__init__(said)
        self.status = status
        self.fields = fields


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """path   without its query"""

    method: str
    path: str


def parse(head: bytes) -> Request:
    """A request's head, up to its empty line and without it (RFC 9112). Raises Refused."""
    line, *rows = head.split(b"\r\n")
    if (found := _LINE.fullmatch(line)) is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP/1 request")
    method, target, major, minor = found.groups()
    if major != b"1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 and 1.0 are spoken here")
    fields: dict[bytes, list[bytes]] = {}
    for row in rows:
        if (field := _FIELD.fullmatch(row)) is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "a header field is malformed")
        fields.setdefault(field[1].lower(), []).append(field[2].strip())
    hosts = len(fields.get(b"host", ()))
    if hosts > 1 or (minor != b"0" and not hosts):
        raise Refused(HTTPStatus.BAD_REQUEST, "one Host is wanted (RFC 9112 3.2)")
    if b"transfer-encoding" in fields or any(size != b"0" for size in fields.get(b"content-length", ())):
        raise Refused(HTTPStatus.BAD_REQUEST, "a request has no body here")
    if method not in (b"GET", b"HEAD"):
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are answered", "Allow: GET, HEAD\r\n")
    try:
        # A proxy asks for http://host/path, which every server takes (RFC 9112 3.2.2).
        path = (
            urlsplit(target.decode("ascii")).path if not target.startswith(b"/") else target.decode("ascii")
        )
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "the address that was asked for is malformed") from None
    return Request(method.decode("ascii"), path.partition("?")[0] or "/")


class Server:
    """From run() until it is cancelled; then close() ends who is still there.

    free   uids that may have all places
    """

    def __init__(
        self,
        listener: socket.socket,
        paths: Paths,
        *,
        deadline_s: float = DEADLINE_S,
        free: frozenset[int] = frozenset(),
    ) -> None:
        self._paths = paths
        self._deadline_s = deadline_s
        self._free = free | {_UNKNOWN}
        self._held = Held()
        self._theirs: dict[asyncio.Task[None] | None, None] = {}
        """Whose turn is the client's, the one who has had it longest first."""
        self._clients = Clients(
            listener, self._serve, most=MAX_CLIENTS, what="metrics socket", crowd=self._crowd
        )

    async def run(self) -> None:
        """Accept, until cancelled."""
        await self._clients.run()

    async def close(self, wait_s: float = 0.0) -> None:
        """Answers under way go out for so long (a balancer would take their end for ours); then end all."""
        await self._clients.close(wait_s=wait_s)

    def _crowd(self) -> None:
        if task := next(iter(self._theirs), None):
            del self._theirs[task]
            task.cancel()

    async def _serve(self, connection: socket.socket) -> None:
        try:
            uid = Peer.of(connection).uid if connection.family == socket.AF_UNIX else _UNKNOWN
            reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_HEAD_BYTES)
        except OSError:
            connection.close()
            return
        with self._held.one_more(uid) as held:
            self._theirs[asyncio.current_task()] = None
            try:
                if held > MAX_OF_ONE and uid not in self._free:
                    writer.write(_MANY)  # and he is not waited for
                else:
                    await self._talk(reader, writer)
            except (TimeoutError, ConnectionError, asyncio.CancelledError):
                writer.transport.abort()
            finally:
                await let_go(writer, wait_s=self._deadline_s)
                self._theirs.pop(asyncio.current_task(), None)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._deadline_s):
            answer = await self._answer(reader)
        if answer:
            async with asyncio.timeout(self._deadline_s):
                await _say(reader, writer, answer)

    async def _ask(self, row: Callable[[], Awaitable[Answer]]) -> Answer:
        """It is our turn: no crowd may cut him now."""
        self._theirs.pop(asyncio.current_task(), None)
        try:
            return await row()
        finally:
            self._theirs[asyncio.current_task()] = None

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """The whole response; empty: the client went without a word."""
        head_only, fields = False, ""
        try:
            request = parse(await self._read(reader))
            head_only = request.method == "HEAD"
            if (row := self._paths.get(request.path)) is not None:
                answer = await self._ask(row)
            elif request.path == "/":
                answer = Answer("".join(f"{path}\n" for path in self._paths).encode())
            else:
                raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here; / lists what there is")
        except Refused as refused:
            answer, fields = Answer(f"{refused}\n".encode(), refused.status), refused.fields
        except ConnectionError:
            return b""
        except (TimeoutError, asyncio.CancelledError):
            raise
        except Exception as error:  # the boundary of one request
            log.bug(where="http", error=error)
            answer = Answer(b"a bug of forkd; its log has it\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        return _head(answer, fields) + (b"" if head_only else answer.body)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            # Half of the time: the rest is the row's, which then may still say why not.
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self._deadline_s / 2)
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "nothing was asked") from None
        except asyncio.LimitOverrunError:
            said = f"a request has {MAX_HEAD_BYTES} octets at most"
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, said) from None
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                raise ConnectionResetError from None
            raise Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP/1 request") from None
        return head[:-4]


def _head(answer: Answer, fields: str = "") -> bytes:
    return (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"Cache-Control: no-store\r\n{fields}Connection: close\r\n\r\n"
    ).encode("ascii")


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Send it, and wait until the client has hung up: closed with octets of its unread, a socket is reset,
    and the answer may be lost (RFC 9112 9.6)."""
    writer.write(answer)
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    while await reader.read(MAX_HEAD_BYTES):
        pass


_TOO_MANY = Answer(
    f"one user may have {MAX_OF_ONE} connections here at once\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE
)
_MANY: Final = _head(_TOO_MANY) + _TOO_MANY.body
