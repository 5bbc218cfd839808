"""Who are we, and which processes are there? The tables [server] and [pool]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from forkd.config.table import DAY, Between, CountOrNone, Table, Text, Wait
from forkd.config.units import Bytes, Seconds


class Server(Table, frozen=True):
    """[server]: who we are, where we write, how many processes."""

    hostname: str = ""
    """Name in greeting, Received and EHLO reply; empty: the machine's own name."""
    greeting: str = "ESMTP"
    """Behind the host name in the greeting; further lines after each line end (RFC 5321 4.2)."""
    qmail_control: Path | None = None
    """Folder with qmail's control files: they give what this file leaves out (plugins/INDIMAIL.md)."""
    data_dir: Path = Path("var")
    """spool/, mail/ (default Maildirs), run/ (sockets) lie here."""
    user: Text = "forkd"
    """Who workers run as when root starts us."""
    queue_user: Text = "forkd-queue"
    """Who qmgr runs as: it alone may read the spool and write Maildirs."""
    admin_user: Text = "forkd-admin"
    """Who the control socket and the counters run as: they need no mail."""
    broker_user: Text = "forkd-broker"
    """Who the broker runs as: the network for DNS and granted targets, the state store, and no mail."""
    launcher_user: Text = "forkd-launcher"
    """Who queue programs are started as (transports of kind "qmail-queue"); no other role's user. qmail's own
    Received field names it: with "qmaild" it says `invoked from network`."""
    workers: Annotated[int, Between(0, 1024)] = 0
    """Worker processes, at most; 0: one per CPU this process may use. [pool] says how many of them run."""
    heartbeat: Annotated[Seconds, Between(2, 3600)] = Seconds(10)
    """A worker or zygote whose loop stood still for so long is killed and replaced: the one beats once a
    second, the other is asked ten times in it."""
    stop_timeout: Annotated[Seconds, Between(0, DAY)] = Seconds(30)
    """How long TERM lets transactions finish. systemd is asked for the time, whatever its TimeoutStopSec."""


class Pool(Table, frozen=True):
    """[pool]: how many of server.workers run, and for how long each."""

    min: Annotated[int, Between(0, 1024)] = 0
    """So many always run, and more, up to server.workers, while there is load for them; 0: all of them: an
    idle one costs memory alone, and nobody waits for one to start."""
    spare: Annotated[int, Between(1, 90)] = 25
    """Percent of the running workers' places (limits.sessions each). Fewer are free: one more is started."""
    busy: Annotated[int, Between(1, 100)] = 75
    """Percent of a processor. All of them together are busier for three seconds: one more is started."""
    idle: Wait = Seconds(300)
    """When one fewer would have been enough for so long, by a margin, one goes; its sessions end in peace."""
    retire_sessions: CountOrNone = 0
    """A worker that has served so many is replaced, its successor first; 0: never. One in use leaks nothing
    that we know of; Postfix (max_use) and Apache (MaxConnectionsPerChild) have such a limit for what nobody
    knows of."""
    retire_memory: Annotated[Bytes, Between(0, 1 << 50)] = Bytes(1 << 30)
    """The same, for one with so much memory of its own; 0: never. A fresh one has some 40 MiB
    by this count, in which what it has from master is. 10,000 sessions need some 160 MiB."""
