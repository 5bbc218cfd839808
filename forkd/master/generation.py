"""One configuration in force: what was opened for it, and the places of the processes that live by it.

The first is opened at the start, each good reload opens another one beside it (reload.py). Workers belong to
one generation for good. Of what serves them, whatever is given the same as before goes over from one
generation to the next: a zygote whose plugin has the same files, settings, grants and limits (and none of the
admin's files, which it may have read at its start; a program reads them each time), and each role by its
row's `reload`.

What is opened is closed with the last worker of its generation, unless a living generation has it too.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import forkd
from forkd.config.load import LoadedConfig
from forkd.config.schema import PluginConfig
from forkd.exits import Exit
from forkd.master import (
    child,
    folders,
    listeners,
    metrics_socket,
    privileges,
    rights,
    role_trial,
    zygote_places,
)
from forkd.master.certificates import Certificates
from forkd.master.child import Child, Main
from forkd.master.errors import StartError
from forkd.master.given import given
from forkd.master.ground import Ground
from forkd.master.ground_paths import shut
from forkd.master.next_hop_files import NextHopFiles
from forkd.master.place import Place
from forkd.master.pool import Slot
from forkd.master.roles import PIPE, Role, brokered, launchers, least_workers, proxied, workers
from forkd.master.status import Service
from forkd.master.zygotes import Zygote
from forkd.rpc import places
from forkd.rpc.hush import hush
from forkd.rpc.messages_status import PoolStatus
from forkd.rpc.start import RoleStart
from forkd.sandbox.role_walls import Walls
from forkd.sandbox.selftest import Finding

_BESIDE = {"broker": (places.BROKER, "user"), "launcher": (places.LAUNCHER, "queue_user")}
"""Roles of which each process has a socket of its own: its path, and who may connect."""


class Generation:
    """From open() to close(). Its number is in the title of each process that lives by it.

    before  the one in force, whose sockets and zygotes go over where they are wanted unchanged
    """

    def __init__(
        self, number: int, loaded: LoadedConfig, ground: Ground, before: Generation | None = None
    ) -> None:
        self.number = number
        self.loaded = loaded
        self.config = loaded.config
        self.ground = ground
        self.before = before
        self.notes = list(loaded.notes)
        self.certificates = Certificates(loaded.config)
        self.next_hops = NextHopFiles(loaded.config)
        self.listeners: dict[str, socket.socket] = {}
        self.zygotes: list[Zygote] = []
        self.layers: dict[str, str] = {}
        self.services: dict[str, Place] = {}
        """Its places but the workers', by what they are: a role's name, `zygote NAME`."""
        self._worker: Role | None = None
        self._common: set[str] = set()
        """Sockets of the ground that its roles are given."""
        self._metrics: socket.socket | None = None
        self._beside: dict[str, tuple[socket.socket, Path]] = {}
        self._own = contextlib.ExitStack()

    # --- what it holds --------------------------------------------------------------------------------

    def open(self, roles: Sequence[Role]) -> None:
        """Open what it needs. Raises StartError; nothing of it is open then, and nothing else was changed.

        Blocks   for reading files, and for the trial of walls that were not tried before.
        """
        try:
            self._open(roles)
        except BaseException:
            self.drop(() if self.before is None else (self.before,))
            raise

    def _open(self, roles: Sequence[Role]) -> None:
        config, ground = self.config, self.ground
        folders.check_users(config, ground.identities)
        self.certificates.open()
        self._own.callback(self.certificates.close)
        self.next_hops.open()
        self._own.callback(self.next_hops.close)
        had = {} if self.before is None else self.before.bound
        self.listeners = listeners.open_all(config.listener, ground.inherited, had)
        self.notes += listeners.mismatches(self.listeners, ground.inherited)
        folders.make(config, self.loaded.plugins, ground.identities)
        self._common = {"control", "qmgr", "workers", "anvil"}
        self._common |= {"proxy"} if proxied(config) else set()
        self._common |= {"probe"} if config.probe.enabled else set()
        for name in self._common:
            ground.listen(name)
        if self.before is not None and self.before.config.metrics.listen == config.metrics.listen:
            self._metrics = self.before._metrics
        else:
            beside = None if self.before is None else self.before._metrics
            self._metrics = metrics_socket.listen(config.metrics.listen, ground.runtime, beside)
        if config.trace.keep:
            ground.open_trace()
        wanted = {"broker": brokered(self.loaded.plugins), "launcher": bool(launchers(config))}
        for role, (path, owner) in _BESIDE.items():
            if not wanted[role]:
                continue
            if self.before is not None and role in self.before._beside and self.same(role, self.before):
                self._beside[role] = self.before._beside[role]
            else:
                self._beside[role] = ground.listen_beside(path, owner=owner)
        self.notes += rights.launcher_notes(config) if wanted["launcher"] else []
        if any(role.starter == "zygote" for role in roles):
            tried = self._try_walls(roles)
            kept = [] if self.before is None else self.before.zygotes
            behind = zygote_places.Behind(ground, tried, self.notes, kept)
            self.zygotes, self.layers = zygote_places.prepare(self.loaded, behind)
            if ground.refusals is not None:
                ground.refusals.also((zygote.spec.uid, zygote.spec.name) for zygote in self.zygotes)
            ground.zygotes += [zygote for zygote in self.zygotes if zygote not in ground.zygotes]

    def same(self, role: str, other: Generation) -> bool:
        """Would its process be given the same by both?"""
        return given(role, self.loaded, self.ways(role)) == given(role, other.loaded, other.ways(role))

    def drop(self, living: Sequence[Generation]) -> None:
        """It is over: give up all that none of the living generations has. Once more does nothing."""
        used = {each for generation in living for each in generation._shared()}
        for each, close in self._shared().items():
            if each not in used:
                close()
        self.ground.zygotes[:] = [
            zygote for zygote in self.ground.zygotes if zygote in used or zygote not in self.zygotes
        ]
        self.listeners, self.zygotes, self._metrics, self._beside = {}, [], None, {}
        self._own.close()

    def _shared(self) -> dict[object, Callable[[], None]]:
        """What may go over to the next generation, and how it is given up."""
        found: dict[object, Callable[[], None]] = {sock: sock.close for sock in self.listeners.values()}
        found |= {zygote: zygote.close for zygote in self.zygotes}
        if self._metrics is not None:
            found[self._metrics] = functools.partial(metrics_socket.close, self._metrics)
        return found | {sock: functools.partial(shut, sock, path) for sock, path in self._beside.values()}

    @property
    def bound(self) -> dict[str, tuple[socket.socket, str]]:
        """Name of a listener -> its socket, and its address as it is configured."""
        return {name: (sock, self.config.listener[name].address) for name, sock in self.listeners.items()}

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
            functools.partial(self._fork, role, load(role), number),
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
                start = functools.partial(self._fork, place.role, load(place.role), place.slot.number)
                place.start = start

    def hush(self, beside: Generation) -> bool:
        """Let nobody new in by sockets that end with this generation (rpc.hush). False: there are none."""
        kept = {os.fstat(each.sock.fileno()).st_ino for each in self.ground.inherited}  # systemd's live on
        ending = [
            sock
            for sock in self.listeners.values()
            if sock not in beside.listeners.values() and os.fstat(sock.fileno()).st_ino not in kept
        ]
        for sock in ending:
            hush(sock)
        return bool(ending)

    def close_sockets(self, beside: Generation) -> None:
        """Give up master's hold on sockets for clients and for metrics that the other generation has not.
        Each lives until the last worker, or the old admin, that has it closes its own."""
        if self._metrics is not None and self._metrics is not beside._metrics:
            metrics_socket.close(self._metrics)
            self._metrics = None
        for name, sock in tuple(self.listeners.items()):
            if sock not in beside.listeners.values():
                sock.close()
                del self.listeners[name]

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

    # --- walls ----------------------------------------------------------------------------------------

    def _try_walls(self, roles: Sequence[Role]) -> Finding:
        for role in roles:
            if role.main:
                load(role)  # what it reads later is known by what it has loaded
        ground = self.ground
        subjects = tuple(
            role_trial.Subject(name=role.name, identity=ground.identities.by_key.get(role.user), walls=raised)
            for role in roles
            if role.count(self.config) and (raised := self.walls(role)) is not None
        )
        if ground.tried is None or ground.tried[0] != subjects:
            ground.tried = subjects, role_trial.examine(subjects, self.config.server.data_dir)
        found = ground.tried[1]
        if found.result != "enforced":
            self.notes.append(f"walls of our own processes: {found.detail}")
        self.notes += rights.notes(self.config)
        return found

    def walls(self, role: Role, number: int = 0) -> Walls | None:
        """What such a process is left with; None: it is not walled in. Raises StartError."""
        if role.may is None:
            return None
        return rights.walls(
            role.may, rights.Setting(config=self.config, plugins=self.loaded.plugins, slot=number)
        )

    # --- what a process is given ----------------------------------------------------------------------

    def asked_by(self, role: Role) -> Mapping[str, str]:
        """Which zygotes that role asks: name -> path."""
        asks = "user" if "plugins" in role.needs else zygote_places.QMGR if "pipes" in role.needs else ""
        return {zygote.spec.name: str(zygote.path) for zygote in self.zygotes if zygote.asked_by == asks}

    def ways(self, role: str) -> dict[str, str]:
        """Paths that the role asks at, which need not be those of another generation."""
        if role != "qmgr":
            return {}
        pipes = {
            zygote.spec.name: str(zygote.path)
            for zygote in self.zygotes
            if zygote.asked_by == zygote_places.QMGR
        }
        return pipes | {"launcher": self.socket_of("launcher"), "proxy": str(proxied(self.config))}

    def socket_of(self, role: str) -> str:
        """Path of the broker's or the launcher's socket; empty: there is none."""
        return str(self._beside[role][1]) if role in self._beside else ""

    def start(self, role: Role, number: int, master: socket.socket) -> RoleStart:
        """What this process is given: what its row needs, and nothing else."""
        needs, ground = role.needs, self.ground
        with_plugins = "plugins" in needs
        plugins: tuple[PluginConfig, ...] = ()
        if with_plugins or "grants" in needs:
            plugins = self.loaded.plugins
        sockets = {name: sock for name, sock in ground.sockets.items() if name in self._common}
        sockets |= {name: sock for name, (sock, _) in self._beside.items()}
        sockets |= {"metrics": self._metrics} if self._metrics is not None else {}
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


def load(role: Role) -> Main:
    """The function of that role. Raises StartError."""
    try:
        return child.load(role.main)
    except (ImportError, AttributeError) as error:
        raise StartError(Exit.BUG, f"{role.main} cannot be imported: {error}") from error
