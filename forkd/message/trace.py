"""What do we write on top of a message to say that it passed here? (RFC 5321 4.4)"""

from __future__ import annotations

import re
import time

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_NOT_NAME = re.compile(r"[^A-Za-z0-9.\-_:\[\]]")
"""What a HELO name may hold: a comment sign, a space or a control must not get into the field."""
_NOT_COMMENT = re.compile(r"[^ A-Za-z0-9.\-_]")
_NOT_PATH = re.compile(r"[^\x21-\x7e\u0080-\U0010ffff]")

MAX_NAME = 255
"""RFC 1035 2.3.4; a longer name is cut, so that the line stays below 998 octets (RFC 5322 2.1.1)."""

_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)


def received(
    *,
    helo: str,
    client_ip: str,
    host: str,
    protocol: str,
    queue_id: str,
    at: float,
    client_name: str = "",
    tls: str = "",
    recipient: str = "",
) -> str:
    """The Received field of a message, folded with CRLF, ending in CRLF.

    helo         as the client said it; what cannot stand in the field becomes "?"
    client_name  its verified name, or empty: then only its address stands there
    protocol     as protocol() says
    tls          version and cipher, e.g. `TLSv1.3 with cipher TLS_AES_256_GCM_SHA384`, or empty: a comment,
                 as Postfix and Exim have it (the `tls` clause of RFC 8314 4.3 has no place for the version)
    recipient    given when it is the only one: with more, the field would tell each who else got it
    at           Unix time, seconds; written in the local zone (RFC 5322 3.3)
    """
    address = f"[IPv6:{client_ip}]" if ":" in client_ip else f"[{client_ip}]"
    name = _NOT_NAME.sub("?", helo[:MAX_NAME]) or address
    peer = f"{_NOT_NAME.sub('?', client_name[:MAX_NAME])} {address}" if client_name else address
    using = f"\r\n\t(using {_NOT_COMMENT.sub('?', tls[:MAX_NAME])})" if tls else ""
    for_clause = f"\r\n\tfor <{_NOT_PATH.sub('?', recipient[: MAX_NAME * 2])}>" if recipient else ""
    return (
        f"Received: from {name} ({peer}){using}\r\n\tby {host} (forkd) with {protocol} id {queue_id}"
        f"{for_clause};\r\n\t{date(at)}\r\n"
    )


def made_here(*, host: str, queue_id: str, at: float) -> str:
    """The Received field of a message that we wrote ourselves, ending in CRLF: nobody sent it to us."""
    return f"Received: by {host} (forkd) id {queue_id};\r\n\t{date(at)}\r\n"


def protocol(esmtp: bool, *, tls: bool = False, auth: bool = False, utf8: bool = False) -> str:
    """The word behind `with`: ESMTPSA and its kin (RFC 3848), UTF8SMTPSA and its kin (RFC 6531 4.3).

    utf8  SMTPUTF8 was asked for this message. Without EHLO there is only SMTP: no word says more.
    """
    return _PROTOCOLS[esmtp, utf8, tls, auth] if esmtp else "SMTP"


_PROTOCOLS = {
    (True, utf8, tls, auth): f"{'UTF8SMTP' if utf8 else 'ESMTP'}{'S' if tls else ''}{'A' if auth else ''}"
    for utf8 in (False, True)
    for tls in (False, True)
    for auth in (False, True)
}


_cached: tuple[int, str] = (-1, "")


def date(at: float) -> str:
    """RFC 5322 3.3 date-time in the local zone; English whatever the locale. Cached for the second."""
    global _cached  # noqa: PLW0603 - one tuple, replaced whole: threads may both compute, never mix
    second = int(at)
    cached_second, text = _cached
    if cached_second == second:
        return text
    local = time.localtime(second)
    minutes = local.tm_gmtoff // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
    text = (
        f"{_DAYS[local.tm_wday]}, {local.tm_mday} {_MONTHS[local.tm_mon - 1]} {local.tm_year}"
        f" {local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d} {zone}"
    )
    _cached = (second, text)
    return text


def count_received(header: bytes) -> int:
    """How many hops the header tells of: its Received fields (RFC 5321 6.3, loop detection)."""
    return len(_RECEIVED.findall(header))
