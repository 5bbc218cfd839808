"""Invariant: any octets, cut anywhere, give the same events, replies that are whole lines, and no exception.

One input is one dialogue. Its first two octets choose the options and the seed of the cuts, the rest is
what the client says. Run it by itself with files or folders of inputs, or under any fuzzer that
calls one_input(data):

    python -m tests.fuzz.smtp_server tests/fuzz/corpus/smtp_server
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from forkd.smtp import replies
from forkd.smtp.events import Auth, Data, DataChunk, DataEnd, Event, Hello, Rset, Xclient
from forkd.smtp.reply import Reply
from forkd.smtp.server import ServerConnection
from tests.support.feed import accept, assert_same, cut, fresh, pile, play

MESSAGE_SIZE = 300


def one_input(data: bytes) -> None:
    """Play one dialogue; raises where the invariant does not hold."""
    switches, seed, speech = data[:1], data[1:2], data[2:]
    choice = switches[0] if switches else 0
    start = fresh(
        _policy,
        wire="reject" if choice & 1 else "normalize",
        recipients=2 if choice & 2 else 100,
        errors=3 if choice & 4 else 20,
        message_size=MESSAGE_SIZE,
        auth=("PLAIN", "LOGIN") if choice & 8 else (),
        auth_needs_tls=False,
        auth_required=bool(choice & 8 and choice & 16),
        xclient=bool(choice & 32),
    )
    dice = random.Random(seed)  # the same input is the same run
    pieces = cut(speech, (dice.randrange(len(speech) + 1) for _ in range(dice.randrange(1, 9))))
    whole = play(start, [speech])
    assert_same(play(start, pieces), whole)
    assert_same(pile(start, pieces), whole)
    _check_replies(whole.sent)
    stored = 0
    for event in whole.events:
        if isinstance(event, DataChunk):
            stored += len(event.data)
            assert stored <= MESSAGE_SIZE, "more was given out than the limit"
            assert b"\0" not in event.data
            bare = event.data.replace(b"\r\n", b"")
            assert b"\r" not in bare
            assert b"\n" not in bare
        elif isinstance(event, DataEnd):
            assert event.fault is not None or stored == event.size
            stored = 0
        elif isinstance(event, Hello | Rset | Xclient):  # chunks thrown away
            stored = 0


def _policy(connection: ServerConnection, event: Event) -> Reply:
    """Takes everything, after one challenge where AUTH says nothing yet; no chunks from `refuse`."""
    if isinstance(event, Auth) and event.initial is None:
        return replies.challenge(b"?")
    if isinstance(event, Data) and event.chunked and connection.helo == "refuse":
        return replies.NO_SPACE
    return accept(connection, event)


def _check_replies(sent: bytes) -> None:
    lines = sent.split(b"\r\n")
    assert lines.pop() == b"", "a reply is cut short"
    for line in lines:
        assert len(line) <= 510
        assert line[:3].isdigit()
        assert line[3:4] in (b" ", b"-")
        assert line.decode("ascii").isprintable()


def main(paths: list[str]) -> None:
    """Run every file named, and every file in the folders named."""
    for path in map(Path, paths):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            one_input(file.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
