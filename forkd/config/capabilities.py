"""What does a plugin want of the world beside the mail? dns, state, connect, threads, as manifests say it.

    dns      lookups of names below suffixes; "any": whichever it likes, which can carry data out
    state    keys and values that outlive a session
    connect  connections to targets that have names here, and addresses in the admin's entry only
    threads  beside the first one, for each sandbox; counted for the plugin as a whole

Suffixes are compared as DNS does: label by label, without case, other scripts in A-labels.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from forkd.config.domains import is_domain
from forkd.config.problems import Problems, Source
from forkd.config.reader import nearest
from forkd.config.schema import Manifest, Wants
from forkd.config.wants import reason
from forkd.smtp.address import a_labels

CAPABILITIES: Final = ("dns", "state", "connect", "threads")
ANY: Final = "any"
"""In the place of suffixes: every name."""
TARGET_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""By which a plugin asks for a connection."""
TARGET_RULE: Final = 'this is "HOST:PORT", "[2001:db8::1]:PORT" or "unix:/path/of/a/socket"'

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
"""Looked-up names have labels with underscores too (RFC 8552); lengths of RFC 1035 2.3.4."""
_SOCKET_PATH_BYTES: Final = 107
"""unix(7): sun_path without its NUL."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wished:
    """The capabilities that hold with some settings. One without a reason here is not wanted."""

    reasons: Mapping[str, str]
    suffixes: tuple[str, ...] = ()
    """As normal_suffix() has them, ("any",) for every name; what is none is left out."""
    targets: tuple[str, ...] = ()
    threads: int = 0


def wished(wants: Wants, settings: Mapping[str, Any]) -> Wished:
    """What is wanted with these settings, which have their defaults filled in."""
    asked = wants.capabilities
    reasons = {name: reason(getattr(asked, name), settings) for name in CAPABILITIES}
    suffixes: tuple[str, ...] = ()
    if asked.dns is not None and reasons["dns"]:
        by_admin = [text for key in asked.dns.suffixes_in for text in suffixes_named(settings.get(key))]
        found = [normal_suffix(text) for text in (*asked.dns.suffixes, *by_admin) if not suffix_slip(text)]
        suffixes = (ANY,) if ANY in found else tuple(dict.fromkeys(found))
        reasons["dns"] = reasons["dns"] if suffixes else ""
    return Wished(
        reasons={name: why for name, why in reasons.items() if why},
        suffixes=suffixes,
        targets=asked.connect.targets if asked.connect and reasons["connect"] else (),
        threads=asked.threads.count if asked.threads and reasons["threads"] else 0,
    )


def suffixes_named(value: Any) -> tuple[str, ...]:
    """What a setting of suffixes_in names: each of its texts, up to a blank."""
    texts = [value] if isinstance(value, str) else value or []
    return tuple(text.split()[0] for text in texts if text.split())


def normal_suffix(text: str) -> str:
    """In the one form in which names are compared. `text` has no slip."""
    return ANY if text == ANY else a_labels(text)


def suffix_slip(text: str) -> str:
    """Why no name can end so; empty: one can."""
    try:
        fine = text == ANY or _NAME.fullmatch(a_labels(text)) is not None
    except ValueError:
        fine = False
    return "" if fine else 'this is a domain name without a dot at either end, or "any"'


def suffix_covers(granted: str, wanted: str) -> bool:
    """Are all names that end in `wanted` granted? Both in their normal form; "any" is granted by "any"."""
    return granted in (ANY, wanted) or wanted.endswith("." + granted)


def normal_target(text: str) -> str:
    """Where a connection goes, in one form. Raises ValueError, its text being the rule."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path or len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            raise ValueError(f"{TARGET_RULE}; a socket's path is absolute and has 107 octets at most")
        return "unix:" + os.path.normpath(path)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        raise ValueError(TARGET_RULE)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        # Labels of digits alone are a mistyped address, never a name (RFC 1123 2.1).
        if bracketed or not is_domain(host) or host.rpartition(".")[2].isdecimal():
            raise ValueError(TARGET_RULE) from None
        return f"{a_labels(host)}:{int(port)}"
    if bracketed != (address.version == 6):
        raise ValueError(TARGET_RULE)
    return f"[{address}]:{int(port)}" if bracketed else f"{address}:{int(port)}"


def check_wanted(manifest: Manifest, source: Source, problems: Problems) -> None:
    """What a manifest wants of these makes sense."""
    asked = manifest.wants.capabilities
    if asked.dns is not None:
        for text in asked.dns.suffixes:
            if suffix_slip(text):
                path = ("wants", "capabilities", "dns", "suffixes")
                problems.add(source, path, suffix_slip(text), value=text, hint=_dot_hint(text))
        for name in asked.dns.suffixes_in:
            setting = manifest.settings.get(name)
            if setting is None or setting.type not in ("string", "strings"):
                rule = "this is the name of a setting of type string or strings"
                path = ("wants", "capabilities", "dns", "suffixes_in")
                problems.add(source, path, rule, value=name, hint=nearest(name, manifest.settings))
        if not asked.dns.suffixes and not asked.dns.suffixes_in:
            rule = "this wants nothing: there are neither suffixes nor suffixes_in"
            problems.add(source, ("wants", "capabilities", "dns"), rule)
    for name in asked.connect.targets if asked.connect else ():
        if not TARGET_NAME.fullmatch(name):
            rule = "a target's name is a small letter, then small letters, digits, - and _; 32 at most"
            problems.add(source, ("wants", "capabilities", "connect", "targets"), rule, value=name)


def _dot_hint(text: str) -> str:
    bare = text.strip().strip("*").strip(".")
    return f'write "{bare}"' if bare and bare != text and not suffix_slip(bare) else ""
