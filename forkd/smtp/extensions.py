"""What do we offer, and how do we greet? One row per keyword of the EHLO reply (RFC 5321 4.1.1.1)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from forkd.smtp.commands import XCLIENT_ATTRIBUTES
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply
from forkd.smtp.terms import Terms


@dataclasses.dataclass(frozen=True, slots=True)
class Extension:
    """One keyword; `argument` makes what stands behind it, None: it is not offered on these terms."""

    keyword: str
    source: str
    argument: Callable[[Terms], str | None] = lambda _: ""

    def line(self, terms: Terms) -> str | None:
        """The line of the reply, or None."""
        argument = self.argument(terms)
        return None if argument is None else f"{self.keyword} {argument}".rstrip()


def _auth(terms: Terms) -> str | None:
    return None if "AUTH" in terms.refusals else " ".join(terms.options.auth)


EXTENSIONS: tuple[Extension, ...] = (
    Extension("PIPELINING", "RFC 2920"),
    Extension("SIZE", "RFC 1870", lambda terms: str(terms.options.message_size)),
    Extension("8BITMIME", "RFC 6152"),
    Extension("SMTPUTF8", "RFC 6531"),
    Extension("CHUNKING", "RFC 3030"),
    Extension("LIMITS", "RFC 9422", lambda terms: f"RCPTMAX={terms.options.recipients}"),
    Extension("ENHANCEDSTATUSCODES", "RFC 2034"),
    Extension("DSN", "RFC 3461", lambda terms: "" if terms.options.dsn else None),
    Extension("STARTTLS", "RFC 3207", lambda terms: None if "STARTTLS" in terms.refusals else ""),
    Extension("AUTH", "RFC 4954", _auth),
    Extension(
        "XCLIENT",
        "Postfix XCLIENT_README",
        lambda terms: " ".join(XCLIENT_ATTRIBUTES) if terms.xclient else None,
    ),
    Extension("HELP", "RFC 5321 4.1.1.8"),
)
"""In the order announced."""


# Terms and options are few values, hashed by identity: each reply is made once.
@functools.lru_cache(maxsize=256)
def hello_reply(terms: Terms, extended: bool) -> Reply:
    """250 to EHLO, with the extensions, or to HELO, without; no enhanced code (RFC 2034 4)."""
    if not extended:
        return Reply(250, None, (terms.options.hostname,))
    lines = [line for row in EXTENSIONS if (line := row.line(terms)) is not None]
    return Reply(250, None, (terms.options.hostname, *lines))


@functools.lru_cache(maxsize=64)
def greeting_reply(options: ServerOptions) -> Reply:
    """220, the first thing said (RFC 5321 4.2)."""
    first, *rest = options.greeting.split("\n")
    return Reply(220, None, (f"{options.hostname} {first}".rstrip(), *rest))
