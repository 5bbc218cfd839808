"""What stands in the place of DNS, the state store and targets in an author's tests?

    from forkd.sdk.fakes import FakeDns, FakeState, FakeTargets

    def test_a_listed_client_is_refused():
        dns = FakeDns({"1.2.0.192.zen.example": {"a": ["127.0.0.2"]}, "slow.example": "temporary"})
        session = load_plugin("dnsbl").session(client_ip="192.0.2.1", dns=dns)
        assert_denied(session.rcpt("b@test.local"))
        assert dns.asked == [("a", "1.2.0.192.zen.example")]

What the manifest does not want raises NotGranted, fake or not. In the place of a fake may stand whatever has
its methods, e.g. one whose `get` raises forkd.sdk.Unavailable.
"""

from __future__ import annotations

import _thread
import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from forkd.sdk.capabilities import (
    Capabilities,
    Dns,
    DnsAnswer,
    State,
    Targets,
    check_key,
    check_ttl,
    check_value,
)
from forkd.sdk.channel import StateError, Unavailable
from forkd.sdk.connection import Connection
from forkd.sdk.granted import Granted
from forkd.sdk.views import NotGranted, not_granted

TTL_S = 300
"""Of every fake answer."""
MAX_CNAMES = 8
MAX_VALUE_OCTETS = 4096
"""Of a text in the store (state.max_value's default)."""
WAIT_S = 30.0


class FakeDns(Dns):
    """Names and their records, as DnsAnswer has them.

    names  name -> {"a": [...], "aaaa": [...], "mx": [(10, "mx.test")], "txt": [b"..."], "ptr": [...]}, or a
           status ("temporary") for all of it or one of the kinds, "*" for those that are not there. A name
           that is not there is "no_such_name", a kind "no_data"; {"cname": ["other.test"]} is an alias.
    asked  what was looked up: (kind, name) in order
    """

    __slots__ = ("asked", "names")

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = {name.lower().removesuffix("."): given for name, given in names.items()}
        self.asked: list[tuple[str, str]] = []

    def _look(self, kind: str, name: str) -> DnsAnswer:
        name = asked_name(kind, name)
        self.asked.append((kind, name))
        given = self.names.get(name, "no_such_name")
        for _ in range(MAX_CNAMES):
            if isinstance(given, str) or "cname" not in given:
                break
            given = self.names.get(given["cname"][0].lower().removesuffix("."), "no_such_name")
        if not isinstance(given, str):
            given = given.get(kind) or given.get("*") or "no_data"
        if isinstance(given, str):
            return DnsAnswer(given, name=name)
        records = sorted(given) if kind == "mx" else given
        return DnsAnswer("found", tuple(records), TTL_S, name)


class FakeState(State):
    """A store of its own, with time that the test may move.

    clock  seconds; time.time() where none is given
    """

    __slots__ = ("_clock", "_kept")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[str | int, float | None]] = {}

    def get(self, key: str) -> str | int | None:
        found = self._find(key)
        return None if found is None else found[0]

    def set(self, key: str, value: str | int, ttl: float | None = None) -> None:
        self._put(key, value, self._expiry(ttl))

    def add(self, key: str, value: str | int, ttl: float | None = None) -> bool:
        expires = self._expiry(ttl)
        check_value(value)
        if self._find(key) is not None:
            return False
        self._put(key, value, expires)
        return True

    def incr(self, key: str, by: int = 1, ttl: float | None = None) -> int:
        expires = self._expiry(ttl)
        found = self._find(key)
        if found is None:
            found = (0, expires)
        value, expires = found
        if isinstance(value, str):
            raise StateError("the value is a text")
        self._put(key, value + by, expires)
        return value + by

    def delete(self, key: str) -> bool:
        found = self._find(key)
        self._kept.pop(key, None)
        return found is not None

    def keys(self) -> list[str]:
        """Those that have not expired."""
        return [key for key in self._kept if self._find(key) is not None]

    def _find(self, key: str) -> tuple[str | int, float | None] | None:
        found = self._kept.get(check_key(key))
        if found is None or (found[1] is not None and found[1] <= self._clock()):
            return None
        return found

    def _put(self, key: str, value: str | int, expires: float | None) -> None:
        value = check_value(value)
        if isinstance(value, str) and len(value.encode()) > MAX_VALUE_OCTETS:
            raise StateError(f"a value has at most {MAX_VALUE_OCTETS} octets (state.max_value)")
        self._kept[check_key(key)] = (value, expires)

    def _expiry(self, ttl: float | None) -> float | None:
        return None if check_ttl(ttl) is None else self._clock() + (ttl or 0.0)


