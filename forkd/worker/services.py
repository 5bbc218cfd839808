"""What do all sessions of a worker share? Tables from the configuration, the spool, the way to plugins."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from forkd.config.expansion import AliasedRecipients
from forkd.config.schema import Config, Discard
from forkd.hooks.dispatcher import Dispatcher
from forkd.queue.commit import Committer
from forkd.queue.ids import Ids
from forkd.queue.spool import Spool, SpoolError
from forkd.rpc.channel import RequestClient
from forkd.smtp import replies
from forkd.smtp.reply import reply
from forkd.worker.admission import Admission
from forkd.worker.clients import Clients
from forkd.worker.copies import CopyBudget
from forkd.worker.failures import Failures
from forkd.worker.listening import Listening, listening
from forkd.worker.measuring import Measuring
from forkd.worker.names import Resolver
from forkd.worker.next_hop import NextHop
from forkd.worker.rates import Rates
from forkd.worker.room import Room
from forkd.worker.tls import Certificates

if TYPE_CHECKING:
    from forkd.worker.authenticator import Authenticator
    from forkd.worker.session import Session
    from forkd.worker.transaction import Destination, Transaction

PIPE_BUF = 4096
"""What one write to a pipe may have and still arrive in one piece (pipe(7))."""


@dataclasses.dataclass(slots=True)
class Counters:
    """What this worker did since it started; shown by `forkd status`. They never fall."""

    connections: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    refused: int = 0
    discarded: int = 0
    plugin_failures: int = 0
    overloads: int = 0
    limited: int = 0
    tls: int = 0
    tls_failures: int = 0
    auth: int = 0
    auth_failures: int = 0
    bugs: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """One message handed to the committer: who waits for it, and what the log will tell."""

    session: Session
    transaction: Transaction
    edits: int
    at: float = dataclasses.field(default_factory=time.perf_counter)


class Services:
    """Handed to every session; holds no client's state but the set of sessions itself."""

    FREE_SPACE_EVERY_S = 1.0

    def __init__(
        self,
        config: Config,
        *,
        loop: asyncio.AbstractEventLoop,
        slot: int,
        hostname: str,
        poke: int,
        dispatcher: Dispatcher,
        budget: CopyBudget,
        failures: Failures,
        measuring: Measuring,
        recipients: AliasedRecipients,
        anvil: RequestClient,
        workers: int,
        rates: Rates,
        names: Resolver,
        certificates: Certificates,
        authenticator: Authenticator,
        spool: Spool,
        background: Callable[[Coroutine[Any, Any, None]], None],
        next_hop: NextHop | None = None,
    ) -> None:
        self.config = config
        self.loop = loop
        self.slot = f"w{slot}"
        self.hostname = hostname
        self.dispatcher = dispatcher
        self.failures = failures
        self.measuring = measuring
        self.sessions: set[Session] = set()
        self.room = Room(self.sessions)
        self.admission = Admission(config, workers=workers, anvil=anvil, make_room=self.room.make)
        self.rates = rates
        self.names = names
        self.certificates = certificates
        self.authenticator = authenticator
        self.clients = Clients(config)
        self.ids = Ids(self.slot)
        """Session ids; made as queue ids are, never the same."""
        self.recipients = recipients
        self.budget = budget
        self.spool = spool
        self.next_hop = next_hop
        """For listeners with accept = "proxy"."""
        self.background = background
        """Runs what outlives a session (its disconnect hook) and is waited for at the end."""
        self.committer = Committer(spool, self._committed_in_thread)
        self.counters = Counters()
        self.draining = False
        self.dropping = frozenset(
            name
            for name, transport in config.transport.items()
            if isinstance(transport, Discard) and transport.at == "accept"
        )
        """Transports whose mail is dropped at the end of data and never spooled."""
        self.listeners: dict[str, Listening] = {
            name: listening(
                config,
                name,
                tls=bool(certificates),
                mechanisms=authenticator.mechanisms,
            )
            for name in config.listener
        }
        self._poke = poke
        self._space_checked_at = -self.FREE_SPACE_EVERY_S
        self._space = True
        self.tries_spool = False
        """Of the probe's: has_space() writes something too."""
        self.no_space = replies.NO_SPACE
        """What is said where there is none."""

    def keeps(self, to: Destination) -> bool:
        """Mail for that recipient goes into the spool."""
        return not self.dropping or not to.route.transports <= self.dropping

    def has_space(self) -> bool:
        """Is there room for mail (queue.min_free)? Looked up once a second at most."""
        now = time.monotonic()
        if now - self._space_checked_at >= self.FREE_SPACE_EVERY_S:
            self._space_checked_at = now
            try:
                self._space = self.spool.free_bytes() >= self.config.queue.min_free
                self.no_space = replies.NO_SPACE
                if self._space and self.tries_spool:
                    self.spool.try_out()
            except SpoolError as error:
                self._space = False
                if self.tries_spool:  # admin is told why, no client is
                    self.no_space = reply(452, "4.3.1", f"the spool cannot be written: {error}")
        return self._space

    def _committed_in_thread(self, batch: Sequence[tuple[Commit, str | SpoolError]]) -> None:
        self.loop.call_soon_threadsafe(self._committed, list(batch))

    def _committed(self, batch: list[tuple[Commit, str | SpoolError]]) -> None:
        """On the loop: wake qmgr once for the batch, then let every session answer."""
        self._wake_qmgr([result for _, result in batch if isinstance(result, str)])
        now = time.perf_counter()
        for commit, result in batch:
            self.measuring.committed(now - commit.at)
            commit.session.committed(commit, result)

    def _wake_qmgr(self, ids: list[str]) -> None:
        pokes = b""
        for queue_id in ids:
            poke = f"{self.slot}/{queue_id}\n".encode("ascii")
            if len(pokes) + len(poke) > PIPE_BUF:
                self._write_pokes(pokes)
                pokes = b""
            pokes += poke
        if pokes:
            self._write_pokes(pokes)

    def _write_pokes(self, pokes: bytes) -> None:
        # Full, or qmgr is being restarted: its next scan finds the mail (queue.scan_interval).
        with contextlib.suppress(OSError):
            os.write(self._poke, pokes)
