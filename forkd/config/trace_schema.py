"""[trace]: how much is kept of what happened to sessions and messages, for `forkd explain`?"""

from __future__ import annotations

from typing import Annotated

from forkd.config.table import DAY, Between, Table
from forkd.config.units import Bytes, Seconds


class Trace(Table, frozen=True):
    """[trace]: what admin keeps of sessions and messages. It holds addresses and replies, never mail.

    Whichever bound is reached first holds: the oldest go.
    """

    keep: Annotated[Seconds, Between(0, 90 * DAY)] = Seconds(86_400)
    """So long; 0: nothing is kept, nothing observed. A day: who misses mail asks the next day."""
    sessions: Annotated[int, Between(1, 100_000_000)] = 100_000
    """So many; about 100 MiB where each hands in one message and plugins are asked."""
    max_size: Annotated[Bytes, Between(1 << 20, 1 << 40)] = Bytes(512 << 20)
    """Of the file: clients that talk for long shall not fill the disk that mail is kept on."""