class FakeTargets(Targets):
    """Targets by name, each what it does with a connection:

    bytes      says that, closes its side, and reads what the plugin says
    callable   is given the socket of the other side, in a thread of its own; the socket is closed after it
    exception  raised by connect(), e.g. Unavailable("refused")
    """

    __slots__ = ("_done", "_received", "_scripts")

    def __init__(self, scripts: Mapping[str, bytes | Callable[[socket.socket], object] | Exception]) -> None:
        self._scripts = dict(scripts)
        self._received: dict[str, bytes] = {}
        self._done: dict[str, Any] = {}

    def connect(self, target: str) -> Connection:
        script = self._scripts.get(target, Unavailable(f"target {target}: the test gave none of that name"))
        if isinstance(script, Exception):
            raise script
        ours, theirs = socket.socketpair()
        done = self._done[target] = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(self._serve, (target, script, ours, done))
        return Connection(theirs)

    def received(self, target: str) -> bytes:
        """What the plugin said on the last connection to a target of bytes, once it has closed it."""
        done = self._done.get(target)
        if done is not None:
            assert done.acquire(timeout=WAIT_S), f"the plugin did not close its connection to {target}"
            done.release()
        return self._received.get(target, b"")

    def _serve(self, target: str, script: Any, peer: socket.socket, done: Any) -> None:
        try:
            with peer, contextlib.suppress(ConnectionError):
                if callable(script):
                    script(peer)
                    return
                self._received[target] = b""
                peer.sendall(script)
                peer.shutdown(socket.SHUT_WR)
                while piece := peer.recv(65_536):
                    self._received[target] += piece
        finally:
            done.release()


def granted_fakes(granted: Granted, *, dns: Any, state: Any, targets: Any) -> Capabilities:
    """The capabilities of a scripted session: what the manifest wants, and behind it what the test gave."""
    kept: Any = _NotGiven("state=FakeState()") if state is None else state
    return Capabilities(
        dns=_GrantedDns(dns, granted.dns) if granted.dns else None,
        state=kept if granted.state else None,
        targets=_GrantedTargets(targets, granted.targets) if granted.targets else None,
    )


def asked_name(kind: str, name: str) -> str:
    """A name as it is asked for: lower case, no last dot, of an address its pointer records' name."""
    if kind == "ptr":
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(name).reverse_pointer
    return name.lower().removesuffix(".")


class _GrantedDns(Dns):
    __slots__ = ("_fake", "_suffixes")

    def __init__(self, fake: Any, suffixes: Iterable[str]) -> None:
        self._fake = _NotGiven("dns=FakeDns({...})") if fake is None else fake
        self._suffixes = frozenset(suffix.lower().strip(".") for suffix in suffixes)

    def _look(self, kind: str, name: str) -> DnsAnswer:
        asked = asked_name(kind, name)
        labels = asked.split(".")
        below = {".".join(labels[at:]) for at in range(len(labels))}
        if "any" not in self._suffixes and not below & self._suffixes:
            raise NotGranted(not_granted(f"the name {asked}", "dns"))
        answer: DnsAnswer = getattr(self._fake, kind)(name)
        return answer


class _GrantedTargets(Targets):
    __slots__ = ("_fake",)

    def __init__(self, fake: Any, names: Iterable[str]) -> None:
        self._fake = _NotGiven("targets=FakeTargets({...})") if fake is None else fake
        self._names = frozenset(names)

    def connect(self, target: str) -> Connection:
        if target not in self._names:
            raise NotGranted(not_granted(f"a connection to {target!r}", "connect"))
        connection: Connection = self._fake.connect(target)
        return connection


class _NotGiven:
    """The plugin wants it, and the test gave nothing."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the plugin used it, so the test must give session({self._what})")
