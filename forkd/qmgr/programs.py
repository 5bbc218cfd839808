"""How does qmgr have a program started? By the launcher, over a connection that is that program's life."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from forkd.deliver.programs import Ending, HostGone
from forkd.rpc import channel, passing
from forkd.rpc.messages import Launch, Launched


class Launcher:
    """The launcher's socket at `path`, as deliver.programs.ProgramHost. Usable from any thread.

    The socket is master's and outlives a launcher: while none runs, a connection waits for the next one.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def start(self, transport: str, descriptors: Sequence[int]) -> Running:
        """As ProgramHost.start."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            connection.connect(self._path)
            if not passing.try_send(connection, Launch(transport=transport), descriptors):
                raise HostGone("it takes no request")
        except HostGone:
            connection.close()
            raise
        except OSError as error:
            connection.close()
            raise HostGone(f"cannot be reached: {error.strerror}") from error
        return Running(connection)


class Running:
    """One program: deliver.programs.Program."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Readable when it has ended, or its launcher."""
        return self._connection.fileno()

    def ending(self) -> Ending:
        """What came of it. Raises HostGone."""
        self._connection.setblocking(True)
        launched: Launched | None
        try:
            launched = channel.receive(self._connection, Launched)
        except channel.BadRecord as error:
            raise HostGone(str(error)) from error
        if launched is None:
            raise HostGone("lost while the program ran")
        return Ending(launched.status, late=launched.late, error=launched.error)

    def close(self) -> None:
        """The launcher kills it, if it still runs."""
        self._connection.close()
