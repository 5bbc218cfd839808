"""May this plugin look up this name, connect to this target? Pure.

Names are compared label by label, in lower case and as A-labels, so that neither "evilzen.example" nor
an escaped dot passes for something below "zen.example".
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Protocol

import idna

from forkd.lookups.kept import Labels

ANY = "any"
"""In the place of suffixes: every name."""

MAX_NAME = 253
"""Characters of a name as text (RFC 1035 2.3.4, without the lengths of first label and root)."""
_LABEL = re.compile(r"[!-\[\]-~]{1,63}")
"""Visible ASCII but the backslash, which is an escape in a zone file."""


class BadNameError(ValueError):
    """No DNS name can be so."""


class CapabilitiesLike(Protocol):
    """What is read of forkd.config.schema.Capabilities."""

    @property
    def dns(self) -> Iterable[str]: ...
    @property
    def state(self) -> bool: ...
    @property
    def connect(self) -> Mapping[str, str]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Grants:
    """Of one plugin or group.

    names    suffixes; None: every name. Empty: DNS is not granted.
    state    it has a namespace in the store.
    targets  names of targets -> where they are (connect.py).
    """

    names: frozenset[Labels] | None
    state: bool
    targets: Mapping[str, str]

    @classmethod
    def of(cls, given: CapabilitiesLike) -> Grants:
        """As the configuration grants them. Raises BadNameError for a suffix that is no name."""
        suffixes = tuple(given.dns)
        names = None if ANY in suffixes else frozenset(labels(suffix.strip(".")) for suffix in suffixes)
        return cls(names, given.state, dict(given.connect))

    def may_look_up(self, name: Labels) -> bool:
        """Is it one of the suffixes, or below one?"""
        names = self.names
        return names is None or any(name[at:] in names for at in range(len(name)))


def labels(text: str) -> Labels:
    """The labels of a name, with or without its last dot. Raises BadNameError."""
    text = text.removesuffix(".")
    if not text.isascii():
        text = _ascii(text)
    if len(text) > MAX_NAME:
        raise BadNameError(f"more than {MAX_NAME} characters")
    found = tuple(text.lower().split("."))
    if not all(map(_LABEL.fullmatch, found)):
        raise BadNameError("a label is empty, too long or has a character that none has")
    return found


def reverse_labels(address: str) -> Labels | None:
    """The name of an address' pointer records; None: it is no address."""
    try:
        return tuple(ipaddress.ip_address(address).reverse_pointer.split("."))
    except ValueError:
        return None


def _ascii(text: str) -> str:
    if len(text) > MAX_NAME:  # of A-labels there are more characters, never less
        raise BadNameError(f"more than {MAX_NAME} characters")
    try:
        return ".".join(
            label if label.isascii() else idna.encode(label, uts46=True).decode("ascii")
            for label in re.split("[.。．｡]", text)
        )
    except (idna.IDNAError, UnicodeError) as error:
        raise BadNameError(str(error)) from error
