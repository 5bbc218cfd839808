"""Which signatures of a message hold? RFC 6376 with RFC 8301 and 8463, by dkimpy."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from auth_lookups import Lookups, dkim

_SAFE = re.compile(rb"[A-Za-z0-9._@+/=-]{1,253}")
"""What of a signature's tags is told again: never what could be read as something else."""
_WEAK = frozenset({b"rsa-sha1"})
"""RFC 8301 3.1: a verifier must not take it as valid."""


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM-Signature: what came of it, why where it did not pass, and what it says of itself.

    domain, selector, algorithm, identity, start   d=, s=, a=, i= and the first octets of b=, empty where they
                                                   are missing or odd.
    """

    result: str
    reason: str = ""
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    start: str = ""


class _Relaxed(dkim.canonicalization.Relaxed):  # type: ignore[misc]
    """dkimpy's own, that prepares a body once and not for each signature: 25 ms for each MiB."""

    _last: tuple[bytes, bytes] = (b"", b"")

    @staticmethod
    def canonicalize_body(body: bytes) -> bytes:
        if _Relaxed._last[0] is not body:
            _Relaxed._last = (body, dkim.canonicalization.Relaxed.canonicalize_body(body))
        return _Relaxed._last[1]


dkim.canonicalization.ALGORITHMS[_Relaxed.name] = _Relaxed


def check(dns: Any, header: bytes, body: bytes, *, most: int, min_key: int) -> list[Signature]:
    """The message's signatures from the top, `most` of them. Blocks for one lookup each.

    header  without the empty line behind it.
    """
    try:
        one = dkim.DKIM(header + b"\r\n", minkey=min_key)
    except dkim.DKIMException:
        return []  # no header that could be signed
    count = sum(1 for name, _ in one.headers if name.lower() == b"dkim-signature")
    try:
        return [_check(dns, header, body, index, min_key) for index in range(min(count, most))]
    finally:
        _Relaxed._last = (b"", b"")


def _check(dns: Any, header: bytes, body: bytes, index: int, min_key: int) -> Signature:
    lookups = Lookups(dns)
    # The header alone: dkimpy would take a large body apart by lines, and put it together again.
    one = dkim.DKIM(header + b"\r\n", minkey=min_key)
    one.body = body
    one.signature_fields = {}
    try:
        passed = one.verify(index, dnsfunc=lookups.for_dkim)
    except dkim.DnsTimeoutError:
        passed, result, reason = False, "temperror", "no answer for the key"
    except dkim.KeyFormatError:
        passed, (result, reason) = False, _of_no_pass(one, lookups)
    except dkim.ValidationError as error:
        passed = False
        result, reason = (
            ("fail", "body has changed") if "body hash" in str(error) else ("neutral", "malformed")
        )
    except (dkim.DKIMException, ValueError, KeyError, TypeError, IndexError):
        passed, result, reason = False, "neutral", "malformed"
    else:
        result, reason = _of_no_pass(one, lookups)
    fields = one.signature_fields
    if passed and fields.get(b"a", b"").lower() in _WEAK:
        passed, result, reason = False, "policy", "rsa-sha1 does not count"
    if passed:
        result, reason = "pass", "signed in part" if b"l" in fields else ""
    return Signature(
        result,
        reason,
        domain=_safe(fields.get(b"d")).lower(),
        selector=_safe(fields.get(b"s")).lower(),
        algorithm=_safe(fields.get(b"a")).lower(),
        identity=_safe(fields.get(b"i")),
        start=_safe(re.sub(rb"\s+", b"", fields.get(b"b", b""))[:8]),
    )


def _of_no_pass(one: Any, lookups: Lookups) -> tuple[str, str]:
    """dkimpy says no, and not why: by what it had of the key."""
    if lookups.temporary:
        return "temperror", "no answer for the key"
    if not lookups.found:
        return "permerror", "no key"
    if getattr(one, "ktag", None) is None:
        return "permerror", "no usable key"
    if one.ktag == b"rsa" and one.keysize < one.minkey:
        return "policy", f"a key of {one.keysize} bits does not count"
    return "fail", "signature does not match"


def _safe(value: bytes | None) -> str:
    return value.decode("ascii") if value is not None and _SAFE.fullmatch(value) else ""
