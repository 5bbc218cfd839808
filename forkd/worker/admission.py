"""May this client connect now? Limits of sessions and connections, asked before a word is said."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from forkd.config.schema import Config
from forkd.rpc.channel import RequestClient, Unavailable
from forkd.rpc.messages import ClientConnect, ClientCounts, ClientDisconnect
from forkd.smtp import replies
from forkd.smtp.reply import Reply
from forkd.worker.clients import Client
from forkd.worker.rates import ANVIL_TIMEOUT_S, Share


class Admission:
    """Counts this worker's sessions and asks anvil about clients that are not trusted.

    When anvil does not answer, each worker applies the limit divided by the number of workers,
    so that the limit over all still holds.

    make_room  told the time when a session comes and there is no place: has another one left?
    """

    def __init__(
        self,
        config: Config,
        *,
        workers: int,
        anvil: RequestClient,
        make_room: Callable[[float], bool] = lambda _now: False,
    ) -> None:
        limits = self._limits = config.limits
        self._workers = max(1, workers)
        self._anvil = anvil
        self._share = Share(self._workers)
        self._make_room = make_room
        self._here: Counter[str] = Counter()
        self._sessions = 0
        self._counts_networks = bool(limits.sessions_per_network or limits.connections_per_minute_network)

    def full(self, coming: int = 0) -> bool:
        """Are there as many sessions as there may be (limits.sessions), with `coming` more?"""
        return self._sessions + coming >= self._limits.sessions

    def enter(self, client: Client) -> Reply | None:
        """Count a new session in, or refuse it. Every enter() that gave None is followed by one leave()."""
        if self.full() and not self._make_room(time.monotonic()):
            return replies.OVERLOAD_CLOSE
        self._sessions += 1
        self._count(client, 1)
        return None

    async def ask(self, client: Client) -> Reply | None:
        """The answer over all workers for a client that has entered: a refusal, or None.

        Blocks for one round trip to anvil, ANVIL_TIMEOUT_S at most; not at all for trusted clients.
        """
        if not client.key:
            return None
        try:
            counts: ClientCounts = await self._anvil.request(
                lambda n: ClientConnect(
                    n=n,
                    client=client.key,
                    network=self._network(client),
                    most=self._limits.connections_per_minute,
                ),
                timeout_s=ANVIL_TIMEOUT_S,
            )
        except Unavailable:
            return self._by_share(client)
        limits = self._limits
        if _over(limits.sessions_per_client, counts.sessions) or _over(
            limits.sessions_per_network, counts.network_sessions
        ):
            return replies.TOO_MANY_CONNECTIONS
        if _over(limits.connections_per_minute, counts.connections_last_minute) or _over(
            limits.connections_per_minute_network, counts.network_connections_last_minute
        ):
            return replies.CONNECTION_RATE
        return None

    def leave(self, client: Client) -> None:
        """Count a session out."""
        self._sessions -= 1
        self._count(client, -1)
        if client.key:
            self._anvil.post(ClientDisconnect(client=client.key, network=self._network(client)))

    def changed(self, old: Client, new: Client) -> None:
        """A session that has entered turns out to be somebody else's (XCLIENT); ask() for `new` then."""
        self._sessions += 1
        self._count(new, 1)
        self.leave(old)

    def _network(self, client: Client) -> str:
        return client.network if self._counts_networks else ""

    def _count(self, client: Client, step: int) -> None:
        if not client.key:
            return
        for key in (client.key, self._network(client)):
            if key:
                self._here[key] += step
                if self._here[key] <= 0:
                    del self._here[key]

    def _by_share(self, client: Client) -> Reply | None:
        """Without anvil: the limits over the number of workers."""
        limits, workers = self._limits, self._workers
        # What the client's own limit refuses does not count for its network.
        rate = self._share.within(limits.connections_per_minute, client.key) and self._share.within(
            limits.connections_per_minute_network, client.network
        )
        for limit, key in (
            (limits.sessions_per_client, client.key),
            (limits.sessions_per_network, client.network),
        ):
            if limit and _over(max(1, limit // workers), self._here[key]):
                return replies.TOO_MANY_CONNECTIONS
        return None if rate else replies.CONNECTION_RATE


def _over(limit: int, count: int) -> bool:
    return 0 < limit < count
