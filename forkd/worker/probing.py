"""How does a worker serve forkd's own probe (forkd/probe)? Sessions like any other, on places of their own.

They share with clients' sessions what is to be tried: loop, engine, handlers, the way to sandboxes, the
spool. They have of their own what clients are limited and counted by, so that a full table does not refuse
them and nothing of them is told.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from forkd.config.aliases import NO_ALIASES
from forkd.config.expansion import AliasedRecipients
from forkd.config.recipients import Recipients
from forkd.hooks.breaker import Rule
from forkd.hooks.dispatcher import Dispatcher
from forkd.metrics_slot import Slot
from forkd.probe import configured
from forkd.rpc.channel import RequestClient
from forkd.sandbox.host import Host
from forkd.worker import ending
from forkd.worker.admission import Admission
from forkd.worker.clients import Clients
from forkd.worker.failures import Failures
from forkd.worker.listening import listening
from forkd.worker.measuring import Measuring
from forkd.worker.services import Counters, Services
from forkd.worker.session import Session
from forkd.worker.shadow import Watcher

Background = Callable[[Coroutine[Any, Any, None]], None]


class ProbeSession(Session):
    """A probe's dialogue. Its socket has no address: it stands for a client on this machine."""

    __slots__ = ()

    told = False
    unnamed_peer = configured.PEER

    def __init__(self, services: Services) -> None:
        super().__init__(services, configured.NAME)
        self._local = configured.PEER


class Probing:
    """From open() to close(): whoever connects to the probe's socket is served."""

    def __init__(self, services: Services, host: Host, anvil: RequestClient, background: Background) -> None:
        self._services = _services(services, host, anvil, background)
        self._server: asyncio.AbstractServer | None = None

    async def open(self, sock: socket.socket | None) -> None:
        """Listen; None: there is no probe."""
        if sock is not None:
            loop = self._services.loop
            self._server = await loop.create_unix_server(lambda: ProbeSession(self._services), sock=sock)

    def sweep(self, now: float) -> None:
        """Once a second: who is too late?"""
        for session in tuple(self._services.sessions):
            ending.sweep(session, now)

    def close(self) -> None:
        """We stop: another worker serves the next one, and the one under way is made again there."""
        if self._server is not None:
            self._server.close()
            self._services.draining = True
            for session in tuple(self._services.sessions):
                ending.drain(session)

    def abort(self) -> None:
        """Whoever is still there is cut off."""
        for session in tuple(self._services.sessions):
            session.transport.abort()


def _services(services: Services, host: Host, anvil: RequestClient, background: Background) -> Services:
    """What sessions share, but with tables in which nobody exists, and without what tells of them."""
    config = configured.settings(services.config)
    plugin = configured.plugin(config)
    own = copy.copy(services)
    own.config = config
    own.counters = Counters()
    own.measuring = Measuring(Slot(-1))
    own.tries_spool = True
    own.sessions = set()
    own.clients = Clients(config)
    own.admission = Admission(config, workers=1, anvil=anvil)
    own.recipients = AliasedRecipients(Recipients.from_config(config), NO_ALIASES)
    own.failures = Failures([plugin], background=background, ids=services.ids)
    own.dispatcher = Dispatcher(
        [plugin],
        host,
        routable=lambda _local, _domain: False,
        observer=Watcher(own.failures, background),
        breaker=Rule(),
    )
    own.listeners = {
        configured.NAME: listening(config, configured.NAME, tls=False, mechanisms=()),
    }
    return own
