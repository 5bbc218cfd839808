"""How does a listener meet its clients? What follows from its table, once per worker."""

from __future__ import annotations

import dataclasses

from forkd.config.schema import Config
from forkd.smtp.server import ServerOptions


@dataclasses.dataclass(frozen=True, slots=True)
class Listening:
    """One [listener.NAME] as sessions need it.

    options           for the engine; one value for all sessions
    submission        who has authenticated may send to anywhere, from his own addresses
    proxy             a PROXY header comes first
    implicit_tls      a TLS handshake comes first, behind the header
    greeting_delay_s  for clients that are not trusted
    """

    options: ServerOptions
    submission: bool
    proxy: bool
    implicit_tls: bool
    greeting_delay_s: float


def listening(config: Config, name: str, *, tls: bool, mechanisms: tuple[str, ...]) -> Listening:
    """Of listener `name`.

    tls         there is a certificate
    mechanisms  those that can be offered, in their order
    """
    listener = config.listener[name]
    submission = listener.role == "submission"
    authenticates = listener.auth == "on" or (listener.auth == "auto" and submission)
    offered = listener.tls in ("starttls", "required") or (listener.tls == "auto" and tls)
    return Listening(
        options=ServerOptions(
            hostname=config.server.hostname,
            greeting=config.server.greeting,
            message_size=config.limits.message_size,
            command_line=config.limits.command_line,
            recipients=config.limits.recipients,
            errors=config.limits.errors,
            wire=listener.wire,
            early_talker=listener.early_talker,
            # Who waits for the next hop's answer gets its reports, if it writes any: we cannot know.
            dsn=listener.accept == "queue",
            tls=offered,
            tls_required=listener.tls == "required",
            auth=mechanisms if authenticates else (),
            auth_needs_tls=not listener.auth_without_tls,
            auth_required=submission,
        ),
        submission=submission,
        proxy=listener.proxy,
        implicit_tls=listener.tls == "implicit",
        greeting_delay_s=float(listener.greeting_delay),
    )
