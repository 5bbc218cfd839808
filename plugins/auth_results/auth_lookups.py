"""How do pyspf and dkimpy look names up? By forkd's DNS: they are given it in the forms they ask for.

Both import dnspython to look up by themselves, which a sandbox cannot do: no socket. So they find an
empty `dns` while they are imported. That saves each sandbox the copying of a hundred modules, and a lookup
that went around forkd would be an error, never a silent `none`.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

from forkd.sdk import QuotaExceeded, Unavailable

_EMPTY = ("dns", "dns.resolver", "dns.exception", "dns.rdatatype")
_LIBRARIES = ("spf", "dkim", "dkim.dnsplug")


class Answer(Protocol):
    """What is read of a DnsAnswer."""

    @property
    def status(self) -> str: ...
    @property
    def records(self) -> Iterable[Any]: ...


def import_libraries() -> tuple[Any, Any]:
    """The modules spf and dkim. Raises ImportError with the command that installs what is missing."""
    kept = {name: sys.modules[name] for name in _EMPTY if name in sys.modules}
    modules = {name: types.ModuleType(name) for name in _EMPTY}
    modules["dns.rdatatype"].SPF = 99  # type: ignore[attr-defined]  # else spf would patch it in
    for name in _EMPTY[1:]:
        setattr(modules["dns"], name.removeprefix("dns."), modules[name])
    sys.modules.update(modules)
    try:
        import dkim  # noqa: PLC0415
        import spf  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(f"{error}: pip install pyspf dkimpy PyNaCl") from error
    finally:
        for name in _EMPTY:
            del sys.modules[name]
        sys.modules.update(kept)
    return spf, dkim


spf, dkim = import_libraries()


class Lookups:
    """The session's DNS for one check.

    temporary   a lookup brought no answer; another try may.
    found       the last key that DKIM asked for was there.
    """

    def __init__(self, dns: Any) -> None:
        self._dns = dns
        self.temporary = False
        self.found = False

    def for_spf(
        self, name: str, qtype: str, _strict: object = True, _timeout: float = 0
    ) -> list[tuple[tuple[str, str], object]]:
        """As spf.DNSLookup: [((name, type), data)], empty where there is nothing. Raises spf.TempError."""
        ask = {"A": "a", "AAAA": "aaaa", "MX": "mx", "PTR": "ptr", "TXT": "txt"}.get(qtype)
        if ask is None:
            return []  # RFC 7208 3.1: records of type SPF are history
        answer = self._ask(ask, name)
        if answer.status == "temporary":
            raise spf.TempError(f"DNS: no answer for {name}")
        found = answer.records if answer.status == "found" else ()
        return [((name, qtype), (record,) if qtype == "TXT" else record) for record in found]

    def for_dkim(self, name: bytes, timeout: float = 0) -> bytes | None:  # noqa: ARG002 - dkimpy's signature
        """As dkim's dnsfunc: the text record of a key; None: there is none. Raises dkim.DnsTimeoutError."""
        answer = self._ask("txt", name.decode("ascii", "replace").rstrip("."))
        if answer.status == "temporary":
            raise dkim.DnsTimeoutError(f"no answer for {name!r}")
        record: bytes | None = next(iter(answer.records), None) if answer.status == "found" else None
        self.found = record is not None
        return record

    def _ask(self, ask: str, name: str) -> Answer:
        try:
            answer: Answer = getattr(self._dns, ask)(name)
        except (QuotaExceeded, Unavailable):
            answer = _Nothing()
        self.temporary = self.temporary or answer.status == "temporary"
        return answer


class _Nothing:
    """forkd does not look up any more for this session, or not now."""

    status = "temporary"
    records = ()
