"""One configuration in force: what it has open (holdings.py), and places of the processes that live by it.

The first is opened at the start, each good reload opens another one beside it (reload.py). Workers belong to
one generation for good. Of what serves them, whatever is given the same as before goes over from one
generation to the next: a zygote whose plugin has the same files, settings, grants and limits (and none of the
admin's files, which it may have read at its start; a program reads them each time), and each role by its
row's `reload`.
"""

from __future__ import annotations

import functools
import itertools
import os
import socket
import time
from collections.abc import Sequence

import forkd
from forkd.config.load import LoadedConfig
from forkd.config.schema import PluginConfig
from forkd.master import child, folders, listeners, privileges, zygote_places
from forkd.master.child import Child, Main
from forkd.master.ground import Ground
from forkd.master.holdings import Holdings
from forkd.master.place import Place
from forkd.master.pool import Slot
from forkd.master.roles import PIPE, Role, least_workers, proxied, workers
from forkd.master.status import Service
from forkd.master.zygotes import Zygote
from forkd.rpc import places
from forkd.rpc.messages_status import PoolStatus
from forkd.rpc.start import RoleStart


class Generation(Holdings):
    """Its number is in the title of each process that lives by it."""

    def __init__(
        self, number: int, loaded: LoadedConfig, ground: Ground, before: Generation | None = None
    ) -> None:
        super().__init__(loaded, ground, before)
        self.number = number
        self.services: dict[str, Place] = {}
        """Its places but the workers', by what they are: a role's name, `zygote NAME`."""
        self._worker: Role | None = None

    def service(self) -> Service:
        """For `forkd status`: of the one that is in force from now on."""
        return Service(
            version=forkd.__version__,
            pid=os.getpid(),
            started_at=self.ground.started_at,
            hostname=self.config.server.hostname,
            listeners={name: listeners.shown(sock) for name, sock in self.listeners.items()},
            durability=self.config.queue.durability,
            sandbox=self.layers,
            notes=tuple(self.notes),
            generation=self.number,
            generation_at=time.time(),
            pool=self._pool(),
        )

    def _pool(self) -> PoolStatus | None:
        if self._worker is None:
            return None
        config = self.config
        return PoolStatus(
            min=least_workers(config),
            max=workers(config),
            sessions=config.limits.sessions,
            spare=config.pool.spare,
        )

    # --- places ---------------------------------------------------------------------------------------

    def places(self, roles: Sequence[Role]) -> list[Place]:
        """A place for each process of the table, for the start of the service."""
        found = []
        for role in roles:
            if role.starter == "zygote":
                found += [self._zygote(role, zygote, number) for number, zygote in enumerate(self.zygotes)]
                continue
            for number in range(role.count(self.config)):
                found.append(self.place(role, number))
                if role.reload == "renew":
                    self._worker = role
                else:
                    self.services[role.name] = found[-1]
        return found

    def place(self, role: Role, number: int) -> Place:
        """A place for one more process of that role, not on the roster yet. Raises StartError."""
        return Place(
            role,
            Slot(
                role.name,
                number,
                start_limit_s=self._start_limit_s(role),
                beat_limit_s=self._beat_limit_s(role),
            ),
            functools.partial(self._fork, role, child.load(role.main), number),
            generation=self.number,
            on_end=functools.partial(self.ground.metrics.ended, f"{role.name}.{number}"),
        )

    def worker(self) -> Place:
        """A place for one more worker, with a number that nobody has; for Supervisor.add(), before another
        one is asked for."""
        assert self._worker is not None, "the table has workers"
        return self.place(self._worker, self.ground.roster.free_number(self._worker.name))

    @property
    def most_workers(self) -> int:
        """As many may serve."""
        return 0 if self._worker is None else workers(self.config)

    def succeed(self, old: Generation, roles: Sequence[Role]) -> list[Place]:
        """Take over the places that need no other process; those that do, not on the roster yet."""
        fresh: list[Place] = []
        for role in roles:
            if role.starter == "zygote":
                taken = {place.slot.number for place in self.ground.roster.of(role.name)}
                free = (number for number in itertools.count() if number not in taken)
                for zygote in self.zygotes:
                    key = f"zygote {zygote.spec.name}"
                    if zygote in old.zygotes:
                        self.services[key] = old.services[key]
                    else:
                        fresh.append(self._zygote(role, zygote, next(free)))
            elif role.reload == "renew":
                self._worker = role
            elif role.name in old.services and (role.reload == "keep" or self.same(role.name, old)):
                self.services[role.name] = old.services[role.name]
            elif role.count(self.config):
                place = self.place(role, self.ground.roster.free_number(role.name))
                self.services[role.name] = place
                fresh.append(place)
        return fresh

    def take_over(self) -> None:
        """It is in force: who is started from now on in a place that was kept is given what is new, and all
        have its limits."""
        for place in self.services.values():
            place.generation = self.number
            place.slot.limit(self._start_limit_s(place.role), self._beat_limit_s(place.role))
            if place.role.main:
                start = functools.partial(
                    self._fork, place.role, child.load(place.role.main), place.slot.number
                )
                place.start = start

    def _zygote(self, role: Role, zygote: Zygote, number: int) -> Place:
        place = Place(
            PIPE if zygote.asked_by == zygote_places.QMGR else role,
            Slot(role.name, number, zygote.spec.name, start_limit_s=self._start_limit_s(role)),
            zygote.start,
            generation=self.number,
        )
        self.services[f"zygote {zygote.spec.name}"] = place
        return place

    def _start_limit_s(self, role: Role) -> float:
        return float(role.start_limit_s or self.config.sandbox.start_timeout)

    def _beat_limit_s(self, role: Role) -> float:
        return float(self.config.server.heartbeat) if role.heartbeat else 0.0

    def _fork(self, role: Role, main: Main, number: int) -> Child:
        if "slot" in (role.may.reach if role.may else ()):
            folders.make_slot(self.config, number, self.ground.identities)
        if self._counts(role):
            self.ground.metrics.open(f"{role.name}.{number}")
        forked = child.fork(
            main,
            functools.partial(self.start, role, number),
            self.ground.identities.by_key.get(role.user),
            self.walls(role, number),
            may_gain=role.may_gain,
        )
        if "listeners" in role.needs:
            self.certificates.forked(forked)
        if "metrics" in role.needs:
            self.ground.metrics.forked(forked)
        return forked

    def _counts(self, role: Role) -> bool:
        """Where nobody can read what it counts, nothing is."""
        return "counts" in role.needs and bool(self.config.metrics.listen)

    # --- what a process is given ----------------------------------------------------------------------

    def start(self, role: Role, number: int, master: socket.socket) -> RoleStart:
        """What this process is given: what its row needs, and nothing else."""
        needs, ground = role.needs, self.ground
        with_plugins = "plugins" in needs
        plugins: tuple[PluginConfig, ...] = ()
        if with_plugins or "grants" in needs:
            plugins = self.loaded.plugins
        sockets = self.sockets()
        trace = ground.trace if self.config.trace.keep else {}
        return RoleStart(
            role=role.name,
            slot=number,
            generation=self.number,
            config=self.config,
            master=master,
            listeners=self.listeners if "listeners" in needs else {},
            sockets={name: sock for name, sock in sockets.items() if name in needs},
            plugins=dict(self.asked_by(role)),
            plugin_configs=plugins,
            plugin_hashes={
                zygote.spec.name: zygote.files.digests.get(zygote.spec.name, "")
                for zygote in (self.zygotes if with_plugins else ())
                if zygote.files is not None
            },
            anvil=str(ground.run / places.ANVIL),
            control=str(ground.run / places.WORKERS) if with_plugins else "",
            broker=self.socket_of("broker") if with_plugins else "",
            launcher=self.socket_of("launcher") if "qmgr" in needs else "",
            proxy=str(ground.run / places.PROXY) if proxied(self.config) and "listeners" in needs else "",
            aliases=self.loaded.aliases if needs & {"listeners", "poke_read"} else None,
            workers=workers(self.config),
            poke=ground.poke[0] if "poke_read" in needs else ground.poke[1] if "poke_write" in needs else -1,
            certificates=self.certificates.pairs if "listeners" in needs else {},
            client_ca=self.certificates.client_ca if "listeners" in needs else -1,
            next_hops=self.next_hops.current() if "next_hops" in needs else {},
            names_calls=ground.refusals is not None,
            lock=ground.runtime.lock,
            overflow=privileges.overflow(),
            metrics=ground.metrics.files[f"{role.name}.{number}"] if self._counts(role) else -1,
            slots=ground.metrics.readable if "metrics" in needs else {},
            trace=next((end for need, end in trace.items() if need in needs), None),
        )


def drop_all(living: list[Generation]) -> None:
    """Give up all of them: master ends."""
    while living:
        living.pop().drop(living)
