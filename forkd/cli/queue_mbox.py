"""How does a message stand in an mbox? A separator, its lines with `From ` quoted, an empty line (mboxrd)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator

from forkd.queue.envelope import Envelope

_FROM = re.compile(rb"^(>*From )", re.MULTILINE)


def mbox(message: Iterable[bytes], envelope: Envelope) -> Iterator[bytes]:
    """The message, LF line ends, as one entry of an mbox file."""
    sender = re.sub(r"\s", "_", envelope.sender) or "MAILER-DAEMON"
    date = time.asctime(time.gmtime(envelope.received_at))
    yield f"From {sender} {date}\n".encode("utf-8", "replace")
    last = b""
    for piece in _lines(message):
        yield _FROM.sub(rb">\1", piece)
        last = piece[-1:] or last
    yield b"\n" if last == b"\n" else b"\n\n"


def _lines(message: Iterable[bytes]) -> Iterator[bytes]:
    """The same octets, cut so that each piece begins a line."""
    parts: list[bytes] = []
    for piece in message:
        whole, end, rest = piece.rpartition(b"\n")
        if not end:
            parts.append(piece)
            continue
        yield b"".join([*parts, whole, end])
        parts = [rest]
    yield b"".join(parts)
