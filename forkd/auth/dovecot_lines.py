"""Which lines does Dovecot's auth protocol have? Version 1.2, the client's side (doc.dovecot.org,
"Authentication Protocol"; tab-separated fields), sans I/O.

    server  VERSION 1 2 · MECH name properties… · SPID pid · CUID n · COOKIE hex · DONE
    client  VERSION 1 1 · CPID pid
    client  AUTH id mechanism service=smtp … resp=base64        resp is the last field
    server  CONT id base64 | OK id user=… | FAIL id user=… temp? …
    client  CONT id base64 | CANCEL id
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Iterable
from typing import Final

MAJOR: Final = "1"
MAX_LINE: Final = 8192
"""AUTH_CLIENT_MAX_LINE_LENGTH: Dovecot hangs up beyond. Its own lines are held to it too, times four."""

_ESCAPED = {"\x01": "\x011", "\0": "\x010", "\t": "\x01t", "\r": "\x01r", "\n": "\x01n"}
_ESCAPES = str.maketrans(_ESCAPED)
_UNESCAPED = {"1": "\x01", "0": "\0", "t": "\t", "r": "\r", "n": "\n"}


class Unreachable(Exception):  # noqa: N818
    """Dovecot is not there, went away, or spoke another language: 454 4.7.0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """The greeting is over; `mechanisms` in upper case."""

    mechanisms: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Continue:
    """The server wants more: CONT."""

    n: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Right:
    """OK; `user` as Dovecot calls him (its own rules about case and default domain applied)."""

    n: int
    user: str


@dataclasses.dataclass(frozen=True, slots=True)
class Wrong:
    """FAIL; `temporary`: no answer about the password, Dovecot's own trouble."""

    n: int
    temporary: bool
    reason: str


Event = Ready | Continue | Right | Wrong


class Dialogue:
    """The lines of one connection. receive() raises Unreachable for what is not the protocol."""

    def __init__(self) -> None:
        self._rest = b""
        self._mechanisms: set[str] = set()
        self._ready = False

    def greeting(self, pid: int) -> bytes:
        """What the client says first; it need not wait for the server."""
        return f"VERSION\t{MAJOR}\t1\nCPID\t{pid}\n".encode("ascii")

    def receive(self, octets: bytes) -> list[Event]:
        """Events of the lines that are whole now."""
        self._rest += octets
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > 4 * MAX_LINE:
            raise Unreachable("a line of its does not end")
        events = [self._event(line.decode("utf-8", "replace").split("\t")) for line in lines]
        return [event for event in events if event is not None]

    def _event(self, fields: list[str]) -> Event | None:
        match fields:
            case ["VERSION", major, *_] if major != MAJOR:
                raise Unreachable(f"it speaks version {major[:20]} of its protocol, we {MAJOR}")
            case ["MECH", name, *_]:
                self._mechanisms.add(name.upper())
            case ["DONE", *_] if not self._ready:
                self._ready = True
                return Ready(frozenset(self._mechanisms))
            case ["CONT", n, *data]:
                return Continue(_number(n), _decoded(data[0] if data else ""))
            case ["OK", n, *parameters]:
                return Right(_number(n), _parameters(parameters).get("user", ""))
            case ["FAIL", n, *parameters]:
                given = _parameters(parameters)
                temporary = "temp" in given or given.get("code") == "temp_fail"
                reason = given.get("reason") or given.get("code") or ("temp" if temporary else "")
                return Wrong(_number(n), temporary, reason)
        return None  # SPID, CUID, COOKIE, and what later versions add


def auth_line(n: int, mechanism: str, facts: Iterable[str], response: bytes | None) -> bytes:
    """AUTH. facts: `secured`, `rip=192.0.2.1` …; `response` comes last, as the protocol demands.

    Raises ValueError for a line that Dovecot would not read.
    """
    fields = ["AUTH", str(n), mechanism, "service=smtp", *(fact.translate(_ESCAPES) for fact in facts)]
    if response is not None:
        fields.append(f"resp={base64.b64encode(response).decode('ascii')}")
    return _line(fields)


def cont_line(n: int, response: bytes) -> bytes:
    """CONT. Raises ValueError as auth_line()."""
    return _line(["CONT", str(n), base64.b64encode(response).decode("ascii")])


def cancel_line(n: int) -> bytes:
    """CANCEL: this exchange will not go on."""
    return _line(["CANCEL", str(n)])


def _line(fields: list[str]) -> bytes:
    octets = "\t".join(fields).encode("utf-8", "surrogatepass") + b"\n"
    if len(octets) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} octets")
    return octets


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 10:
        raise Unreachable("an answer of its has no number")
    return int(text)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Unreachable("a challenge of its is not base64") from error


def _parameters(fields: list[str]) -> dict[str, str]:
    return {name: _unescaped(value) for name, _, value in (field.partition("=") for field in fields)}


def _unescaped(text: str) -> str:
    head, *rest = text.split("\x01")
    return head + "".join(_UNESCAPED.get(part[:1], "") + part[1:] for part in rest)
