"""What does a transcript say, and does a server keep to it? The format is in tests/dialogs/README.md."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Protocol

_ESCAPE = re.compile(rb"\\(?:([rnt0\\])|x([0-9a-fA-F]{2})|\((\d+)\*([^)]*)\))")
_OCTETS = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_TITLE = re.compile(r"# RFC \d{3,4} \S+.* - \S.*")


@dataclasses.dataclass(frozen=True)
class Say:
    """The client sends these octets in one write."""

    octets: bytes


@dataclasses.dataclass(frozen=True)
class Expect:
    """The server sends this line; `...` stands for any text."""

    line: str
    number: int

    def matches(self, line: str) -> bool:
        """Is this the line?"""
        pattern = ".*".join(re.escape(part) for part in self.line.split("..."))
        return re.fullmatch(pattern, line) is not None


@dataclasses.dataclass(frozen=True)
class ExpectClose:
    """The server has closed."""

    number: int


@dataclasses.dataclass(frozen=True)
class ExpectMessage:
    """The message accepted last."""

    octets: bytes
    number: int


@dataclasses.dataclass(frozen=True)
class Handshake:
    """TLS is set up here."""

    number: int


Step = Say | Expect | ExpectClose | ExpectMessage | Handshake

CONFIGURED = frozenset({"tls", "tls_required", "auth", "auth_needs_tls", "auth_required", "xclient"})
"""Settings that a live daemon has only with certificates, users and trusted networks to go with them."""


@dataclasses.dataclass(frozen=True)
class Dialog:
    """One transcript."""

    title: str
    options: dict[str, str | int]
    steps: tuple[Step, ...]

    @property
    def configured(self) -> bool:
        """It needs more of a live daemon than limits and a listener's own settings."""
        return not CONFIGURED.isdisjoint(self.options)


class Server(Protocol):
    """What a dialog is played against: the engine, or a live daemon behind a socket."""

    def say(self, octets: bytes) -> None:
        """The client writes these octets."""

    def line(self) -> str | None:
        """The next line from the server without its CRLF; None: it has nothing more to say now."""

    def closed(self) -> bool:
        """The server has closed the connection."""

    def handshake(self) -> None:
        """Set up TLS, now that both sides have agreed on it."""

    def message(self) -> bytes | None:
        """The message accepted last; None where this server cannot tell."""


def load(path: Path) -> Dialog:
    """Read a transcript; ValueError names the line that is none."""
    title, *lines = path.read_text("ascii").splitlines()
    if not _TITLE.fullmatch(title):
        raise ValueError(f"{path.name}:1: not '# RFC NNNN section - what is shown'")
    options: dict[str, str | int] = {}
    steps: list[Step] = []
    for number, line in enumerate(lines, 2):
        mark, text = line[:2], line[2:].removeprefix(" ")
        if mark in ("C:", "c:"):
            octets = unescape(text) + (b"\r\n" if mark == "C:" else b"")
            if steps and isinstance(steps[-1], Say):
                octets = steps.pop().octets + octets  # type: ignore[union-attr]
            steps.append(Say(octets))
        elif mark == "S:":
            steps.append(Expect(text, number) if text else ExpectClose(number))
        elif mark == "M:":
            octets = unescape(text) + b"\r\n"
            if steps and isinstance(steps[-1], ExpectMessage):
                octets = steps.pop().octets + octets  # type: ignore[union-attr]
            steps.append(ExpectMessage(octets, number))
        elif mark == "T:":
            steps.append(Handshake(number))
        elif mark == "! ":
            key, _, value = (part.strip() for part in text.partition("="))
            options[key] = int(value) if value.isdigit() else value
        elif line and not line.startswith("#"):
            raise ValueError(f"{path.name}:{number}: neither C:, c:, S:, M:, T:, ! nor #")
    return Dialog(title.removeprefix("# "), options, tuple(steps))


def play(dialog: Dialog, server: Server) -> None:
    """Go through the dialog; AssertionError names the first line that the server does not keep to."""
    for step in dialog.steps:
        match step:
            case Say(octets):
                extra = server.line()
                assert extra is None, f"said unasked before {octets!r}: {extra}"
                server.say(octets)
            case Expect(wanted, number):
                line = server.line()
                assert line is not None, f"line {number}: nothing said, not {wanted!r}"
                assert step.matches(line), f"line {number}: {line!r}, not {wanted!r}"
            case ExpectClose(number):
                extra = server.line()
                assert extra is None, f"line {number}: {extra!r}, not the close"
                assert server.closed(), f"line {number}: not closed"
            case Handshake(number):
                extra = server.line()
                assert extra is None, f"line {number}: {extra!r}, not a handshake"
                server.handshake()
            case ExpectMessage(octets, number):
                message = server.message()
                assert message in (None, octets), f"line {number}: {message!r}, not {octets!r}"
    extra = server.line()
    assert extra is None, f"said after the end: {extra}"


def unescape(text: str) -> bytes:
    """The octets of a client's or a message's line."""

    def octets(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return _OCTETS[match[1]]
        if match[2]:
            return bytes.fromhex(match[2].decode())
        return match[4] * int(match[3])

    return _ESCAPE.sub(octets, text.encode("ascii"))
