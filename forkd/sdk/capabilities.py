"""What can a hook ask of the world beside the mail? Names, kept state, connections: calls to forkd's broker.

    session.dns.a("2.0.0.127.zen.example")      -> DnsAnswer: true when there are records
    session.state.incr("seen:192.0.2.1", ttl=60) -> 3
    with session.connect("clamd") as clamd: ...  -> a connected stream socket

Each is a want of plugin.toml, below [wants.capabilities], and the admin's to grant: NotGranted otherwise. All
of them block, and the hook's deadline goes on meanwhile. Nothing of this is there in plugin_init.

What can go wrong is told apart: QuotaExceeded (asked for too much), Unavailable (the broker is away, a
target does not answer), StateError (wrong type, too large, store full), all of them CapabilityError. A name
server that does not answer is no exception but an answer: status "temporary".

This module, and with it channel.py and connection.py, is loaded for plugins that were granted something, or
import a name of it; a zygote of any other has nothing of it.
"""

from __future__ import annotations

import binascii
from json.encoder import encode_basestring as _quoted

from forkd.sdk.channel import (
    CapabilityError,
    Channel,
    QuotaExceeded,
    StateError,
    Unavailable,
    unplugged,
)
from forkd.sdk.connection import Connection
from forkd.sdk.views import NotGranted, not_granted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = [
    "Capabilities",
    "CapabilityError",
    "Connection",
    "Dns",
    "DnsAnswer",
    "QuotaExceeded",
    "State",
    "StateError",
    "Targets",
    "Unavailable",
]

MAX_KEY_OCTETS = 255
MAX_TTL_S = 315_360_000
"""Ten years."""
_INT64 = 1 << 63


class DnsAnswer:
    """What DNS says of a name. True when there are records; iterating gives them.

    status   "found", "no_data" (the name exists, without such records), "no_such_name", or "temporary":
             nobody knows now, ask another time
    records  a, aaaa: addresses as text; mx: (preference, host), the preferred first; txt: bytes, the strings
             of a record joined; ptr: names. Names are in lower case without their last dot.
    ttl      seconds for which the answer holds
    name     that was asked for, likewise; of an address the name of its pointer records
    """

    __slots__ = ("name", "records", "status", "ttl")

    def __init__(self, status: str, records: tuple[Any, ...] = (), ttl: int = 0, name: str = "") -> None:
        self.status = status
        self.records = records
        self.ttl = ttl
        self.name = name

    def __bool__(self) -> bool:
        return self.status == "found"

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"<DnsAnswer {self.name}: {self.status} {self.records}>"


class Capabilities:
    """What session.dns, session.state and session.connect are; a want that was not granted is None."""

    __slots__ = ("dns", "state", "targets")

    def __init__(self, *, dns: Dns | None = None, state: State | None = None, targets: Targets | None = None):
        self.dns = dns
        self.state = state
        self.targets = targets

    @classmethod
    def brokered(cls, granted: dict[str, Any]) -> Capabilities:
        """Those of a sandbox, as its zygote's specification has them."""
        channel = Channel(granted)
        return cls(
            dns=Dns(channel) if granted.get("dns") else None,
            state=State(channel) if granted.get("state") else None,
            targets=Targets(channel, granted["connect"]) if granted.get("connect") else None,
        )


