"""A client that says a line and reads the whole reply, with TLS where it is asked to."""

from __future__ import annotations

import base64
import socket
import ssl
from pathlib import Path

from tests.support.daemon import Daemon


class Talker:
    """One connection to a daemon.

    listener  by its name in the configuration
    implicit  TLS from the first octet
    before    octets sent before all else (a PROXY header)
    greeted   the greeting is read, and must be 220
    """

    def __init__(
        self,
        daemon: Daemon,
        *,
        listener: str = "default",
        source: str = "127.0.0.1",
        implicit: bool = False,
        before: bytes = b"",
        greeted: bool = True,
    ) -> None:
        lines = [each for each in daemon.events("listening") if each["listener"] == listener]
        port = int(lines[-1]["address"].rpartition(":")[2])
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))
        self._file = self._socket.makefile("rb")
        daemon.clients.append(self._socket)
        self._daemon = daemon
        if before:
            self._socket.sendall(before)
        if implicit:
            self._shake_hands()
        if greeted:
            greeting = self.read()
            assert greeting.startswith("220"), greeting

    def read(self) -> str:
        """One reply, all its lines; empty where the server has closed."""
        lines = []
        while True:
            line = self._file.readline().decode()
            lines.append(line)
            if line[3:4] != "-":
                return "".join(lines)

    def say(self, line: str) -> str:
        """A command, and the reply to it."""
        self.send(line.encode() + b"\r\n")
        return self.read()

    def send(self, octets: bytes) -> None:
        """Octets as they are; nothing is read."""
        self._socket.sendall(octets)

    def plain(self, user: str, password: str) -> str:
        """AUTH PLAIN at once."""
        return self.say("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())

    def start_tls(self) -> None:
        """STARTTLS, which must be accepted, and the handshake."""
        said = self.say("STARTTLS")
        assert said.startswith("220"), said
        self._shake_hands()

    def closed(self) -> bool:
        """The server has closed, and said nothing more."""
        return self._file.read() == b""

    def _shake_hands(self) -> None:
        context = ssl.create_default_context(cafile=str(Path(self._daemon.folder) / "ca.pem"))
        context.check_hostname = False
        secured = context.wrap_socket(self._socket)
        self._daemon.clients.append(secured)
        self._socket = secured
        self._file = secured.makefile("rb")
