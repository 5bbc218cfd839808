"""What does a role get from master when it is forked?"""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import setproctitle


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RoleStart:
    """Everything a role's `main(start) -> exit status` is given; ids are already dropped.

    master     SEQPACKET end: FromRole up, ToRole down; end of file means master is gone.
    listeners  listening SMTP sockets by listener name (workers only).
    sockets    our own listening sockets by name: anvil, broker, qmgr, proxy, launcher, workers (SEQPACKET),
               control, metrics, probe (STREAM). They live in master, so they outlast a role's restart.
    plugins    for workers: plugin name -> path of its zygote's SEQPACKET socket; for qmgr: those of the
               transports' programs (master/pipes.py).
    anvil      for workers: path of anvil's socket.
    control    for workers: path of the socket on which admin asks them.
    broker     for workers: path of the broker's socket; empty where no plugin needs one.
    launcher   for qmgr: path of the launcher's socket; empty where no transport needs one.
    proxy      for workers: path of qmgr's socket for them; empty where no listener needs it.
    workers    how many workers there are (each applies limit / workers while anvil is away).
    poke       pipe to qmgr: workers hold the write end, qmgr the read end, both non-blocking.
               A poke is `<slot>/<queue id>\\n`, written at once (below PIPE_BUF, so never torn).
    trace      our end of a pair of SEQPACKET sockets (messages_trace.py): admin reads, whoever observes his
               log writes; None: nothing is kept (trace.keep = 0).
    metrics    descriptor of our slot (forkd/metrics_slot.py), for those that count; -1: nothing is counted.
    slots      for admin: name of a process' slot -> descriptor to read it by; of those that come later
               master tells (rpc.messages_metrics.SlotMade).
    certificates  for workers: name of a [certificate] -> descriptors of sealed memory files with its chain
               and its key, as they were when the worker was forked (rpc.messages.Certificate brings
               newer ones). They are master's too: whoever closes its own copies harms nobody.
    client_ca  for workers: descriptor of a sealed memory file with tls.client_ca, else -1.
    next_hops  for qmgr: name of a transport -> descriptors of sealed memory files, one for each of
               master.next_hop_files.KEYS: authorities, certificate, key, password; -1: it has none.
    names_calls  for workers: master may read which system calls the kernel refused, and tells
               (rpc.messages.RefusedCall).
    lock       for admin: the descriptor that keeps data_dir ours (master/runtime.py), else -1.
    overflow   for admin: uid and gid that stand for all whom our user namespace does not know
               (user_namespaces(7)); -1: it knows all.
    """

    role: str
    slot: int
    generation: int
    config: Any
    """forkd.config.schema.Config; typed Any here because rpc imports nothing of ours."""
    master: socket.socket
    listeners: dict[str, socket.socket] = dataclasses.field(default_factory=dict)
    sockets: dict[str, socket.socket] = dataclasses.field(default_factory=dict)
    plugins: dict[str, str] = dataclasses.field(default_factory=dict)
    plugin_hashes: dict[str, str] = dataclasses.field(default_factory=dict)
    """For workers: plugin name -> hash of its files as they were loaded; not of groups."""
    plugin_configs: tuple[Any, ...] = ()
    """forkd.config.schema.PluginConfig of each plugin that is on, in the order in which they are asked."""
    anvil: str = ""
    control: str = ""
    broker: str = ""
    launcher: str = ""
    proxy: str = ""
    aliases: Any = None
    """For workers and qmgr: forkd.config.aliases.Aliases; None: there are none."""
    workers: int = 1
    poke: int = -1
    trace: socket.socket | None = None
    metrics: int = -1
    slots: dict[str, int] = dataclasses.field(default_factory=dict)
    certificates: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    client_ca: int = -1
    next_hops: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    names_calls: bool = False
    lock: int = -1
    overflow: tuple[int, int] = (-1, -1)

    def title(self, state: str) -> None:
        """Show `state` in ps and top, e.g. `forkd: worker 0 gen 1 [running 12 sessions]`. Cheap (3 µs)."""
        setproctitle.setproctitle(f"forkd: {self.role} {self.slot} gen {self.generation} [{state}]")
