"""Invariant: whatever a server says, however it is cut, each mail has an outcome per recipient, `delivered`
only where it went out whole and had its 2xx, and the end comes once; no exception.

One input is one server: its first two octets choose the options and the seed of the cuts, the rest is what it
says, a reply for each thing it hears. Run it by itself with files or folders of inputs, or under any fuzzer
that calls one_input(data):

    python -m tests.fuzz.smtp_client tests/fuzz/corpus/smtp_client
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path

from forkd.smtp.client_events import BodyWanted, Closed, Finished, Outcome
from forkd.smtp.client_phases import Phase
from forkd.smtp.client_replies import KEPT_CHARACTERS
from forkd.smtp.client_sasl import Credentials
from forkd.smtp.reply import Reply
from tests.support.client_talk import Scripted, Talk, client, mail
from tests.support.feed import cut

MESSAGE = b"Subject: a\r\n\r\n.dot\r\n\r\n.\r\nMAIL FROM:<evil@example.org>\r\nend\r\n"
DOTTED = b"Subject: a\r\n\r\n..dot\r\n\r\n..\r\nMAIL FROM:<evil@example.org>\r\nend\r\n.\r\n"
"""As it goes out behind 354."""


class Speaker(Scripted):
    """Says the next reply, or what there is of it, whenever it hears something."""

    def __init__(self, speech: bytes, *, at_once: bool) -> None:
        super().__init__()
        self._lines = [speech] if at_once else speech.splitlines(keepends=True)

    def greeting(self) -> bytes:
        return self._next()

    def receive(self, octets: bytes) -> bytes:
        # As many replies as there are lines: with pipelining that is about right, and need not be.
        return b"".join(self._next() for _ in range(max(1, min(octets.count(b"\n"), 4))))

    def _next(self) -> bytes:
        said = b""
        while self._lines:
            line = self._lines.pop(0)
            said += line
            if line[3:4] != b"-":
                break
        return said


def one_input(data: bytes) -> None:
    """Play one dialogue; raises where the invariant does not hold."""
    choice = data[0] if data else 0
    seed, speech = data[1:2], data[2:]
    dice = random.Random(seed)  # the same input is the same run

    def pieces(octets: bytes) -> Iterable[bytes]:
        return cut(octets, (dice.randrange(len(octets) + 1) for _ in range(dice.randrange(1, 5))))

    whole = _play(choice, speech, lambda octets: [octets])
    parts = _play(choice, speech, pieces)
    for talk in (whole, parts):
        _check(talk, lmtp=bool(choice & 1))
    if choice & 16 and not choice & 32 and BodyWanted() not in whole.events:
        # Only of a server that says it all at once: else what it says hangs on when it hears us. Behind
        # BodyWanted, whether a reply is early or due is a matter of when it comes; so is what stands in the
        # clear before TLS.
        assert whole.events == parts.events
        assert parts.octets.startswith(whole.octets), "but what a violation kept from being said"


def _play(choice: int, speech: bytes, cutting: object) -> Talk:
    talk = Talk(
        client(
            lmtp=bool(choice & 1),
            pipelining=not choice & 2,
            chunking=not choice & 4,
            chunk_octets=20,
            auth_needs_tls=bool(choice & 8),
        ),
        Speaker(speech, at_once=bool(choice & 16)),
        [mail("a@test.local", "b@test.local", "c@test.local"), mail("d@test.local")],
        message=MESSAGE,
        tls=bool(choice & 32),
        credentials=Credentials("user", "password") if choice & 64 else None,
        nonce="nonce",
    )
    talk.cut = cutting  # type: ignore[assignment]
    return talk.run()


def _check(talk: Talk, *, lmtp: bool) -> None:
    assert isinstance(talk.end, Closed)
    assert talk.connection.next_event() is None
    assert talk.connection.data_to_send() == b""
    finished = [event for event in talk.events if isinstance(event, Finished)]
    begun = talk.connection.transactions
    assert len(finished) == begun, "a mail without an end"
    assert [len(event.outcomes) for event in finished] == [3, 1][:begun]
    ends = _ends(talk.octets)
    for number, event in enumerate(finished):
        for outcome in event.outcomes:
            _check_outcome(outcome)
        if any(one.status == "delivered" or one.uncertain for one in event.outcomes):
            wanted = sum(isinstance(one, BodyWanted) for one in talk.events[: talk.events.index(event)])
            assert ends >= 1, f"mail {number} was not sent whole"
            assert wanted >= 1
        if not lmtp:
            said = {one.reply for one in event.outcomes if one.status == "delivered"}
            assert len(said) <= 1, "one reply decides in SMTP"


def _check_outcome(outcome: Outcome) -> None:
    reply = outcome.reply
    if outcome.status == "delivered":
        assert outcome.phase is Phase.END
        assert reply is not None
        assert 200 <= reply.code < 300
    elif outcome.status == "permanent":
        assert reply is not None
        assert reply.code >= 500
    assert not outcome.uncertain or outcome.status == "temporary"
    assert reply is not None or outcome.why
    if reply is not None:
        _check_text(reply)
    assert outcome.why.isprintable()
    assert len(outcome.why) < 300


def _check_text(reply: Reply) -> None:
    assert sum(map(len, reply.lines)) <= KEPT_CHARACTERS
    assert all(line.isprintable() for line in reply.lines)


def _ends(sent: bytes) -> int:
    """How often the message went out whole, by DATA or by BDAT."""
    count = 0
    for transaction in sent.split(b"MAIL FROM:<sender@"):
        count += b"\r\n" + DOTTED in b"\r\n" + transaction
        chunks, at = b"", 0
        while (at := transaction.find(b"BDAT ", at)) >= 0:
            line, _, rest = transaction[at:].partition(b"\r\n")
            octets = int(line.split()[1])
            chunks += rest[:octets]
            at += len(line) + 2 + octets
            count += line.endswith(b"LAST") and chunks == MESSAGE
    return count


def main(paths: list[str]) -> None:
    """Run every file named, and every file in the folders named."""
    for path in map(Path, paths):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            one_input(file.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
