"""What has one configuration opened? Sockets, zygotes, certificates, and walls that were tried.

What the one before has open goes over where it is wanted unchanged. What is opened is closed with the last
worker of its generation, unless a living generation has it too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from forkd.config.load import LoadedConfig
from forkd.master import child, folders, listeners, metrics_socket, rights, role_trial, zygote_places
from forkd.master.certificates import Certificates
from forkd.master.given import given
from forkd.master.ground import Ground
from forkd.master.ground_paths import shut
from forkd.master.next_hop_files import NextHopFiles
from forkd.master.roles import Role, brokered, launchers, proxied
from forkd.master.zygotes import Zygote
from forkd.rpc import places
from forkd.rpc.hush import hush
from forkd.sandbox.role_walls import Walls
from forkd.sandbox.selftest import Finding

_BESIDE: Final = {"broker": (places.BROKER, "user"), "launcher": (places.LAUNCHER, "queue_user")}
"""Roles of which each process has a socket of its own: its path, and who may connect."""


class Holdings:
    """From open() to drop().

    before  those of the generation in force, which go over where they are wanted unchanged
    """

    def __init__(self, loaded: LoadedConfig, ground: Ground, before: Holdings | None = None) -> None:
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
        self._common: set[str] = set()
        """Sockets of the ground that its roles are given."""
        self._metrics: socket.socket | None = None
        self._beside: dict[str, tuple[socket.socket, Path]] = {}
        self._own = contextlib.ExitStack()

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

    def same(self, role: str, other: Holdings) -> bool:
        """Would its process be given the same by both?"""
        return given(role, self.loaded, self.ways(role)) == given(role, other.loaded, other.ways(role))

    def drop(self, living: Sequence[Holdings]) -> None:
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

    def hush(self, beside: Holdings) -> bool:
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

    def close_sockets(self, beside: Holdings) -> None:
        """Give up master's hold on sockets for clients and for metrics that the other generation has not.
        Each lives until the last worker, or the old admin, that has it closes its own."""
        if self._metrics is not None and self._metrics is not beside._metrics:
            metrics_socket.close(self._metrics)
            self._metrics = None
        for name, sock in tuple(self.listeners.items()):
            if sock not in beside.listeners.values():
                sock.close()
                del self.listeners[name]

    # --- walls ----------------------------------------------------------------------------------------

    def _try_walls(self, roles: Sequence[Role]) -> Finding:
        for role in roles:
            if role.main:
                child.load(role.main)  # what it reads later is known by what it has loaded
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

    # --- whom its processes ask -----------------------------------------------------------------------

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

    def sockets(self) -> dict[str, socket.socket]:
        """Listening sockets of ours, by the word that a role's `needs` have for them."""
        found = {name: sock for name, sock in self.ground.sockets.items() if name in self._common}
        found |= {name: sock for name, (sock, _) in self._beside.items()}
        return found | ({"metrics": self._metrics} if self._metrics is not None else {})
