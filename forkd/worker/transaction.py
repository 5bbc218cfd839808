"""What stands between MAIL and the end of data? Sender, recipients, the message on its way to the spool."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from forkd.config.expansion import Expanded
from forkd.config.recipients import Accepted
from forkd.message import trace
from forkd.queue.envelope import Edit, Envelope, Recipient, Replaced
from forkd.queue.spool import Spool, SpoolError, SpoolFile
from forkd.rpc.calls import CallFailed
from forkd.sdk.headers import Headers, missing_end, split_header
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Mail
from forkd.worker import expansion
from forkd.worker.bodies import Body

HEAD_BYTES = 256 * 1024
"""How much of a message is kept to look at its header, at most: 100 Received fields take about 30 KiB."""

_HEADER_END = b"\r\n\r\n"


class Destination(NamedTuple):
    """One recipient that was answered 250, or that a plugin added."""

    mailbox: Mailbox
    route: Accepted | Expanded
    notify: tuple[str, ...] = ()
    orcpt: str = ""
    original: Mailbox | None = None
    """What the client said, where a plugin rewrote it."""


class Transaction:
    """One mail transaction. Thrown away whole by RSET, EHLO, a refusal or a lost connection."""

    __slots__ = (
        "_body",
        "_error",
        "_head",
        "_head_done",
        "_whole_crc",
        "body",
        "dropped",
        "envid",
        "file",
        "hold",
        "members",
        "original_sender",
        "recipients",
        "ret",
        "sender",
        "sender_changed",
        "size",
        "smtputf8",
        "started_at",
    )

    def __init__(self, mail: Mail) -> None:
        self.sender: Mailbox | None = mail.sender
        self.body = mail.body
        self.smtputf8 = mail.smtputf8
        self.ret = mail.ret
        self.envid = mail.envid
        self.recipients: list[Destination] = []
        self.members = 0
        """Addresses that those of them stand for that are aliases."""
        self.dropped: list[Mailbox] = []
        """Recipients that a plugin discarded or deleted: answered 250, in no envelope."""
        self.sender_changed = False
        self.original_sender: Mailbox | None = None
        """What the client said, where `sender_changed`."""
        self.hold = ""
        """A plugin quarantined the message: why."""
        self.file: SpoolFile | None = None
        self.size = 0
        """Octets that the client sent."""
        self.started_at = 0.0
        """Monotonic time of 354; 0: data has not begun."""
        self._head = bytearray()
        self._head_done = False
        self._body: Body | None = None
        self._whole_crc: int | None = None
        """CRC-32 of the client's octets; known once something is written behind them."""
        self._error: SpoolError | None = None

    # --- the envelope -----------------------------------------------------------------------------------

    def accept(
        self,
        mailbox: Mailbox,
        route: Accepted | Expanded,
        *,
        notify: tuple[str, ...] = (),
        orcpt: str = "",
        original: Mailbox | None = None,
    ) -> None:
        """A recipient stands."""
        if isinstance(route, Expanded):
            self.members += len(route.members)
        self.recipients.append(Destination(mailbox, route, notify, orcpt, original))

    def drop_all(self) -> None:
        """A plugin discarded the message: answered 250, kept for nobody."""
        self.dropped += [to.original or to.mailbox for to in self.recipients]
        self.recipients.clear()

    def remove(self, mailboxes: Iterable[Mailbox]) -> None:
        """A plugin deleted these recipients."""
        gone = frozenset(mailboxes)
        self.dropped += [to.original or to.mailbox for to in self.recipients if to.mailbox in gone]
        self.recipients = [to for to in self.recipients if to.mailbox not in gone]

    def rewrite_sender(self, sender: Mailbox | None) -> None:
        """A plugin changed the sender; what the client said is kept."""
        if not self.sender_changed:
            self.sender_changed, self.original_sender = True, self.sender
        self.sender = sender

    def envelope(self, *, received: str, edits: Iterable[Edit], received_at: float, **facts: Any) -> Envelope:
        """What the spool keeps beside the message; `facts` as Envelope names them."""
        if self.sender_changed:
            facts["original_sender"] = "" if self.original_sender is None else str(self.original_sender)
        body = self._body
        if body is None:
            if self._whole_crc is not None:
                # Bodies that nobody wanted lie behind the message.
                facts["replaced"] = Replaced(
                    kept=self.size, kept_crc=self._whole_crc, offset=self.size, octets=0, crc=0
                )
        else:
            head = self._head[: body.kept]
            facts["replaced"] = Replaced(
                kept=len(head),
                kept_crc=zlib.crc32(head),
                offset=body.offset,
                octets=body.octets,
                crc=body.crc,
            )
        return Envelope(
            sender="" if self.sender is None else str(self.sender),
            recipients=self._recipients(),
            trace=received,
            edits=tuple(edits),
            received_at=received_at,
            hold=self.hold,
            body=self.body if body is None or body.ascii else "8BITMIME",
            smtputf8=self.smtputf8,
            ret=self.ret,
            envid=self.envid,
            **facts,
        )

    def _recipients(self) -> tuple[Recipient, ...]:
        if self.members:
            return expansion.recipients(self.recipients, null_sender=self.sender is None)
        return tuple(
            [
                Recipient(
                    address=str(mailbox),
                    notify=notify,
                    orcpt=orcpt,
                    original="" if original is None else str(original),
                )
                for mailbox, _, notify, orcpt, original in self.recipients
            ]
        )

    # --- the message ------------------------------------------------------------------------------------

    def begin(self, spool: Spool | None, now: float) -> None:
        """Data begins. Raises SpoolFull, SpoolError. Without a spool only octets and header are kept."""
        self.started_at = now
        if spool is not None:
            self.file = spool.begin()

    def write(self, chunk: bytes) -> None:
        """Take a piece of the message; a failing disk is remembered until the end of data."""
        self.size += len(chunk)
        if not self._head_done:
            self._look_at(chunk)
        self._keep(chunk)

    def _keep(self, octets: bytes) -> None:
        if self.file is not None and self._error is None:
            try:
                self.file.write(octets)
            except SpoolError as error:
                self._error = error
                self.file.abort()

    def _look_at(self, chunk: bytes) -> None:
        """Keep what may be header."""
        head = self._head
        known = len(head)
        head += chunk if known + len(chunk) <= HEAD_BYTES else chunk[: HEAD_BYTES - known]
        self._head_done = (
            head.find(_HEADER_END, max(0, known - 3)) >= 0
            or head.startswith(b"\r\n")
            or len(head) >= HEAD_BYTES
        )

    @property
    def error(self) -> SpoolError | None:
        """What the disk refused while the data came in."""
        return self._error

    @property
    def header_size(self) -> int:
        """Octets of the header section, the empty line behind it too; as the client sent it."""
        return split_header(self._head)

    @property
    def edited_header_size(self) -> int:
        """As header_size, of the message as it stands; with the empty line that a new body brought along."""
        body = self._body
        if body is None or body.kept:
            return self.header_size + (0 if body is None else body.lead)
        return split_header(body.head)

    @property
    def edited_size(self) -> int:
        """Octets of the message as it stands: the client's header, and the body last given; or another's."""
        return self.size if self._body is None else self._body.kept + self._body.octets

    def _header(self) -> bytes:
        """The header section as it stands, with the empty line where it has one. No edit is applied to it."""
        head = self._head if self._body is None or self._body.kept else self._body.head
        return bytes(head[: split_header(head)])

    def hops(self) -> int:
        """Received fields in the header (RFC 5321 6.3)."""
        return trace.count_received(bytes(self._head[: self.header_size]))

    def loops(self, most: int) -> bool:
        """More than `most` hops. The header is taken apart only where that may be."""
        return self._head.lower().count(b"received") > most and self.hops() > most

    def lacks(self, name: str) -> bool:
        """No field of that name is in the client's header; an endless one is said to lack none."""
        header = self._header()
        return len(header) < HEAD_BYTES and name not in Headers(header)

    def read(self) -> Iterator[bytes]:
        """The message as it stands, for the sealed copy. Raises SpoolError."""
        file, body = self.file, self._body
        if file is None:
            yield bytes(self._head)
        elif body is None:
            yield from file.read_back(0, self.size)
        else:
            yield bytes(self._head[: body.kept])
            yield from file.read_back(body.offset, body.octets)

    def new_body(self, *, limit: int) -> Body:
        """A sink for a body in the place of the client's, or of an earlier plugin's.

        limit  octets of header and body
        Raises CallFailed: the header is longer than is looked at, so nobody knows where the body begins.
        """
        header = self._header()
        if len(header) >= HEAD_BYTES:
            raise CallFailed("protocol", f"a new body behind a header of more than {HEAD_BYTES} octets")
        lead = missing_end(header)
        if self._body is None or self._body.kept:
            return self._sink(kept=len(header), lead=lead, limit=limit - len(header))
        # What a whole message brought lies elsewhere in the file: its header goes along.
        return self._sink(kept=0, lead=header + lead, limit=limit - len(header))

    def new_message(self, *, limit: int) -> Body:
        """A sink for another message in the place of this one. limit: its octets."""
        return self._sink(kept=0, lead=b"", limit=limit)

    def _sink(self, *, kept: int, lead: bytes, limit: int) -> Body:
        if self.file is not None and self._whole_crc is None:
            self._whole_crc = self.file.checksum()
        return Body(
            self._keep,
            offset=self.size if self.file is None else self.file.size,
            kept=kept,
            lead=lead,
            limit=limit,
            head=0 if kept else HEAD_BYTES,
            done=self.replace_body,
        )

    def replace_body(self, body: Body | None) -> None:
        """This finished body, or whole message, is the message's; None: the client's own."""
        self._body = body

    def abort(self) -> None:
        """Forget everything; only tmp/ may keep a file, for recovery to remove."""
        if self.file is not None:
            self.file.abort()
            self.file = None
