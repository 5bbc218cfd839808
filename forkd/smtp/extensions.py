"""What do we offer, and how do we greet? One row per keyword of the EHLO reply (RFC 5321 4.1.1.1)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply


@dataclasses.dataclass(frozen=True, slots=True)
class Extension:
    """One keyword; `argument` makes what stands behind it, None: it is not offered with these options."""

    keyword: str
    source: str
    argument: Callable[[ServerOptions], str | None] = lambda _: ""

    def line(self, options: ServerOptions) -> str | None:
        """The line of the reply, or None."""
        argument = self.argument(options)
        return None if argument is None else f"{self.keyword} {argument}".rstrip()


EXTENSIONS: tuple[Extension, ...] = (
    Extension("PIPELINING", "RFC 2920"),
    Extension("SIZE", "RFC 1870", lambda options: str(options.message_size)),
    Extension("8BITMIME", "RFC 6152"),
    Extension("ENHANCEDSTATUSCODES", "RFC 2034"),
    Extension("HELP", "RFC 5321 4.1.1.8"),
)
"""In the order announced."""


# Options are one value per listener and are hashed by identity: each reply is made once.
@functools.lru_cache(maxsize=64)
def hello_reply(options: ServerOptions, extended: bool) -> Reply:
    """250 to EHLO, with the extensions, or to HELO, without; no enhanced code (RFC 2034 4)."""
    if not extended:
        return Reply(250, None, (options.hostname,))
    lines = [line for row in EXTENSIONS if (line := row.line(options)) is not None]
    return Reply(250, None, (options.hostname, *lines))


@functools.lru_cache(maxsize=64)
def greeting_reply(options: ServerOptions) -> Reply:
    """220, the first thing said (RFC 5321 4.2)."""
    return Reply(220, None, (f"{options.hostname} {options.greeting}".rstrip(),))
