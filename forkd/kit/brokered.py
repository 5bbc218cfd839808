"""Who answers a plugin's capability calls in the kit? forkd's own broker, in a process beside it.

The same code with the same quotas, its state in the kit's throw-away folder: what is looked up is looked
up for real, and a connection goes where --connect says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Final

import msgspec

from forkd.broker.main import main as broker_main
from forkd.config.schema import Config, PluginConfig
from forkd.rpc import places
from forkd.rpc.start import RoleStart

UID_OFFSET: Final = 60_000
"""From sandbox.uid_base, where root started us: none of a plugin's."""


class Broker:
    """A broker process, until close(). `path` is its socket."""

    def __init__(self, plugin: PluginConfig, config: Config, data_dir: Path, folder: Path) -> None:
        """Fork it. folder: for its socket. Raises OSError."""
        server = msgspec.structs.replace(config.server, data_dir=data_dir)
        config = msgspec.structs.replace(config, server=server)
        self.path = str(folder / places.BROKER)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._master, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(self.path)
            listener.listen(16)
            listener.setblocking(False)
            theirs.setblocking(False)
            uid = config.sandbox.uid_base + UID_OFFSET if os.geteuid() == 0 else None
            store = places.state_file(data_dir).parent
            store.mkdir(parents=True, exist_ok=True)
            if uid is not None:
                os.chown(store, uid, uid)
            start = RoleStart(
                role="broker",
                slot=0,
                generation=0,
                config=config,
                master=theirs,
                sockets={"broker": listener},
                plugin_configs=(plugin,),
            )
            self._pid = os.fork()
            if self._pid == 0:
                _become(start, uid, self._master)
        finally:
            listener.close()
            theirs.close()

    def close(self) -> None:
        """End it; what it kept is gone with the kit's folder."""
        self._master.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _become(start: RoleStart, uid: int | None, master: socket.socket) -> None:
    """In the new process; never returns."""
    status = 1
    try:
        asyncio._set_running_loop(None)  # the kit's, which stays with the kit
        master.close()
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        status = broker_main(start)
    finally:
        os._exit(status)