class Dns:
    """session.dns: lookups of the names that were granted, by their suffixes.

    Each raises NotGranted for another name, and QuotaExceeded. A name that cannot exist (an empty label, a
    label of 64 octets) is "no_such_name".
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def a(self, name: str) -> DnsAnswer:
        """IPv4 addresses."""
        return self._look("a", name)

    def aaaa(self, name: str) -> DnsAnswer:
        """IPv6 addresses."""
        return self._look("aaaa", name)

    def mx(self, name: str) -> DnsAnswer:
        """Mail exchangers; the host of a null MX is empty (RFC 7505)."""
        return self._look("mx", name)

    def txt(self, name: str) -> DnsAnswer:
        """Texts, as bytes."""
        return self._look("txt", name)

    def ptr(self, name: str) -> DnsAnswer:
        """Names of an address, or what a name points to."""
        return self._look("ptr", name)

    def _look(self, kind: str, name: str) -> DnsAnswer:
        try:
            answer = self._channel.ask(f'"do":"dns","kind":"{kind}","name":{_quoted(name)}')[0]
        except Unavailable:
            return DnsAnswer("temporary", name=name)
        except StateError:  # no name has 131,072 octets
            return DnsAnswer("no_such_name", name=name)
        records = answer.get("records", ())
        if records and kind == "txt":
            records = map(binascii.a2b_base64, records)
        elif records and kind == "mx":
            records = map(tuple, records)
        return DnsAnswer(answer["status"], tuple(records), answer.get("ttl", 0), answer["name"])


class State:
    """session.state: keys and values that outlive the session, in a namespace of the plugin's own.

    A key is text of 255 octets at most, a value text or a whole number of 64 bits. `ttl`: seconds after which
    the key is gone; None: it stays. What was written is there for every later session at once; a crash of the
    machine may lose the last second of it.
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def get(self, key: str) -> str | int | None:
        """The value; None: there is no such key."""
        value: str | int | None = self._ask("get", key).get("value")
        return value

    def set(self, key: str, value: str | int, ttl: float | None = None) -> None:
        """Put a value there, with a new ttl, whatever was there before."""
        self._ask("set", key, f',"value":{_value(value)}{_ttl(ttl)}')

    def add(self, key: str, value: str | int, ttl: float | None = None) -> bool:
        """Put a value there if the key is new; of several sessions that try at once one gets True."""
        return bool(self._ask("add", key, f',"value":{_value(value)}{_ttl(ttl)}')["done"])

    def incr(self, key: str, by: int = 1, ttl: float | None = None) -> int:
        """Add to a number and return it; a new key begins at 0, and its ttl with it.

        StateError where the value is a text, or the sum has more than 64 bits.
        """
        return int(self._ask("incr", key, f',"by":{_value(int(by))}{_ttl(ttl)}')["value"])

    def delete(self, key: str) -> bool:
        """Take a key away; False: there was none."""
        return bool(self._ask("delete", key)["done"])

    def _ask(self, do: str, key: str, more: str = "") -> dict[str, Any]:
        answer: dict[str, Any] = self._channel.ask(f'"do":"{do}","key":{_quoted(check_key(key))}{more}')[0]
        return answer


class Targets:
    """session.connect: connections to the targets that the admin named."""

    __slots__ = ("_channel", "_names")

    def __init__(self, channel: Any, names: Any) -> None:
        self._channel = channel
        self._names = names

    def connect(self, target: str) -> Connection:
        """Raises NotGranted, QuotaExceeded; Unavailable when the target cannot be reached."""
        if target not in self._names:
            raise NotGranted(not_granted(f"a connection to {target!r}", "connect"))
        fd = self._channel.ask(f'"do":"connect","target":{_quoted(target)}')[1]
        if fd < 0:
            raise Unavailable("the broker sent no connection")
        return Connection.of(fd)


def check_key(key: str) -> str:
    """The key, when it may be one. Raises StateError."""
    if not isinstance(key, str):
        raise StateError(f"a key is text, not {type(key).__name__}")
    if not 0 < len(key.encode("utf-8", "surrogatepass")) <= MAX_KEY_OCTETS:
        raise StateError(f"a key has 1 to {MAX_KEY_OCTETS} octets")
    return key


def check_value(value: str | int) -> str | int:
    """The value, when it may be one but for its size. Raises StateError."""
    if isinstance(value, str):
        return value
    if not isinstance(value, int):
        raise StateError(f"a value is text or a whole number, not {type(value).__name__}")
    if not -_INT64 <= value < _INT64:
        raise StateError("a number has 64 bits at most")
    return int(value)


def _value(value: str | int) -> str:
    value = check_value(value)
    return _quoted(value) if isinstance(value, str) else str(value)


def check_ttl(ttl: float | None) -> float | None:
    """The ttl, when it may be one. Raises StateError."""
    if ttl is not None and not 0 < ttl <= MAX_TTL_S:
        raise StateError(f"a ttl is more than 0 and at most {MAX_TTL_S} seconds, not {ttl!r}")
    return ttl


def _ttl(ttl: float | None) -> str:
    return "" if check_ttl(ttl) is None else f',"ttl":{float(ttl)!r}'  # type: ignore[arg-type]


def warm() -> None:
    """Run what every request runs, as runner.warm() does it: in the zygote, with a broker that is none."""
    for _ in range(24):
        channel, broker = unplugged()
        given = Capabilities(dns=Dns(channel), state=State(channel))
        assert given.dns is not None
        assert given.state is not None
        broker.says = b'"status":"found","name":"warm.example","records":["192.0.2.1"],"ttl":1'
        given.dns.a("warm.example")
        broker.says = b'"value":1'
        given.state.get("warm")
        given.state.incr("warm", ttl=1)
        broker.says = b'"done":true'
        given.state.add("warm", "x", ttl=1)
