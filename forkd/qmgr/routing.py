"""Which transport does a recipient go to? By the configuration's table, the one that RCPT asked too."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from forkd.config import schema
from forkd.config.recipients import Accepted, Recipients
from forkd.deliver.discard import Discard
from forkd.deliver.maildir import Maildir
from forkd.deliver.programs import HostGone, Program, ProgramHost
from forkd.deliver.qmail_queue import QmailQueue
from forkd.deliver.transport import Delivery, Result, Target, Transport
from forkd.fs import REAL, Fs
from forkd.queue.envelope import Envelope
from forkd.queue.format import Damaged
from forkd.smtp.address import split_address


class Nowhere:
    """The transport of recipients that the configuration has no way for (any more)."""

    name = "-"
    parallel = 1
    batch = 32

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        """Deferred: they were accepted, so an admin has changed the table, and may change it back."""
        return [
            [
                Result(target, "deferred", "4.3.5", "no transport for this recipient in the configuration")
                for target in delivery.targets
            ]
            for delivery in deliveries
        ]


class Routing:
    """Transports by name, and the table that chooses among them."""

    def __init__(self, config: schema.Config, *, programs: ProgramHost | None = None, fs: Fs = REAL) -> None:
        self._table = Recipients.from_config(config)
        self._first_domain = next(iter(self._table.domains), "")
        self.nowhere: Transport = Nowhere()
        around = Around(config, programs or NoPrograms(), fs)
        self.transports = {name: transport(name, around) for name in _names(config)}
        # Bounded: recipients come from outside. The table never changes while we live.
        self._look_up = functools.lru_cache(maxsize=10_000)(self._choose)

    def route(self, envelope: Envelope, indexes: Sequence[int]) -> list[tuple[Transport, tuple[Target, ...]]]:
        """Those recipients of the envelope, by transport."""
        recipients = envelope.recipients
        if len(indexes) == 1:
            recipient = recipients[indexes[0]]
            way, mailbox, domain, detail = self._look_up(recipient.address)
            target = Target(indexes[0], recipient.address, mailbox, domain, detail, recipient.original)
            return [(way, (target,))]
        by_transport: dict[str, tuple[Transport, list[Target]]] = {}
        for index in indexes:
            recipient = recipients[index]
            way, mailbox, domain, detail = self._look_up(recipient.address)
            by_transport.setdefault(way.name, (way, []))[1].append(
                Target(index, recipient.address, mailbox, domain, detail, recipient.original)
            )
        return [(way, tuple(targets)) for way, targets in by_transport.values()]

    def _choose(self, address: str) -> tuple[Transport, str, str, str]:
        local, domain = split_address(address)
        found = self._table.resolve(local, domain, may_relay=True)
        if isinstance(found, Accepted):
            way = self.transports.get(found.transport, self.nowhere)
            return way, found.mailbox, self._table.name_of(domain) or self._first_domain, found.detail
        return self.nowhere, local, domain, ""


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
    fs: Fs


def _maildir(name: str, table: schema.Maildir, around: Around) -> Transport:
    config = around.config
    return Maildir(
        name,
        path=table.path,
        root=str(config.server.data_dir),
        host=config.server.hostname or "localhost",
        durable=config.queue.durability == "fsync",
        fs=around.fs,
    )


def _discard(name: str, _: schema.Discard, __: Around) -> Transport:
    return Discard(name)


def _qmail_queue(name: str, table: schema.QmailQueue, around: Around) -> Transport:
    return QmailQueue(name, around.programs, timeout_s=float(table.timeout))


KINDS: dict[type, Callable[[str, Any, Around], Transport]] = {
    schema.Maildir: _maildir,
    schema.Discard: _discard,
    schema.QmailQueue: _qmail_queue,
}
"""Of [transport.NAME]: what its settings are -> who makes it of them."""


def transport(name: str, around: Around) -> Transport:
    """The transport that [transport.NAME] describes."""
    table = around.config.transport.get(name) or schema.Maildir()
    return KINDS[type(table)](name, table, around)


def _names(config: schema.Config) -> set[str]:
    # `local` exists without being configured (schema.Config.transport).
    return {"local", *config.transport}
