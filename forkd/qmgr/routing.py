"""Which transport does a recipient go to? By the configuration's table, the one that RCPT asked too."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from forkd.config import schema
from forkd.config.recipients import Accepted, Recipients
from forkd.config.routes import in_force
from forkd.deliver.discard import Discard
from forkd.deliver.maildir import Maildir
from forkd.deliver.pipe import Pipe, ProgramRunner
from forkd.deliver.programs import HostGone, Program, ProgramHost
from forkd.deliver.qmail_queue import QmailQueue
from forkd.deliver.transport import AsyncTransport, Delivery, Result, Target, Transport
from forkd.fs import REAL, Fs
from forkd.qmgr.lanes import ROOM
from forkd.qmgr.pipes import Pipes
from forkd.qmgr.retry import Retry
from forkd.qmgr.turns import Bound, Key
from forkd.queue.envelope import Envelope
from forkd.queue.format import Damaged
from forkd.smtp.address import split_address


class Nowhere:
    """The transport of recipients that the configuration has no way for (any more)."""

    name = "-"
    parallel = 1
    batch = 32

    def destination(self, target: Target) -> str:  # noqa: ARG002 - Transport
        """One for all."""
        return ""

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        """Deferred: they were accepted, so an admin has changed the table, and may change it back."""
        return [
            [
                Result(target, "deferred", "4.3.5", "no transport for this recipient in the configuration")
                for target in delivery.targets
            ]
            for delivery in deliveries
        ]


class Way(NamedTuple):
    """Recipients of one message that share a destination."""

    transport: Transport | AsyncTransport
    name: str
    """Of the destination (Transport.destination)."""
    targets: tuple[Target, ...]

    @property
    def key(self) -> Key:
        """As turns.py names it."""
        return self.transport.name, self.name


class Routing:
    """Transports by name, and the table that chooses among them.

    kinds  of [transport.NAME]: who makes a transport of such settings
    """

    def __init__(
        self,
        config: schema.Config,
        *,
        programs: ProgramHost | None = None,
        pipes: ProgramRunner | None = None,
        fs: Fs = REAL,
        kinds: Mapping[type, Maker] | None = None,
    ) -> None:
        self._table = Recipients.from_config(config)
        self._config = config
        self._first_domain = next(iter(self._table.domains), "")
        self.nowhere: Transport = Nowhere()
        self.no_way = Way(self.nowhere, "", ())
        """Of a message with nothing left to deliver: what it has is recorded, as of any pass."""
        around = Around(config, programs or NoPrograms(), pipes or Pipes(config, {}), fs)
        self.transports = {name: transport(name, around, kinds or KINDS) for name in _names(config)}
        self.networked: dict[str, AsyncTransport] = {}
        """Those that run on the event loop."""
        self.threaded: dict[str, Transport] = {}
        """All others."""
        for name, way in self.transports.items():
            if inspect.iscoroutinefunction(way.deliver):
                self.networked[name] = cast("AsyncTransport", way)
            else:
                self.threaded[name] = cast("Transport", way)
        # Bounded: recipients come from outside. The table never changes while we live.
        self._look_up = functools.lru_cache(maxsize=10_000)(self._choose)
        self.retry_of = functools.lru_cache(maxsize=10_000)(self._retry_of)
        """How patient to be with an address. From any thread."""
        self.concurrency_of = functools.lru_cache(maxsize=10_000)(self._concurrency_of)
        """Deliveries at once to the destination of an address."""

    def route(self, envelope: Envelope, indexes: Sequence[int]) -> list[Way]:
        """Those recipients of the envelope, by destination."""
        recipients = envelope.recipients
        if len(indexes) == 1:
            recipient = recipients[indexes[0]]
            way, mailbox, domain, detail = self._look_up(recipient.address)
            target = Target(indexes[0], recipient.address, mailbox, domain, detail, recipient.original)
            return [Way(way, way.destination(target), (target,))]
        ways: dict[Key, tuple[Transport | AsyncTransport, list[Target]]] = {}
        for index in indexes:
            recipient = recipients[index]
            way, mailbox, domain, detail = self._look_up(recipient.address)
            target = Target(index, recipient.address, mailbox, domain, detail, recipient.original)
            ways.setdefault((way.name, way.destination(target)), (way, []))[1].append(target)
        return [Way(way, name, tuple(targets)) for (_, name), (way, targets) in ways.items()]

    def bound(self, way: Way) -> Bound:
        """A destination as turns.py knows it. Where no next hop must be spared, its lane alone bounds it."""
        address = way.targets[0].address
        retry = self.retry_of(address)
        if way.transport.name not in self.networked:
            return Bound(*way.key, ROOM, retry, window=ROOM)
        return Bound(*way.key, self.concurrency_of(address), retry)

    def _choose(self, address: str) -> tuple[Transport | AsyncTransport, str, str, str]:
        local, domain = split_address(address)
        found = self._table.resolve(local, domain, may_relay=True)
        if isinstance(found, Accepted):
            way = self.transports.get(found.transport, self.nowhere)
            return way, found.mailbox, self._table.name_of(domain) or self._first_domain, found.detail
        return self.nowhere, local, domain, ""

    def _concurrency_of(self, address: str) -> int:
        return self._route_of(address).concurrency

    def _route_of(self, address: str) -> schema.Route:
        local, domain = split_address(address)
        found = self._table.resolve(local, domain, may_relay=True)
        mailbox = found.mailbox if isinstance(found, Accepted) else ""
        return in_force(self._config, self._table.routes.find(local, domain, mailbox=mailbox))

    def _retry_of(self, address: str) -> Retry:
        route = self._route_of(address)
        return Retry(
            first_s=float(route.retry_first),
            most_s=float(route.retry_max),
            give_up_s=float(route.give_up),
            warn_s=float(route.warn_after),
        )


class NoPrograms:
    """Where nobody starts programs."""

    def start(self, transport: str, descriptors: Sequence[int]) -> Program:  # noqa: ARG002 - ProgramHost
        """As ProgramHost.start."""
        raise HostGone("there is none")


@dataclasses.dataclass(frozen=True, slots=True)
class Around:
    """What transports are made from, beside their own table."""

    config: schema.Config
    programs: ProgramHost
    pipes: ProgramRunner
    fs: Fs


def _maildir(name: str, table: schema.Maildir, around: Around) -> Transport:
    config = around.config
    return Maildir(
        name,
        table,
        root=str(config.server.data_dir),
        host=config.server.hostname or "localhost",
        durable=config.queue.durability == "fsync",
        fs=around.fs,
    )


def _discard(name: str, _: schema.Discard, __: Around) -> Transport:
    return Discard(name)


def _qmail_queue(name: str, table: schema.QmailQueue, around: Around) -> Transport:
    return QmailQueue(name, around.programs, timeout_s=float(table.timeout))


def _pipe(name: str, table: schema.Pipe, around: Around) -> AsyncTransport:
    return Pipe(name, table, around.pipes)


Maker = Callable[[str, Any, Around], Transport | AsyncTransport]

KINDS: Mapping[type, Maker] = {
    schema.Maildir: _maildir,
    schema.Discard: _discard,
    schema.QmailQueue: _qmail_queue,
    schema.Pipe: _pipe,
}
"""Of [transport.NAME]: what its settings are -> who makes it of them."""


def transport(name: str, around: Around, kinds: Mapping[type, Maker] = KINDS) -> Transport | AsyncTransport:
    """The transport that [transport.NAME] describes."""
    table = around.config.transport.get(name) or schema.Maildir()
    return kinds[type(table)](name, table, around)


def _names(config: schema.Config) -> set[str]:
    # `local` exists without being configured (schema.Config.transport).
    return {"local", *config.transport}
