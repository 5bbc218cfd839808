"""What of a delivery goes to a next hop? The words for MAIL and RCPT, and the message's octets with CRLF."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from forkd.deliver.transport import Delivery, Target
from forkd.message.edits import LineEnd, field, stream
from forkd.message.seven_bit import beyond_ascii, encoded, parts_beyond_ascii
from forkd.smtp.address import Mailbox, a_labels, split_address
from forkd.smtp.client_mail import OutgoingMail, OutgoingRecipient, original
from forkd.smtp.client_offered import Offered


class Outgoing:
    """A message on its way out, and those of its recipients who go along.

    Return-Path is left to whom delivers at last (RFC 5321 4.4). MAIL has no AUTH parameter: no server
    believes what we could say there of the author (RFC 4954 5).
    """

    def __init__(self, delivery: Delivery) -> None:
        message = delivery.message
        self._message = message
        self._envelope = message.envelope
        self.targets = delivery.targets
        self._together = delivery.together
        self.blocks = not message.in_memory
        """The octets come from a disk, in pieces."""
        self._whole = b"" if self.blocks else b"".join(self._stream())
        self._eight_bit: bool | None = None
        self._utf8_header: bool | None = None
        if not self.blocks:
            self._eight_bit, self._utf8_header = beyond_ascii((self._whole,))

    def pieces(self) -> Iterator[bytes]:
        """The octets, each time from the first. Raises Damaged and OSError, as StoredMessage.chunks()."""
        return self._stream() if self.blocks else iter((self._whole,))

    async def look(self, offered: Offered) -> None:
        """Find out, before mail(), what this server needs to be known of the message. Reads all of it at most
        once, and only for a server that has not learnt 8BITMIME or SMTPUTF8. Raises as pieces()."""
        unknown = self._eight_bit is None and not offered.eight_bit
        unknown |= self._utf8_header is None and not offered.smtputf8 and self._envelope.smtputf8
        if unknown:
            loop = asyncio.get_running_loop()
            self._eight_bit, self._utf8_header = await loop.run_in_executor(None, self._look)

    async def seven_bit(self) -> Iterator[bytes]:
        """As pieces(), for a server without 8BITMIME; there is so much to do for each that it blocks. Reads
        all of them once before. Raises as pieces()."""
        loop = asyncio.get_running_loop()
        parts = await loop.run_in_executor(None, parts_beyond_ascii, self.pieces())
        return encoded(self.pieces(), parts)

    def _look(self) -> tuple[bool, bool]:
        return beyond_ascii(self._stream())

    def _stream(self) -> Iterator[bytes]:
        envelope = self._envelope
        return stream(self._message.chunks(), envelope.trace, envelope.edits, line_end=LineEnd.CRLF)

    def mail(self, targets: Sequence[Target], offered: Offered, *, seven_bit: bool = False) -> OutgoingMail:
        """MAIL and RCPT for those targets, in the words that this server has learnt.

        seven_bit  it goes as seven_bit() gives it
        Raises     ValueError for addresses that no command can have: see addressable().
        """
        envelope = self._envelope
        utf8 = offered.smtputf8
        # Who asked for SMTPUTF8 needs it where the header or an address does (RFC 6531 3.4).
        wants_utf8 = envelope.smtputf8 and (self._utf8_header is not False)
        return OutgoingMail(
            _spelled(envelope.sender, utf8=utf8),
            tuple(self._recipient(target, offered) for target in targets),
            size=None if seven_bit else self._size(),
            eight_bit=self._eight_bit is not False and not seven_bit,
            utf8_header=wants_utf8,
            ret=envelope.ret,
            envid=envelope.envid,
            together=self._together,
        )

    def ascii(self, target: Target) -> bool:
        """A server without SMTPUTF8 can have this recipient."""
        return _spelled(target.address, utf8=False).isascii()

    def _recipient(self, target: Target, offered: Offered) -> OutgoingRecipient:
        address = _spelled(target.address, utf8=offered.smtputf8)
        if not offered.dsn:
            return OutgoingRecipient(address)
        recipient = self._envelope.recipients[target.index]
        # RFC 3461 5.2.1: who relays may say what the address was when it came, where nobody has yet. To a
        # list's owner, who hears of its members, that is the member's own (5.2.7.1).
        said = "" if recipient.sender else recipient.original
        orcpt = recipient.orcpt or original(said or recipient.address)
        try:
            return OutgoingRecipient(address, recipient.notify, orcpt)
        except ValueError:
            return OutgoingRecipient(address, recipient.notify)  # too long in xtext: nobody is owed it

    def _size(self) -> int:
        if not self.blocks:
            return len(self._whole)
        # An estimate is allowed (RFC 1870 6.1): what edits take away is not worth a look at the header.
        envelope = self._envelope
        added = sum(len(field(edit.name, edit.value)) for edit in envelope.edits if edit.op == "add_header")
        return self._message.size + len(envelope.trace) + added


def addressable(address: str) -> bool:
    """RCPT can have it."""
    try:
        OutgoingRecipient(address)
    except ValueError:
        return False
    return True


def _spelled(address: str, *, utf8: bool) -> str:
    """For a server without SMTPUTF8 the same domain in ASCII; a local part cannot be helped so."""
    if utf8 or address.isascii():
        return address
    local, domain = split_address(address)
    try:
        spelled = str(Mailbox(local, a_labels(domain)))
    except ValueError:
        return address
    return spelled if addressable(spelled) else address  # in ASCII it may be too long
