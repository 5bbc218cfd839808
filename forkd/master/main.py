"""PROCESS master: starts, watches and stops all others.

runs as        root, or the user who calls `forkd run`
holds          listening sockets, our own sockets, the lock on data_dir, a channel to every child
reads from     its children (typed records, never believed beyond that), signals; nothing from the network
if taken over  everything: so it parses nothing from the network and runs no plugin
restart        by systemd; it does not survive its own bugs
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence

import setproctitle

import forkd
from forkd import log
from forkd.config.load import LoadedConfig, load
from forkd.config.schema import Config
from forkd.exits import Exit
from forkd.master import listeners, privileges, refusals, rights
from forkd.master.errors import StartError
from forkd.master.generation import Generation, drop_all
from forkd.master.greeting import first_minute
from forkd.master.ground import Ground
from forkd.master.notify import Notifier
from forkd.master.privileges import Identities
from forkd.master.reload import Reloads
from forkd.master.roles import ROLES, Role, brokered, launchers
from forkd.master.roster import Roster
from forkd.master.runtime import Runtime
from forkd.master.signals import Signals
from forkd.master.supervisor import Supervisor
from forkd.master.workforce import WORKER, Workforce


def run(
    loaded: LoadedConfig,
    *,
    roles: Sequence[Role] = ROLES,
    read: Callable[[], LoadedConfig] | None = None,
) -> int:
    """Run the daemon until it is stopped; return the exit status (exits.py).

    roles   the table; another one for tests
    read    the configuration as its files are when it is called, for a reload; raises ConfigError
    """
    config = loaded.config
    # For all that are forked too: of a crash in C our own line has nothing but the signal.
    faulthandler.enable(file=2, all_threads=False)
    try:
        log.setup(config.log.format, config.log.level)
    except log.NoJournalError as error:
        print(f"forkd: {error}", file=sys.stderr, flush=True)
        return Exit.CONFIG
    log.identify("master")
    log.service(
        act="starting", version=forkd.__version__, pid=os.getpid(), config=str(loaded.file or "defaults")
    )
    setproctitle.getproctitle()  # finds its place behind the environment, which the next line changes
    notifier = Notifier()
    signals = Signals()
    status: int = Exit.OK
    try:
        with Daemon(loaded, notifier, signals, read or functools.partial(load, loaded.file)) as daemon:
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

    def __init__(
        self,
        loaded: LoadedConfig,
        notifier: Notifier,
        signals: Signals,
        read: Callable[[], LoadedConfig],
    ) -> None:
        self._read = read
        self._loaded = loaded
        self._config: Config = loaded.config
        self._notifier = notifier
        self._signals = signals
        self._notes: list[str] = []
        self._started_at = time.time()
        self._cleanup = contextlib.ExitStack()
        self._ground: Ground

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def open(self) -> None:
        """Ids, the hold on data_dir. Raises StartError; nothing has been started then."""
        config = self._config
        inherited = listeners.passed()
        for each in inherited:
            self._cleanup.callback(each.sock.close)
        os.umask(0o077)
        _raise_file_limit()
        privileges.become_subreaper()
        identities = self._decide_identities()
        runtime = Runtime(config.server.data_dir, identities)
        runtime.hold()
        self._cleanup.callback(runtime.clear)
        self._ground = Ground(runtime, identities, Roster(), inherited=inherited, started_at=self._started_at)
        self._cleanup.callback(self._ground.close)
        self._ground.open_pipe()
        self._ground.metrics.begin()

    def supervise(self, roles: Sequence[Role]) -> None:
        """Open the first generation, start every role, and stay until all have been stopped.

        Raises StartError.
        """
        ground = self._ground
        first = Generation(1, self._loaded, ground)
        first.notes += self._notes
        wanted = [role for role in roles if role.wanted(self._loaded.plugins)]
        first.open(wanted)
        living = [first]
        self._cleanup.callback(drop_all, living)
        ground.refusals = refusals.listen((zygote.spec.uid, zygote.spec.name) for zygote in first.zygotes)
        for note in first.notes:
            log.config_note(note=note)
        for place in first.places(wanted):
            ground.roster.add(place)
        supervisor = Supervisor(
            ground.roster,
            signals=self._signals,
            notifier=self._notifier,
            service=first.service(),
            stop_timeout_s=float(self._config.server.stop_timeout),
            on_ready=functools.partial(self._say_ready, first),
            certificates=first.certificates,
            refusals=ground.refusals,
        )
        reloads = Reloads(living, roles, supervisor, read=self._read, prepare=self._know_users)
        supervisor.tasks += [reloads, ground.metrics]
        supervisor.reloader = reloads
        if any(role.name == WORKER for role in wanted):
            supervisor.tasks.append(
                Workforce(supervisor, current=lambda: reloads.current, held=lambda: reloads.busy)
            )
        # Collecting writes to every object it looks at. What children share with us is none of theirs: with
        # this a worker has 6 MiB of its own instead of 19.
        gc.collect()
        gc.freeze()
        # Whatever happens in the loop, no child outlives it.
        self._cleanup.callback(supervisor.abandon)
        supervisor.run()

    # --- ids ------------------------------------------------------------------------------------------

    def _know_users(self, loaded: LoadedConfig) -> None:
        """Users whom a reload needs and nobody needed until now. Raises StartError."""
        ground = self._ground
        if ground.identities.by_key and not ground.identities.by_key.keys() >= set(_keys(loaded)):
            found = _identities(loaded)
            if found.problem:
                raise StartError(Exit.UNCONFINED, found.problem)
            ground.know(found)

    def _decide_identities(self) -> Identities:
        identities = _identities(self._loaded)
        if identities.problem:
            if self._loaded.file is not None:
                raise StartError(Exit.UNCONFINED, f"started by root, but {identities.problem}")
            self._notes.append(f"everything runs as root: {identities.problem}")
        elif os.geteuid() != 0:
            self._notes.append(f"not started by root: all processes share uid {os.geteuid()}")
        return identities

    def _say_ready(self, first: Generation) -> None:
        log.service(act="ready", seconds=round(time.time() - self._started_at, 3))
        if self._loaded.file is None:
            log.flush()
            address = listeners.shown(next(iter(first.listeners.values())))
            print(first_minute(self._loaded, address), file=sys.stderr, flush=True)


def _keys(loaded: LoadedConfig) -> tuple[str, ...]:
    """Of [server], which name the users that there will be."""
    return (
        *privileges.USERS,
        *((privileges.BROKER_USER,) if brokered(loaded.plugins) else ()),
        *((privileges.LAUNCHER_USER,) if launchers(loaded.config) else ()),
    )


def _identities(loaded: LoadedConfig) -> Identities:
    server = loaded.config.server
    return privileges.decide(server, must_reach=[rights.existing(server.data_dir)], keys=_keys(loaded))


def _raise_file_limit() -> None:
    """As many descriptors as we may have: a session is one, and workers hold up to 10,000."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
