"""May this client send for the sender's domain? RFC 7208, by pyspf."""

from __future__ import annotations

import dataclasses
from typing import Any

from auth_lookups import Lookups, spf

_SECONDS = 20
"""For all lookups of one check (RFC 7208 4.6.4)."""
RESULTS = ("pass", "fail", "softfail", "neutral", "none", "permerror", "temperror")


@dataclasses.dataclass(frozen=True, slots=True)
class Spf:
    """One check. `identity` is what was checked: the sender, or the HELO name of a null sender."""

    result: str
    identity: str
    helo: bool
    """The HELO name was checked."""


def check(dns: Any, *, client: str, sender: str, helo: str, receiver: str) -> Spf:
    """The result for a sender (as it is written; empty: the null sender, whose HELO name is checked).

    Blocks for up to ten lookups and more for each MX, 20 seconds at most.
    """
    identity = sender or helo
    domain = _ascii(identity.rpartition("@")[2])
    if not domain or domain.startswith("["):
        return Spf("none", identity, helo=not sender)  # RFC 7208 2.4, 4.3: nobody to ask
    local = sender.rpartition("@")[0]
    lookups = Lookups(dns)
    spf.DNSLookup = lookups.for_spf
    try:
        query = spf.query(
            i=client,
            s=f"{local}@{domain}" if sender else "",
            h=_ascii(helo) or "unknown",
            receiver=receiver,
            querytime=_SECONDS,
        )
        result = query.check()[0]
    except (spf.TempError, TimeoutError):
        result = "temperror"
    except (ValueError, IndexError, KeyError, TypeError, AssertionError, spf.PermError):
        # What pyspf did not expect of a record; RFC 7208 2.6.7: it could not be interpreted.
        result = "permerror"
    return Spf(result if result in RESULTS else "permerror", identity, helo=not sender)


def _ascii(domain: str) -> str:
    """A-labels; empty where there are none."""
    try:
        return domain.encode("ascii").decode()
    except UnicodeEncodeError:
        pass
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
