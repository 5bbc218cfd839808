"""From a request to its answer: is it granted, within the quota, and who does it?

What is refused is logged once per session and kind, and counted each time as `plugin.NAME.KIND`.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Protocol

from forkd import log
from forkd.broker import connect, grants
from forkd.broker.protocol import (
    Answer,
    ConnectRequest,
    DnsRequest,
    DnsResult,
    Done,
    Get,
    Incr,
    Refused,
    Request,
    StateRequest,
    Value,
)
from forkd.broker.quotas import CONNECTS, REFUSALS, Rate, Sessions, Usage
from forkd.broker.state import StateError, Store, StoreUnavailable
from forkd.config.schema import Config
from forkd.lookups.kept import Labels
from forkd.lookups.resolver import Answer as Found
from forkd.lookups.resolver import Resolver

Reply = tuple[Answer, socket.socket | None]
"""An answer, and what goes with it."""


class PluginLike(Protocol):
    """What is read of forkd.config.schema.PluginConfig."""

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> grants.CapabilitiesLike: ...


class FloodError(Exception):
    """A plugin that goes on asking for what it does not get."""


class Caller:
    """Who asks: one plugin in one session, known by its channel."""

    __slots__ = ("plugin", "session", "usage")

    def __init__(self, plugin: str, session: str, usage: Usage) -> None:
        self.plugin = plugin
        self.session = session
        self.usage = usage


class Service:
    """All that sandboxes may ask for; one per broker.

    store  None where no plugin was granted one.
    """

    def __init__(
        self, config: Config, plugins: Iterable[PluginLike], *, resolver: Resolver, store: Store | None
    ) -> None:
        self._config = config
        self._resolver = resolver
        self._store = store
        self._grants = {plugin.name: grants.Grants.of(plugin.capabilities) for plugin in plugins}
        self._targets = {
            (plugin, name): connect.parse(where)
            for plugin, granted in self._grants.items()
            for name, where in granted.targets.items()
        }
        self._rates: Mapping[str, Rate] = {plugin: Rate(config.dns.rate) for plugin in self._grants}
        self._sessions = Sessions()
        self.counters: Counter[str] = Counter()

    def caller(self, plugin: str, session: str) -> Caller | None:
        """Who asks on a channel of that plugin's; None: it was granted nothing here."""
        if plugin not in self._grants:
            return None
        return Caller(plugin, session, self._sessions.usage(plugin, session))

    def answer(self, caller: Caller, request: Request) -> Answer | Coroutine[Any, Any, Reply]:
        """The answer, or what brings it when something must be waited for. Raises FloodError."""
        match request:
            case DnsRequest():
                return self._dns(caller, request)
            case ConnectRequest():
                return self._connect(caller, request)
            case _:
                return self._state(caller, request)

    # --- DNS ------------------------------------------------------------------------------------------

    def _dns(self, caller: Caller, request: DnsRequest) -> Answer | Coroutine[Any, Any, Reply]:
        settings = self._config.dns
        try:
            name = grants.reverse_labels(request.name) if request.kind == "ptr" else None
            name = name or grants.labels(request.name)
        except grants.BadNameError:
            shown = request.name[:255].removesuffix(".").lower()
            return DnsResult(request.n, "no_such_name", shown)
        if not self._grants[caller.plugin].may_look_up(name):
            return self._refuse(caller, request, "not_granted", f"the name {'.'.join(name)}: grants.dns")
        if not caller.usage.take("dns", settings.per_session):
            return self._refuse(caller, request, "quota", f"dns.per_session ({settings.per_session})")
        if not self._rates[caller.plugin].take(time.monotonic()):
            return self._refuse(caller, request, "quota", f"dns.rate ({settings.rate} a second)")
        self.counters["dns"] += 1
        known = self._resolver.known(name, request.kind)
        if known is not None:
            self.counters["dns_cached"] += 1
            return _dns_result(request, name, known)
        return self._look_up(request, name)

    async def _look_up(self, request: DnsRequest, name: Labels) -> Reply:
        found = await self._resolver.look(name, request.kind)
        if found.status == "temporary":
            self.counters["dns_temporary"] += 1
        return _dns_result(request, name, found), None

    # --- state ----------------------------------------------------------------------------------------

    def _state(self, caller: Caller, request: StateRequest) -> Answer | Coroutine[Any, Any, Reply]:
        most = self._config.state.per_session
        if not self._grants[caller.plugin].state or self._store is None:
            return self._refuse(caller, request, "not_granted", "the state store: grants.state")
        if not caller.usage.take("state", most):
            return self._refuse(caller, request, "quota", f"state.per_session ({most})")
        self.counters["state"] += 1
        return self._ask_store(caller, request, self._store)

    async def _ask_store(self, caller: Caller, request: StateRequest, store: Store) -> Reply:
        try:
            result = await store.ask(caller.plugin, request)
        except StoreUnavailable as error:
            self.counters["state_unavailable"] += 1
            return Refused(request.n, "unavailable", str(error)), None
        except StateError as error:
            return self._refuse(caller, request, "state", str(error)), None
        if isinstance(request, Get | Incr):
            return Value(request.n, result), None
        return Done(request.n, bool(result)), None

    # --- connections ----------------------------------------------------------------------------------

    def _connect(self, caller: Caller, request: ConnectRequest) -> Answer | Coroutine[Any, Any, Reply]:
        target = self._targets.get((caller.plugin, request.target))
        if target is None:
            return self._refuse(caller, request, "not_granted", f"target {request.target!r}: grants.connect")
        if not caller.usage.take_connection(time.monotonic()):
            return self._refuse(caller, request, "quota", f"{CONNECTS} connections in a minute of a session")
        self.counters["connect"] += 1
        return self._make(caller, request, target)

    async def _make(self, caller: Caller, request: ConnectRequest, target: connect.Target) -> Reply:
        try:
            made = await connect.connect(target)
        except connect.TargetUnavailable as error:
            text = f"target {request.target}: {error}"
            self._tell(caller, "target", text)
            return Refused(request.n, "unavailable", text), None
        return Done(request.n, True), made

    # --- refusals -------------------------------------------------------------------------------------

    def _refuse(self, caller: Caller, request: Request, kind: Any, text: str) -> Refused:
        self._tell(caller, kind, text)
        usage = caller.usage
        usage.refused += 1
        if usage.refused > REFUSALS:
            raise FloodError(f"{REFUSALS} requests refused in one session")
        return Refused(request.n, kind, text)

    def _tell(self, caller: Caller, kind: str, text: str) -> None:
        self.counters[f"plugin.{caller.plugin}.{kind}"] += 1
        told = caller.usage.told
        if kind not in told:
            told.add(kind)
            log.broker_refusal(plugin=caller.plugin, session=caller.session, kind=kind, detail=text)


def _dns_result(request: DnsRequest, name: Labels, found: Found) -> DnsResult:
    ttl = max(0, int(found.expires - time.monotonic())) if found.expires else 0
    return DnsResult(request.n, found.status, ".".join(name), found.records, ttl)
