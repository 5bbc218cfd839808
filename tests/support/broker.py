"""A real broker process for tests, on a socket of its own, with grants that the test chooses."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import socket
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forkd import log
from forkd.broker.main import main
from forkd.config.schema import Capabilities, Config, Dns, PluginLimits, Server, State
from forkd.master.child import close_others
from forkd.rpc import channel
from forkd.rpc.messages import FromRole, Heartbeat, Ready, Stop
from forkd.rpc.start import RoleStart


@dataclasses.dataclass(frozen=True)
class Plugin:
    """What the broker reads of a PluginConfig."""

    name: str
    capabilities: Capabilities
    limits: PluginLimits


class Broker:
    """One listening socket, which outlives the process as master's does; start() again after kill()."""

    def __init__(
        self,
        folder: Path,
        plugins: Mapping[str, Capabilities],
        *,
        dns: Dns | None = None,
        state: State | None = None,
        reuse: int = 100,
    ) -> None:
        self.folder = folder
        self.path = folder / "broker.sock"
        self.log = folder / "broker.log"
        self._plugins = tuple(
            Plugin(name, granted, PluginLimits(reuse=reuse)) for name, granted in plugins.items()
        )
        self._config = Config(server=Server(data_dir=folder), dns=dns or Dns(), state=state or State())
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen(1024)
        self._listener.setblocking(False)
        (folder / "state").mkdir(mode=0o700, exist_ok=True)
        self._master: socket.socket | None = None
        self.pid = 0

    def start(self) -> None:
        """Fork it; returns when it serves."""
        ours, theirs = channel.pair()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                log.setup("logfmt", "info", fd)
                # As master does it: what else this process holds (leashes of sandboxes) is not the broker's.
                close_others([self._listener.fileno(), theirs.fileno(), log.descriptor()])
                start = RoleStart(
                    role="broker",
                    slot=0,
                    generation=1,
                    config=self._config,
                    master=theirs,
                    sockets={"broker": self._listener},
                    plugin_configs=self._plugins,
                )
                status = main(start)
                log.finish()
            except BaseException:
                traceback.print_exc()  # its parent knows only that it ended
            finally:
                os._exit(status)
        theirs.close()
        self._master = ours
        ours.settimeout(30)
        assert isinstance(self._heard(), Ready)

    def _heard(self) -> Any:
        assert self._master is not None
        return channel.receive(self._master, FromRole)

    def beat(self) -> Heartbeat:
        """The next heartbeat: it is sent from the loop that does the work, once a second."""
        message = self._heard()
        assert isinstance(message, Heartbeat), message
        return message

    def newest_beat(self) -> Heartbeat:
        """One that was made after this call."""
        assert self._master is not None
        while select.select([self._master], [], [], 0)[0]:
            self._heard()
        return self.beat()

    def kill(self) -> None:
        """SIGKILL, as the kernel or a bug would."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._let_go()

    def stop(self) -> int:
        """As master stops it; its exit status."""
        assert self._master is not None
        channel.send(self._master, Stop(deadline_s=5.0))
        _, status = os.waitpid(self.pid, 0)
        self._let_go()
        return os.waitstatus_to_exitcode(status)

    def _let_go(self) -> None:
        self.pid = 0
        if self._master is not None:
            self._master.close()
            self._master = None

    def lines(self, event: str) -> list[str]:
        """Of its log."""
        return [line for line in self.log.read_text().splitlines() if f"event={event}" in line]

    def descriptors(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def close(self) -> None:
        """The socket too. That it ended by itself is told before what the test missed from it."""
        try:
            if self.pid:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                assert not ended, f"the broker ended: {status=:#x}\n{self.log.read_text()}"
                self.kill()
        finally:
            self._listener.close()


@contextlib.contextmanager
def broker(folder: Path, plugins: Mapping[str, Capabilities], **settings: Any) -> Iterator[Broker]:
    """A broker that runs, and none afterwards."""
    made = Broker(folder, plugins, **settings)
    try:
        made.start()
        yield made
    finally:
        made.close()
