"""PROCESS master: starts, watches and stops all others.

runs as        root, or the user who calls `forkd run`
holds          listening sockets, our own sockets, the lock on data_dir, a channel to every child
reads from     its children (typed records, never believed beyond that), signals; nothing from the network
if taken over  everything: so it parses nothing from the network and runs no plugin
restart        by systemd; it does not survive its own bugs
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence

import setproctitle

import forkd
from forkd import log
from forkd.config.load import LoadedConfig
from forkd.config.schema import Config, PluginConfig
from forkd.exits import Exit
from forkd.master import (
    child,
    folders,
    listeners,
    metrics_socket,
    privileges,
    refusals,
    rights,
    role_trial,
    zygote_places,
)
from forkd.master.certificates import Certificates
from forkd.master.child import Child, Main
from forkd.master.errors import StartError
from forkd.master.greeting import first_minute
from forkd.master.next_hop_files import NextHopFiles
from forkd.master.notify import Notifier
from forkd.master.place import Place
from forkd.master.pool import Slot
from forkd.master.privileges import Identities
from forkd.master.refusals import Refusals
from forkd.master.roles import PIPE, ROLES, Role, brokered, launchers, proxied, workers
from forkd.master.roster import Roster
from forkd.master.runtime import Runtime
from forkd.master.signals import Signals
from forkd.master.status import Service
from forkd.master.supervisor import Supervisor
from forkd.master.zygotes import Zygote
from forkd.rpc import places, tracing
from forkd.rpc.start import RoleStart
from forkd.sandbox.role_walls import Walls
from forkd.sandbox.selftest import Finding

GENERATION = 1
"""Of the configuration; a reload counts it up."""


def run(loaded: LoadedConfig, *, roles: Sequence[Role] = ROLES) -> int:
    """Run the daemon until it is stopped; return the exit status (exits.py).

    roles   the table; another one for tests
    """
    config = loaded.config
    log.setup(config.log.format, config.log.level)
    log.identify("master")
    log.service(
        act="starting", version=forkd.__version__, pid=os.getpid(), config=str(loaded.file or "defaults")
    )
    setproctitle.getproctitle()  # finds its place behind the environment, which the next line changes
    notifier = Notifier()
    signals = Signals()
    status: int = Exit.OK
    try:
        with Daemon(loaded, notifier, signals) as daemon:
            daemon.open()
            daemon.supervise(roles)
    except StartError as error:
        status = error.status
        log.service(act="failed", detail=str(error), level="error")
        notifier.failed(str(error))
        if error.detail:
            log.finish()
            print(error.detail.rstrip(), file=sys.stderr, flush=True)
    except Exception as error:  # the process boundary: nothing is left running, systemd starts us anew
        status = Exit.BUG
        log.bug(where="master", error=error)
    finally:
        log.service(act="stopped")
        log.finish()
        signals.close()
    return status


class Daemon:
    """What master holds, in the order in which it is opened; all of it is gone after the with block."""

    def __init__(self, loaded: LoadedConfig, notifier: Notifier, signals: Signals) -> None:
        self._loaded = loaded
        self._config: Config = loaded.config
        self._notifier = notifier
        self._signals = signals
        self._brokered = brokered(loaded.plugins)
        self._launching = bool(launchers(loaded.config))
        self._proxied = proxied(loaded.config)
        self._notes = list(loaded.notes)
        self._started_at = time.time()
        self._cleanup = contextlib.ExitStack()
        self._identities = Identities({})
        self._sockets: dict[str, socket.socket] = {}
        self._listeners: dict[str, socket.socket] = {}
        self._zygotes: list[Zygote] = []
        self._layers: dict[str, str] = {}
        self._poke = (-1, -1)
        self._trace: dict[str, socket.socket] = {}
        self._certificates = Certificates(loaded.config)
        self._next_hops = NextHopFiles(loaded.config)
        self._refusals: Refusals | None = None
        self._runtime: Runtime

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def open(self) -> None:
        """Ids, folders, sockets, walls. Raises StartError; nothing has been started then."""
        config = self._config
        inherited = listeners.passed()
        for each in inherited:
            self._cleanup.callback(each.sock.close)
        os.umask(0o077)
        _raise_file_limit()
        privileges.become_subreaper()
        self._identities = self._decide_identities()
        self._runtime = Runtime(config.server.data_dir, self._identities)
        self._runtime.hold()
        self._cleanup.callback(self._runtime.clear)
        folders.check_users(config, self._identities)
        self._certificates.open()
        self._cleanup.callback(self._certificates.close)
        self._next_hops.open()
        self._cleanup.callback(self._next_hops.close)
        self._listeners = listeners.open_all(config.listener, inherited)
        self._notes += listeners.mismatches(self._listeners, inherited)
        for sock in self._listeners.values():
            self._cleanup.callback(sock.close)
        folders.make(config, self._loaded.plugins, self._identities)
        listen = self._runtime.listen
        self._sockets = {
            "control": listen(places.CONTROL, socket.SOCK_STREAM, mode=0o666, owner="admin_user"),
            "qmgr": listen(places.QMGR, socket.SOCK_SEQPACKET, mode=0o600, owner="admin_user"),
            "anvil": listen(places.ANVIL, socket.SOCK_SEQPACKET, mode=0o600, owner="user"),
        }
        if config.probe.enabled:
            self._sockets["probe"] = listen(places.PROBE, socket.SOCK_STREAM, mode=0o600, owner="admin_user")
        if self._brokered:
            self._sockets["broker"] = listen(places.BROKER, socket.SOCK_SEQPACKET, mode=0o600, owner="user")
        if self._proxied:
            self._sockets["proxy"] = listen(places.PROXY, socket.SOCK_SEQPACKET, mode=0o600, owner="user")
        if self._launching:
            place = places.LAUNCHER
            self._sockets["launcher"] = listen(place, socket.SOCK_SEQPACKET, mode=0o600, owner="queue_user")
            self._notes += rights.launcher_notes(config)
        for sock in self._sockets.values():
            self._cleanup.callback(sock.close)
        if metrics := metrics_socket.listen(config.metrics.listen, self._runtime):
            self._sockets["metrics"] = metrics
            self._cleanup.callback(metrics_socket.close, metrics)
        self._poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for end in self._poke:
            self._cleanup.callback(os.close, end)
        if config.trace.keep:
            self._trace = dict(zip(("trace_read", "trace_write"), tracing.pair(), strict=True))
            for sock in self._trace.values():
                self._cleanup.callback(sock.close)

    def supervise(self, roles: Sequence[Role]) -> None:
        """Put up the walls, start every role, and stay until all have been stopped. Raises StartError."""
        roles = [role for role in roles if role.wanted(self._loaded.plugins)]
        if any(role.starter == "zygote" for role in roles):
            self._open_zygotes(self._try_roles(roles))
        for note in self._notes:
            log.config_note(note=note)
        service = Service(
            version=forkd.__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            hostname=self._config.server.hostname,
            listeners={name: listeners.shown(sock) for name, sock in self._listeners.items()},
            durability=self._config.queue.durability,
            sandbox=self._layers,
            notes=tuple(self._notes),
        )
        supervisor = Supervisor(
            Roster(place for role in roles for place in self._places(role)),
            signals=self._signals,
            notifier=self._notifier,
            service=service,
            stop_timeout_s=float(self._config.server.stop_timeout),
            on_ready=self._say_ready,
            certificates=self._certificates,
            refusals=self._refusals,
        )
        # Collecting writes to every object it looks at. What children share with us is none of theirs: with
        # this a worker has 6 MiB of its own instead of 19.
        gc.collect()
        gc.freeze()
        # Whatever happens in the loop, no child outlives it.
        self._cleanup.callback(supervisor.abandon)
        supervisor.run()

    # --- ids ------------------------------------------------------------------------------------------

    def _decide_identities(self) -> Identities:
        identities = privileges.decide(
            self._config.server,
            must_reach=[rights.existing(self._config.server.data_dir)],
            keys=(
                *privileges.USERS,
                *((privileges.BROKER_USER,) if self._brokered else ()),
                *((privileges.LAUNCHER_USER,) if self._launching else ()),
            ),
        )
        if identities.problem:
            if self._loaded.file is not None:
                raise StartError(Exit.UNCONFINED, f"started by root, but {identities.problem}")
            self._notes.append(f"everything runs as root: {identities.problem}")
        elif os.geteuid() != 0:
            self._notes.append(f"not started by root: all processes share uid {os.geteuid()}")
        return identities

    # --- plugins --------------------------------------------------------------------------------------

    def _open_zygotes(self, tried: Finding) -> None:
        """`tried`: the walls of the roles."""
        behind = zygote_places.Behind(self._runtime, self._identities, tried, self._notes)
        self._zygotes, self._layers = zygote_places.prepare(self._loaded, behind)
        for zygote in self._zygotes:
            self._cleanup.callback(zygote.listener.close)
        self._refusals = refusals.listen((zygote.spec.uid, zygote.spec.name) for zygote in self._zygotes)
        if self._refusals is not None:
            self._cleanup.callback(self._refusals.close)

    # --- roles ----------------------------------------------------------------------------------------

    def _places(self, role: Role) -> list[Place]:
        if role.starter == "zygote":
            limit_s = role.start_limit_s or self._config.sandbox.start_timeout
            return [
                Place(
                    PIPE if zygote.asked_by == zygote_places.QMGR else role,
                    Slot(role.name, index, zygote.spec.name, start_limit_s=limit_s),
                    zygote.start,
                )
                for index, zygote in enumerate(self._zygotes)
            ]
        main = _load(role)
        beat_s = self._config.server.heartbeat if role.heartbeat else 0.0
        return [
            Place(
                role,
                Slot(role.name, number, start_limit_s=role.start_limit_s, beat_limit_s=beat_s),
                functools.partial(self._fork, role, main, number),
            )
            for number in range(role.count(self._config))
        ]

    def _fork(self, role: Role, main: Main, number: int) -> Child:
        make_start = functools.partial(self._start, role, number)
        forked = child.fork(
            main,
            make_start,
            self._identities.by_key.get(role.user),
            self._walls(role, number),
            may_gain=role.may_gain,
        )
        if "listeners" in role.needs:
            self._certificates.forked(forked)
        return forked

    def _try_roles(self, roles: Sequence[Role]) -> Finding:
        for role in roles:
            if role.main:
                _load(role)  # what it reads later is known by what it has loaded
        subjects = [
            role_trial.Subject(name=role.name, identity=self._identities.by_key.get(role.user), walls=raised)
            for role in roles
            if role.count(self._config) and (raised := self._walls(role)) is not None
        ]
        found = role_trial.examine(subjects, self._config.server.data_dir)
        if found.result != "enforced":
            self._notes.append(f"walls of our own processes: {found.detail}")
        self._notes += rights.notes(self._config)
        return found

    def _walls(self, role: Role, number: int = 0) -> Walls | None:
        if role.may is None:
            return None
        return rights.walls(
            role.may, rights.Setting(config=self._config, plugins=self._loaded.plugins, slot=number)
        )

    def _start(self, role: Role, number: int, master: socket.socket) -> RoleStart:
        """What this process is given: what its row needs, and nothing else."""
        needs = role.needs
        with_plugins = "plugins" in needs
        run = self._runtime.folder
        plugins: tuple[PluginConfig, ...] = ()
        if with_plugins or "grants" in needs:
            plugins = self._loaded.plugins
        asks = "user" if with_plugins else zygote_places.QMGR if "pipes" in needs else ""
        asked = [zygote.spec.name for zygote in self._zygotes if zygote.asked_by == asks]
        return RoleStart(
            role=role.name,
            slot=number,
            generation=GENERATION,
            config=self._config,
            master=master,
            listeners=self._listeners if "listeners" in needs else {},
            sockets={name: sock for name, sock in self._sockets.items() if name in needs},
            plugins={name: str(places.plugin_socket(run, name)) for name in asked},
            plugin_configs=plugins,
            plugin_hashes={
                zygote.spec.name: zygote.files.digests.get(zygote.spec.name, "")
                for zygote in (self._zygotes if with_plugins else ())
                if zygote.files is not None
            },
            anvil=str(run / places.ANVIL),
            broker=str(run / places.BROKER) if with_plugins and self._brokered else "",
            launcher=str(run / places.LAUNCHER) if self._launching and "qmgr" in needs else "",
            proxy=str(run / places.PROXY) if self._proxied and "listeners" in needs else "",
            aliases=self._loaded.aliases if needs & {"listeners", "poke_read"} else None,
            workers=workers(self._config),
            poke=self._poke[0] if "poke_read" in needs else self._poke[1] if "poke_write" in needs else -1,
            trace=next((end for need, end in self._trace.items() if need in needs), None),
            certificates=self._certificates.pairs if "listeners" in needs else {},
            client_ca=self._certificates.client_ca if "listeners" in needs else -1,
            next_hops=self._next_hops.current() if "next_hops" in needs else {},
            names_calls=self._refusals is not None,
            lock=self._runtime.lock,
            overflow=privileges.overflow(),
        )

    def _say_ready(self) -> None:
        log.service(act="ready", seconds=round(time.time() - self._started_at, 3))
        if self._loaded.file is None:
            log.flush()
            address = listeners.shown(next(iter(self._listeners.values())))
            print(first_minute(self._loaded, address), file=sys.stderr, flush=True)


def _load(role: Role) -> Main:
    try:
        return child.load(role.main)
    except (ImportError, AttributeError) as error:
        raise StartError(Exit.BUG, f"{role.main} cannot be imported: {error}") from error


def _raise_file_limit() -> None:
    """As many descriptors as we may have: a session is one, and workers hold up to 10,000."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
