"""What does a plugin read of the kit's message? A sealed memory file, as a worker gives it."""

from __future__ import annotations

import os

from forkd.sdk.headers import missing_end, split_header
from forkd.sealed import sealed


def wire(octets: bytes) -> bytes:
    """As it comes over the wire: every line ends in CRLF, the last one too."""
    octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return octets if not octets or octets.endswith(b"\r\n") else octets + b"\r\n"


class Letter:
    """One message, for the hook of that name (forkd.hooks' MessageCopies). Call close() when it is over."""

    def __init__(self, octets: bytes) -> None:
        self._header = octets[: split_header(octets)]
        self._body = octets[len(self._header) :]
        self._fds: dict[str, int] = {}

    @property
    def size(self) -> int:
        return len(self._header) + len(self._body)

    @property
    def header_size(self) -> int:
        return len(self._header)

    @property
    def body(self) -> bytes:
        """As plugins have left it."""
        return self._body

    def headers_fd(self) -> int:
        """A sealed copy of the header."""
        return self._copy("headers", self._header)

    def full_fd(self) -> int:
        """A sealed copy of header and body."""
        return self._copy("full", self._header + self._body)

    def keep(self, what: str) -> _Kept:
        """The copy "headers" or "full", for longer than the hook."""
        return _Kept(os.dup(self.full_fd() if what == "full" else self.headers_fd()))

    def body_sink(self, size: int) -> _Sink:
        """For a new body."""
        return _Sink(self, size)

    def take(self, body: bytes) -> None:
        """Another body, from now on."""
        self._header += missing_end(self._header)
        self._body = wire(body)
        self.close()

    def close(self) -> None:
        """Close the copies; idempotent."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def _copy(self, kind: str, octets: bytes) -> int:
        if kind not in self._fds:
            self._fds[kind] = sealed("message", [octets])
        return self._fds[kind]


class _Kept:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class _Sink:
    def __init__(self, letter: Letter, size: int) -> None:
        self._letter = letter
        self._pieces: list[bytes] = []
        self.size = size

    def write(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def finish(self) -> object:
        self._letter.take(b"".join(self._pieces))
        return self
