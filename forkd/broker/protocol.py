"""What may a sandbox ask the broker, and what is it answered? The types, and their bounds.

A request is hostile: JSON of at most MAX_RECORD_BYTES in one record, decoded strictly into these structs;
whatever does not fit is a breach. What fits may still be more than the plugin was granted (grants.py), or
more often than it may (quotas.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

MAX_RECORD_BYTES = 131_072
"""Of a request or an answer. A value has 64 KiB at most, and JSON around it."""
MAX_TTL_S = 315_360_000
"""Of a key: ten years."""
SHOWN_BYTES = 64
"""First bytes of a record that broke the protocol, for the log."""

Kind = Literal["a", "aaaa", "mx", "txt", "ptr"]
_Number = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Ttl = Annotated[float, msgspec.Meta(gt=0, le=MAX_TTL_S)]


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do"):
    """What a sandbox asks; its channel says who it is."""

    n: _Number
    """Numbers the requests of one channel; the answer has it again."""


class DnsRequest(_Request, frozen=True, tag="dns"):
    """Look a name up; at `ptr` an address too."""

    kind: Kind
    name: str


class Get(_Request, frozen=True, tag="get"):
    """The value of a key."""

    key: _Key


class Set(_Request, frozen=True, tag="set"):
    """Put a value there."""

    key: _Key
    value: _Int64 | str
    ttl: _Ttl | None = None


class Add(_Request, frozen=True, tag="add"):
    """Put a value there if the key is new."""

    key: _Key
    value: _Int64 | str
    ttl: _Ttl | None = None


class Delete(_Request, frozen=True, tag="delete"):
    """Take a key away."""

    key: _Key


class Incr(_Request, frozen=True, tag="incr"):
    """Add to a number."""

    key: _Key
    by: _Int64 = 1
    ttl: _Ttl | None = None


class ConnectRequest(_Request, frozen=True, tag="connect"):
    """A connection to a target of the admin's."""

    target: Annotated[str, msgspec.Meta(max_length=255)]


StateRequest = Get | Set | Add | Delete | Incr
Request = DnsRequest | Get | Set | Add | Delete | Incr | ConnectRequest


class _Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a sandbox is answered."""

    n: int


class DnsResult(_Answer, frozen=True):
    """To DnsRequest; octets (txt) are base64 in JSON, mx is [preference, host]."""

    status: Literal["found", "no_data", "no_such_name", "temporary"]
    name: str
    records: tuple[str | bytes | tuple[int, str], ...] = ()
    ttl: int = 0


class Value(_Answer, frozen=True):
    """To Get and Incr."""

    value: int | str | None = None


class Done(_Answer, frozen=True):
    """To Set, Add and Delete: whether it was done. To ConnectRequest: the socket comes with it."""

    done: bool


class Refused(_Answer, frozen=True):
    """To anything: it was not done."""

    error: Literal["not_granted", "quota", "unavailable", "state"]
    text: str = ""


Answer = DnsResult | Value | Done | Refused

_decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode


class BreachError(Exception):
    """A record that is not in the protocol: its channel is closed."""


def decode(record: bytes) -> Request:
    """The request. Raises BreachError."""
    if not record:
        raise BreachError("an empty record")
    if len(record) > MAX_RECORD_BYTES:
        raise BreachError(f"a record of more than {MAX_RECORD_BYTES} octets")
    try:
        request: Request = _decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BreachError(f"{error}: {record[:SHOWN_BYTES]!r}") from error
    return request
