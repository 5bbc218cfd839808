"""Which commands are not to be had on this connection now, whatever its state, and what are they answered?

A listener offers more or less, TLS may have to come first, then authentication. What stands in the way
of a command is known before the command is: so it costs nothing where nothing stands in the way.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Final

from forkd.smtp import replies
from forkd.smtp.commands import COMMANDS
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply
from forkd.smtp.states import TRANSITIONS, State

_BEFORE_TLS: Final = frozenset({"EHLO", "NOOP", "STARTTLS", "QUIT", "XCLIENT"})
"""What tls_required still allows (RFC 3207 4); XCLIENT comes from a proxy of ours."""
_AFTER_AUTH: Final = ("MAIL", "RCPT", "DATA", "BDAT", "VRFY", "EXPN")
"""What auth_required keeps for later (RFC 4954 6; HELP tells nothing, so it may be asked)."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)  # hashed by identity: terms() gives one of each
class Terms:
    """What holds on a connection at a time. Made by terms()."""

    options: ServerOptions
    xclient: bool
    refusals: Mapping[str, Reply]
    """Verbs that are refused in every state, and how."""
    moves: tuple[Mapping[str, State], ...]
    """TRANSITIONS without those verbs, by State."""


@functools.lru_cache(maxsize=256)
def terms(options: ServerOptions, secure: bool, authenticated: bool, xclient: bool) -> Terms:
    """The terms of a connection: TLS holds or not, somebody has authenticated, XCLIENT is allowed.

    By position: looking it up with keywords takes twice as long, and that is done for every connection.
    """
    refusals = {}
    if options.auth_required and not authenticated:
        refusals.update(dict.fromkeys(_AFTER_AUTH, replies.AUTH_NEEDED))
    if not options.auth:
        refusals["AUTH"] = replies.NOT_IMPLEMENTED
    elif authenticated:
        refusals["AUTH"] = replies.AUTH_DONE  # RFC 4954 4: once
    elif options.auth_needs_tls and not secure:
        refusals["AUTH"] = replies.AUTH_NEEDS_TLS
    if options.tls_required and not secure:
        later = {row.verb for row in COMMANDS.values()} - _BEFORE_TLS
        refusals.update(dict.fromkeys(later, replies.TLS_NEEDED))
    if secure:
        refusals["STARTTLS"] = replies.TLS_ACTIVE
    elif not options.tls:
        refusals["STARTTLS"] = replies.NOT_IMPLEMENTED
    if not xclient:
        refusals["XCLIENT"] = replies.XCLIENT_DENIED
    moves = (
        {verb: target for verb, target in TRANSITIONS[state].items() if verb not in refusals}
        for state in State
    )
    return Terms(options, xclient, refusals, tuple(moves))
