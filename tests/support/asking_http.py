"""Asking over HTTP as a scraper does, and as nobody should: bytes there, status, fields and body back."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Response:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def connect(where: Path | str | tuple[str, int]) -> socket.socket:
    """Path of a unix socket, or (host, port)."""
    family = socket.AF_INET if isinstance(where, tuple) else socket.AF_UNIX
    connection = socket.socket(family)
    connection.settimeout(20)
    connection.connect(where if isinstance(where, tuple) else str(where))
    return connection


def raw(where: Path | str | tuple[str, int], data: bytes, *, end: bool = False) -> bytes:
    """All that comes back. `end`: nothing more is sent, and the server knows it."""
    with connect(where) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
        return b"".join(parts)


def read(answer: bytes) -> Response:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *rows = head.decode().split("\r\n")
    fields = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
    return Response(int(line.split()[1]), fields, body)


def get(where: Path | str | tuple[str, int], path: str = "/", method: str = "GET") -> Response:
    return read(raw(where, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()))
