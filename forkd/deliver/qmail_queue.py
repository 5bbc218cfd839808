"""How does mail get into a queue of qmail's kind? Its queue program takes message and envelope, and answers
by its exit status (qmail-queue(8); qmail_exits.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forkd.deliver import qmail_exits
from forkd.deliver.programs import HostGone, ProgramHost, feed
from forkd.deliver.transport import Delivery, Result, Target, refused_by_system
from forkd.message.edits import LineEnd, stream
from forkd.queue.format import Damaged
from forkd.smtp.address import a_labels, split_address

HOST_SLACK_S = 15.0
"""More time than the program has: its host kills it, and we hear of it."""
_JOINED = 32 * 1024
"""Recipients are written in pieces of about so many octets."""


class QmailQueue:
    """[transport.NAME] kind = "qmail-queue": the program takes the message for all of its recipients, or not.

    Descriptor 0: the message with LF line ends, our Received field on top, plugins' edits made. Descriptor 1,
    after that: `F` sender NUL, of each recipient `T` address NUL, NUL. End of file before the last NUL means
    that nothing may be queued: whatever goes wrong before is no delivery. Exit status 0 counts only for a
    program that has read the message. Return-Path and Delivered-To are the queue's to add.

    host       starts the program
    timeout_s  what the host gives it
    """

    parallel = 1024
    """A program may wait for a scanner or a disk: queue.concurrency bounds them."""
    batch = 1

    def __init__(self, name: str, host: ProgramHost, *, timeout_s: float) -> None:
        self.name = name
        self._host = host
        self._timeout_s = timeout_s

    def destination(self, target: Target) -> str:  # noqa: ARG002 - Transport
        """One for all."""
        return ""

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        """As Transport.deliver. Blocks for as long as the program runs."""
        return [self._one(delivery) for delivery in deliveries]

    def _one(self, delivery: Delivery) -> list[Result] | Damaged:
        message, targets = delivery.message, delivery.targets
        if not targets:
            return []
        envelope = message.envelope
        octets = stream(message.chunks(), envelope.trace, envelope.edits, line_end=LineEnd.LF)
        try:
            fed = feed(
                self._host,
                self.name,
                octets,
                envelope_octets(envelope.sender, targets),
                limit_s=self._timeout_s + HOST_SLACK_S,
            )
        except Damaged as damage:
            return damage
        except HostGone as gone:
            text = f"forkd's launcher, which starts queue programs: {gone}"
            return [Result(target, "deferred", "4.3.0", text) for target in targets]
        except OSError as error:
            return [refused_by_system(target, error) for target in targets]
        end = qmail_exits.meaning(fed)
        # No such program knows what a sender wants to be told.
        taken = end.status == "delivered"
        return [
            Result(target, end.status, end.enhanced, end.text, end.reply, relayed=taken) for target in targets
        ]


def envelope_octets(sender: str, targets: Sequence[Target]) -> Iterator[bytes]:
    """The envelope, in pieces: addresses without quotes, as qmail has them, recipients' domains as A-labels,
    since its control files have them so, whatever script the client used."""
    waiting = bytearray(_entry("F", *split_address(sender)))
    for target in targets:
        local, domain = split_address(target.address)
        waiting += _entry("T", local, _a_labels(target.domain or domain))
        if len(waiting) >= _JOINED:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting) + b"\0"


def _a_labels(domain: str) -> str:
    try:
        return a_labels(domain)
    except ValueError:
        return domain  # no name: an address literal


def _entry(letter: str, local: str, domain: str) -> bytes:
    plain = f"{local}@{domain}" if domain else local
    # SMTP's grammar has no NUL in an address: this is for whatever else may write envelopes one day.
    assert "\0" not in plain
    return f"{letter}{plain}\0".encode("utf-8", "surrogateescape")
