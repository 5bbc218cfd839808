"""What stands between MAIL and the end of data? Sender, recipients, the message on its way to the spool."""

from __future__ import annotations

from collections.abc import Iterable

from forkd.config.recipients import Accepted
from forkd.message import trace
from forkd.queue.envelope import Edit, Envelope, Recipient
from forkd.queue.spool import Spool, SpoolError, SpoolFile
from forkd.sdk.headers import split_header
from forkd.smtp.address import Mailbox

HEAD_BYTES = 256 * 1024
"""How much of a message is looked at for its header: 100 Received fields take about 30 KiB."""


class Transaction:
    """One mail transaction. Thrown away whole by RSET, EHLO, a refusal or a lost connection."""

    __slots__ = ("_error", "_head", "body", "dropped", "file", "recipients", "sender", "size", "started_at")

    def __init__(self, sender: Mailbox | None, body: str) -> None:
        self.sender = sender
        self.body = body
        self.recipients: list[tuple[Mailbox, Accepted]] = []
        self.dropped = 0
        """Recipients that a plugin discarded: answered 250, in no envelope."""
        self.file: SpoolFile | None = None
        self.size = 0
        self.started_at = 0.0
        """Monotonic time of 354; 0: data has not begun."""
        self._head = bytearray()
        self._error: SpoolError | None = None

    def begin(self, spool: Spool | None, now: float) -> None:
        """Data begins. Raises SpoolFull, SpoolError. Without a spool only octets and header are kept."""
        self.started_at = now
        if spool is not None:
            self.file = spool.begin()

    def write(self, chunk: bytes) -> None:
        """Take a piece of the message; a failing disk is remembered until the end of data."""
        self.size += len(chunk)
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
        if self.file is not None and self._error is None:
            try:
                self.file.write(chunk)
            except SpoolError as error:
                self._error = error
                self.file.abort()

    @property
    def error(self) -> SpoolError | None:
        """What the disk refused while the data came in."""
        return self._error

    @property
    def header_size(self) -> int:
        """Octets of the header section, the empty line not counted, of those looked at."""
        return min(split_header(self._head), self.size)

    def hops(self) -> int:
        """Received fields in the header (RFC 5321 6.3)."""
        return trace.count_received(bytes(self._head[: self.header_size]))

    def read(self) -> Iterable[bytes]:
        """The message so far, for the sealed copy."""
        if self.file is None:
            return (bytes(self._head),)
        return self.file.read_for_copy()

    def envelope(self, *, received: str, edits: Iterable[Edit], received_at: float, **facts: str) -> Envelope:
        """What the spool keeps beside the message; `facts` as Envelope names them."""
        return Envelope(
            sender="" if self.sender is None else str(self.sender),
            recipients=tuple(Recipient(address=str(mailbox)) for mailbox, _ in self.recipients),
            trace=received,
            edits=tuple(edits),
            received_at=received_at,
            body=self.body,
            **facts,
        )

    def abort(self) -> None:
        """Forget everything; only tmp/ may keep a file, for recovery to remove."""
        if self.file is not None:
            self.file.abort()
            self.file = None
