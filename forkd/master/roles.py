"""Which processes are there? One row per role; master knows nothing of a role but its row.

A role that execs (the zygote) has no `main`: its way of starting is named by `starter`. Phases are
started in rising order, each ready before the next, and stopped in rising order of `stop_phase`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Literal

from forkd.config.schema import Config, PluginConfig, QmailQueue

Need = Literal[
    "listeners",
    "plugins",
    "grants",
    "pipes",
    "next_hops",
    "anvil",
    "broker",
    "qmgr",
    "probe",
    "workers",
    "proxy",
    "launcher",
    "control",
    "metrics",
    "counts",
    "poke_read",
    "poke_write",
    "trace_read",
    "trace_write",
    "lock",
]

Reach = Literal[
    "slot",
    "spool",
    "mailboxes",
    "next_hops",
    "crash",
    "state",
    "trace",
    "run",
    "users",
    "resolver",
    "etc",
    "accounts",
    "proc",
]
"""What a role may open; which paths that is in this configuration, rights.py says."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class May:
    """What a role is left with behind its walls, beside our code and the descriptors it is given.

    network   none: unix sockets alone; ask: questions by UDP; connect: TCP too, to the ports that name
              servers and granted targets have; relay: to those of name servers and next hops, and none where
              the configuration has no next hop over IP
    """

    reach: frozenset[Reach] = frozenset()
    network: Literal["none", "ask", "connect", "relay"] = "none"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One kind of process.

    main            `module:function`, called in the fork with RoleStart, returns the exit status
    starter         fork: as said; zygote: exec'd by zygotes.py, one for each plugin
    count           how many; for zygotes one for each plugin
    wanted          is there anything for it to do with these plugins?
    user            which key of [server] names the user it runs as when root starts us
    needs           what it is given beside its channel; everything else is closed
    may             what it may do; None: it is not walled in (zygotes wall themselves in; tests' own roles)
    may_gain        programs it starts may become other users: it is not given no_new_privs
    start_limit_s   until it must be ready; 0: sandbox.start_timeout
    stop_limit_s    until it must have ended after being told; None: stop_timeout, or no limit for a drain
    reload          after one that changed what it is given (given.py): renew: it is always another process;
                    beside: the next one is ready before it ends; after: it ends first; keep: it stays
    may_ask         may send AskStatus, AskStop and AskReload
    """

    name: str
    main: str = ""
    starter: Literal["fork", "zygote"] = "fork"
    count: Callable[[Config], int] = lambda _config: 1
    wanted: Callable[[Sequence[PluginConfig]], bool] = lambda _plugins: True
    user: Literal["user", "queue_user", "admin_user", "broker_user", "launcher_user"] = "user"
    needs: frozenset[Need] = frozenset()
    may: May | None = None
    may_gain: bool = False
    start_phase: int
    stop_phase: int
    start_limit_s: float = 30.0
    stop_limit_s: float | None = 10.0
    heartbeat: bool = True
    may_ask: bool = False
    reload: Literal["renew", "beside", "after", "keep"] = "keep"


def workers(config: Config) -> int:
    """How many there are at most: `server.workers`, or one per CPU that this process may use."""
    return config.server.workers or len(os.sched_getaffinity(0))


def least_workers(config: Config) -> int:
    """How many always run: `pool.min`, or all of them."""
    return min(config.pool.min or workers(config), workers(config))


def launchers(config: Config) -> int:
    """One, where a transport is a queue program."""
    return int(any(isinstance(table, QmailQueue) for table in config.transport.values()))


def proxied(config: Config) -> bool:
    """Does a listener's client wait for the next hop?"""
    return any(listener.accept == "proxy" for listener in config.listener.values())


def brokered(plugins: Sequence[PluginConfig]) -> bool:
    """Is there a plugin that was granted what the broker does?"""
    return any(plugin.capabilities.brokered for plugin in plugins)


ZYGOTE = Role(
    name="zygote",
    starter="zygote",
    start_phase=0,
    stop_phase=1,
    start_limit_s=0,
    stop_limit_s=2.0,
    heartbeat=False,
)
"""The supervisor makes one place of it for each plugin."""

PIPE = dataclasses.replace(ZYGOTE, stop_phase=3)
"""Of those that qmgr asks: it finishes what it delivers."""

ROLES: tuple[Role, ...] = (
    ZYGOTE,
    Role(
        name="anvil",
        main="forkd.anvil.main:main",
        user="admin_user",
        needs=frozenset({"anvil"}),
        may=May(),
        start_phase=1,
        stop_phase=3,
        stop_limit_s=3.0,
    ),
    Role(
        name="broker",
        main="forkd.broker.main:main",
        wanted=brokered,
        user="broker_user",
        needs=frozenset({"broker", "grants", "trace_write", "counts"}),
        may=May(reach=frozenset({"state", "resolver", "etc"}), network="connect"),
        start_phase=1,
        stop_phase=2,
        stop_limit_s=5.0,
        reload="beside",
    ),
    Role(
        name="launcher",
        main="forkd.launcher.main:main",
        count=launchers,
        user="launcher_user",
        needs=frozenset({"launcher"}),
        # No walls: they would be the queue program's too, which is setuid and needs what only it knows.
        may_gain=True,
        start_phase=1,
        stop_phase=3,
        stop_limit_s=3.0,
        reload="beside",
    ),
    Role(
        name="qmgr",
        main="forkd.qmgr.main:main",
        user="queue_user",
        needs=frozenset({"qmgr", "proxy", "poke_read", "pipes", "next_hops", "trace_write", "counts"}),
        may=May(reach=frozenset({"spool", "mailboxes", "next_hops", "proc"}), network="relay"),
        start_phase=1,
        stop_phase=2,
        # It looks at every file of the spool before it is ready.
        start_limit_s=600.0,
        reload="after",
    ),
    Role(
        name="admin",
        main="forkd.admin.main:main",
        user="admin_user",
        needs=frozenset({"control", "workers", "metrics", "trace_read", "lock"}),
        may=May(reach=frozenset({"run", "trace", "accounts"})),
        start_phase=1,
        stop_phase=4,
        stop_limit_s=3.0,
        may_ask=True,
        reload="beside",
    ),
    Role(
        name="worker",
        main="forkd.worker.main:main",
        count=least_workers,
        needs=frozenset({"listeners", "plugins", "poke_write", "trace_write", "counts", "probe"}),
        may=May(
            # proc: start time of this process, boot id, sizes of its sandboxes
            reach=frozenset({"slot", "crash", "users", "resolver", "proc"}),
            network="ask",
        ),
        start_phase=2,
        stop_phase=0,
        stop_limit_s=None,
        reload="renew",
    ),
)
