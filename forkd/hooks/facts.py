"""What does a session tell its plugins?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """Facts of one session; the names are those of forkd.sdk.Session, and of the frame's `session` object.

    client_name         the reverse name where it is known and verified, else empty.
    helo                None before HELO or EHLO.
    tls_version         "TLSv1.3"; empty without TLS; tls_cipher likewise.
    client_certificate  the subject of the verified certificate, or empty.
    user                who authenticated, or empty.
    relay               the client's address may send to any domain (networks.relay).
    proxied, xclient    the client's address came by PROXY, or by XCLIENT, from a host that may say so.
    exports             what plugins exported; set by SessionHooks alone.
    """

    id: str
    client_ip: str
    client_port: int
    client_name: str = ""
    local_ip: str = ""
    local_port: int = 0
    listener: str = ""
    hostname: str = ""
    helo: str | None = None
    esmtp: bool = False
    tls_version: str = ""
    tls_cipher: str = ""
    client_certificate: str = ""
    user: str = ""
    relay: bool = False
    proxied: bool = False
    xclient: bool = False
    exports: Mapping[str, str] = dataclasses.field(default_factory=dict)
