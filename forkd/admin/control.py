"""The control socket: accepts, looks at who it is, reads lines, answers them in order.

Everybody may connect; who has no role is told so and sent away. No user but root and ours can take so many
connections that others find none, or fill the log with refusals.
"""

from __future__ import annotations

import asyncio
import socket
import time

from forkd import log
from forkd.admin import requests
from forkd.admin.accepting import Clients, Held, let_go
from forkd.admin.access import Access, Peer, Roles
from forkd.admin.requests import MAX_LINE_BYTES
from forkd.admin.rows import Context, Others

IDLE_S = 60.0
"""Without a request, or with an answer that is not read: then the connection is closed."""

MAX_CLIENTS = 128
"""At once; the next one waits in the socket's backlog."""

MAX_OF_ONE = 16
"""Connections of one user at once, below the role `admin`: the next one is refused."""


TOLD_S = 60.0
"""In that time the log has one line of each user's refused connections, ..."""
MOST_TOLD = 60
"""... and so many of all users', who may be many where each has a range of uids."""


class Refusals:
    """Which refused connections get a line? Pure."""

    def __init__(self) -> None:
        self._told: set[int] = set()
        self._until = 0.0
        self._untold = 0

    def one_more(self, uid: int, now: float) -> int | None:
        """How many there were without a line since the last one that had one; None: this has none."""
        if now >= self._until:
            self._told.clear()
            self._until = now + TOLD_S
        if uid in self._told or len(self._told) >= MOST_TOLD:
            self._untold += 1
            return None
        self._told.add(uid)
        untold, self._untold = self._untold, 0
        return untold


class Control:
    """From run() until it is cancelled; then close() ends who is still there."""

    def __init__(self, listener: socket.socket, roles: Roles, others: Others) -> None:
        self._roles = roles
        self._others = others
        self._clients = Clients(listener, self._serve, most=MAX_CLIENTS, what="control socket")
        self._held = Held()
        self._refusals = Refusals()
        self.answered = 0

    async def run(self) -> None:
        """Accept, until cancelled."""
        await self._clients.run()

    async def close(self, *, wait_s: float) -> None:
        """Let answers under way go out for so long; then end all."""
        await self._clients.close(wait_s=wait_s)

    async def _serve(self, connection: socket.socket) -> None:
        """One client, until it hangs up, is silent for IDLE_S, or breaks the protocol."""
        try:
            peer = Peer.of(connection)
        except OSError:
            connection.close()
            return
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE_BYTES)
        with self._held.one_more(peer.uid) as held:
            try:
                await self._talk(peer, held, reader, writer)
            except ValueError:
                writer.write(requests.refusal(f"a request has {MAX_LINE_BYTES} octets at most"))
            except (TimeoutError, asyncio.CancelledError):
                writer.transport.abort()
            except ConnectionError:
                pass
            finally:
                await let_go(writer, wait_s=IDLE_S)

    async def _talk(
        self, peer: Peer, held: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A directory that does not answer keeps nobody waiting but him who has to be looked up.
        known = self._roles.known(peer)
        access = self._roles.of(peer) if known else await asyncio.to_thread(self._roles.look_up, peer)
        if refusal := self._refusal(peer, access, held):
            self._tell(peer, access, refusal)
            writer.write(requests.refusal(refusal))
            return
        context = Context(who=str(peer), uid=peer.uid, access=access, others=self._others)
        while line := await asyncio.wait_for(reader.readline(), IDLE_S):
            self.answered += 1
            writer.write(await requests.answer(line, context))
            await asyncio.wait_for(writer.drain(), IDLE_S)

    def _tell(self, peer: Peer, access: Access, refusal: str) -> None:
        untold = self._refusals.one_more(peer.uid, time.monotonic())
        if untold is not None:
            log.admin_request(
                request="connect",
                who=str(peer),
                uid=peer.uid,
                role=access.word,
                result="refused",
                detail=f"{refusal} (and {untold} more before it)" if untold else refusal,
                level="warning",
            )

    def _refusal(self, peer: Peer, access: Access, held: int) -> str:
        """Why this connection is not served; empty: it is."""
        if access is Access.NONE:
            return self._roles.refusal(peer)
        if access < Access.ADMIN and held > MAX_OF_ONE:
            return (
                f"user {peer.name} has {MAX_OF_ONE} connections already, which is all that one user may have"
            )
        return ""
