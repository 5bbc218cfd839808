"""What is kept of a failed call, for `forkd plugin replay`? The crash record: workers write, others read.

    data_dir/crash/ID.json   one CrashRecord
    data_dir/crash/ID.eml    the message that the call had; as much of it as crash.max_size allows

A record holds mail and what a plugin said: hostile twice. It is data for a person and for a sandbox, and
nothing in it is a reason to believe or to do anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

ID = re.compile(r"[0-9A-Z]{15,20}")
"""Made as queue ids are: they sort by time."""


class CrashRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One failed call, with all that the sandbox had been told before it.

    at        Unix time.
    version, hash  of the plugin as it was loaded; empty for a group, and where it is not known.
    group     its name, where `plugin` is one; else empty.
    cause     of rpc.calls.CallFailed, but for overload, unavailable and zygote ended; detail, output: as in
              the log.
    frames    to that sandbox in that session, from the first to the one that failed: JSON as it was sent, but
              for passwords, in whose place stands SECRET. Settings are not in it.
    message   name of the file beside this one, or empty.
    cut       something is missing: of the message, or of the frames (never the first, never the last).
    limits    of the plugin, by name; times in seconds, sizes in octets.
    """

    id: str
    at: float
    plugin: str
    version: str = ""
    hash: str = ""
    group: str = ""
    session: str
    hook: str
    cause: str
    detail: str = ""
    output: str = ""
    frames: tuple[msgspec.Raw, ...] = ()
    message: str = ""
    cut: bool = False
    limits: dict[str, Any] = {}


SECRET = "(not kept)"  # noqa: S105 - on the contrary
"""What stands in a frame in the place of a password."""

_decoder = msgspec.json.Decoder(CrashRecord)


def crash_folder(data_dir: Path) -> Path:
    """Where records lie: for the worker's user alone."""
    return data_dir / "crash"


def encode(record: CrashRecord) -> bytes:
    """The file's octets, one member a line."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decode(octets: bytes) -> CrashRecord:
    """A record from its file. Raises ValueError, with what is wrong."""
    try:
        return _decoder.decode(octets)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no crash record: {error}") from error


def without_secrets(frames: Iterable[bytes]) -> list[bytes]:
    """The frames with SECRET in the place of passwords."""
    kept: list[bytes] = []
    for frame in frames:
        call = msgspec.json.decode(frame) if b'"auth"' in frame else {}
        if call.get("hook") == "auth" and "secret" in call.get("args", {}):
            call["args"]["secret"] = SECRET
            frame = msgspec.json.encode(call)  # noqa: PLW2901
        kept.append(frame)
    return kept


def passwords(auth: Iterable[bytes]) -> list[str]:
    """Those in the arguments of auth calls, as they were sent."""
    found = (msgspec.json.decode(arguments).get("secret") for arguments in auth)
    return [secret for secret in found if secret]
