"""What does a session tell its plugins?"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """Facts of one session; the names are those of forkd.sdk.Session, and of the frame's `session` object.

    client_name  the reverse name where it is known and verified, else empty.
    helo         None before HELO or EHLO.
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
