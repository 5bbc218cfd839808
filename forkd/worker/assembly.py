"""Of what is a worker put together? What its sessions share, from what master gave it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from forkd import log
from forkd.config.aliases import NO_ALIASES
from forkd.config.expansion import TAKEN, AliasedRecipients
from forkd.config.recipients import Recipients
from forkd.hooks.breaker import Rule
from forkd.hooks.dispatcher import Dispatcher
from forkd.hooks.given import KeptCopy
from forkd.queue.ids import Ids
from forkd.queue.spool import Spool, spool_root
from forkd.rpc import records
from forkd.rpc.channel import RequestClient
from forkd.rpc.start import RoleStart
from forkd.sandbox.host import Host
from forkd.worker.authenticator import Authenticator
from forkd.worker.copies import CopyBudget
from forkd.worker.crashes import Crashes
from forkd.worker.failures import Failures
from forkd.worker.measuring import Measuring
from forkd.worker.names import Resolver
from forkd.worker.next_hop import NextHop
from forkd.worker.rates import Rates
from forkd.worker.services import Services
from forkd.worker.shadow import Watcher
from forkd.worker.tls import Certificates


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What the process has already.

    host        the way to the plugins' zygotes
    anvil       the way to the counts over all workers
    budget      of sealed copies, which the host counts too
    background  runs what outlives a session
    """

    loop: asyncio.AbstractEventLoop
    host: Host
    anvil: RequestClient
    budget: CopyBudget
    measuring: Measuring
    background: Callable[[Coroutine[Any, Any, None]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Assembled:
    """What was made of it. `crashes` is to be closed; None: no records are kept."""

    services: Services
    watcher: Watcher
    crashes: Crashes | None


def assemble(start: RoleStart, given: Given) -> Assembled:
    """Make it all; the authenticator is still to be opened."""
    config = start.config
    recipients = AliasedRecipients(Recipients.from_config(config), start.aliases or NO_ALIASES)

    def routable(local: str, domain: str) -> bool:
        return isinstance(recipients.resolve(local, domain, may_relay=False), TAKEN)

    crashes = _open_crashes(start, given.loop)
    failures = Failures(
        start.plugin_configs,
        background=given.background,
        ids=Ids(f"w{start.slot}"),
        crashes=crashes,
        hashes=start.plugin_hashes,
        slot=given.measuring.slot,
    )
    watcher = Watcher(failures, given.background)
    dispatcher = Dispatcher(
        start.plugin_configs,
        given.host,
        message_budget_s=float(config.sandbox.message_budget),
        message_size=config.limits.edited_size,
        routable=routable,
        observer=watcher,
        breaker=Rule(
            window_s=float(config.breaker.window),
            networks=config.breaker.networks,
            pause_s=float(config.breaker.pause),
        ),
        keep_frames=crashes is not None,
    )
    rates = Rates(config.limits, workers=start.workers, anvil=given.anvil)
    services = Services(
        config,
        loop=given.loop,
        slot=start.slot,
        hostname=config.server.hostname,
        poke=start.poke,
        dispatcher=dispatcher,
        budget=given.budget,
        failures=failures,
        measuring=given.measuring,
        recipients=recipients,
        anvil=given.anvil,
        workers=start.workers,
        rates=rates,
        names=Resolver(config.names, given.loop),
        certificates=Certificates(config, start.certificates, start.client_ca),
        authenticator=Authenticator(config, given.loop, host=given.host, rates=rates, dispatcher=dispatcher),
        spool=Spool(
            spool_root(config.server.data_dir),
            f"w{start.slot}",
            durable=config.queue.durability == "fsync",
        ),
        background=given.background,
        next_hop=NextHop(given.loop, start.proxy, f"w{start.slot}", config) if start.proxy else None,
    )
    return Assembled(services, watcher, crashes)


def _open_crashes(start: RoleStart, loop: asyncio.AbstractEventLoop) -> Crashes | None:
    crash = start.config.crash
    if not crash.keep:
        return None

    def done(copy: KeptCopy) -> None:
        loop.call_soon_threadsafe(copy.close)

    def lost(record: str, reason: str) -> None:
        loop.call_soon_threadsafe(lambda: log.crash_record(act="lost", record=record, reason=reason))

    return Crashes(
        records.crash_folder(start.config.server.data_dir),
        keep=crash.keep,
        max_size=int(crash.max_size),
        on_done=done,
        on_lost=lost,
    )
