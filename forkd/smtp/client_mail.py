"""What is sent, what must a server be able to do for it, and how do MAIL and RCPT say so?"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Final, Literal

from forkd.smtp import grammar, parameters, replies, xtext
from forkd.smtp.address import split_address
from forkd.smtp.client_offered import Offered
from forkd.smtp.reply import Reply, reply

Need = Literal["size", "8bitmime", "smtputf8", "recipients", "domains", "transactions"]

_TOO_BIG: Final = reply(552, "5.3.4", "Message too big for the next server")
_NO_8BITMIME: Final = reply(554, "5.6.3", "The next server takes no 8-bit message")
NO_SMTPUTF8: Final = reply(550, "5.6.7", "The next server takes no internationalized address or header")
_TOO_MANY: Final = replies.TOO_MANY_RECIPIENTS
_NO_MORE: Final = reply(421, "4.5.3", "The next server takes no further message on this connection")

_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")


@dataclasses.dataclass(frozen=True, slots=True)
class Unmet:
    """The server cannot do what this mail needs: see what can be made of it, before MAIL.

    size, 8bitmime, smtputf8   convert the message, or bounce it with `reply`
    recipients                 send the first `limit` of them, the rest in another transaction
    domains                    send those of the first `limit` domains, the rest over another connection
    transactions               use another connection
    """

    need: Need
    reply: Reply
    limit: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class OutgoingRecipient:
    """One recipient. Raises ValueError for what can stand in no RCPT, so that nothing can be injected."""

    address: str
    """As Mailbox writes it."""
    notify: tuple[str, ...] = ()
    """NEVER, or some of SUCCESS, FAILURE, DELAY; empty: not said (RFC 3461 4.1)."""
    orcpt: str = ""
    """As events.Rcpt has it: an address type and xtext; empty: not said. See original()."""

    def __post_init__(self) -> None:
        _check_path(self.address)
        if self.notify:
            _check("RCPT", "NOTIFY", ",".join(self.notify))
        if self.orcpt:
            _check("RCPT", "ORCPT", self.orcpt)


@dataclasses.dataclass(frozen=True, slots=True)
class OutgoingMail:
    """One transaction, but for the message's octets. Raises ValueError as OutgoingRecipient does."""

    sender: str
    """As Mailbox writes it; empty: the null sender."""
    recipients: tuple[OutgoingRecipient, ...]
    size: int | None = None
    """Octets of the message with CRLF, as it will be sent; None: not known."""
    eight_bit: bool = False
    """The body has octets beyond ASCII."""
    utf8_header: bool = False
    """The header has (RFC 6532)."""
    ret: str = ""
    """FULL, HDRS, or empty (RFC 3461 4.3)."""
    envid: str = ""
    """In xtext, as events.Mail has it (RFC 3461 4.4)."""
    together: bool = False
    """For all recipients or for none: who is refused before the message keeps it from the others."""

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("a mail needs a recipient")
        if self.sender:
            _check_path(self.sender)
        if self.ret:
            _check("MAIL", "RET", self.ret)
        if self.envid:
            _check("MAIL", "ENVID", self.envid)

    @property
    def smtputf8(self) -> bool:
        """Header or addresses need RFC 6531."""
        return (
            self.utf8_header
            or not self.sender.isascii()
            or not all(recipient.address.isascii() for recipient in self.recipients)
        )

    @property
    def domains(self) -> int:
        """How many the recipients have."""
        return len({split_address(recipient.address)[1].lower() for recipient in self.recipients})


@functools.lru_cache(maxsize=4096)  # an address is seen again in each transaction, and often in the next mail
def _check_path(address: str) -> None:
    read = grammar.path(f"<{address}>".encode(), replies.BAD_RECIPIENT)
    if isinstance(read, Reply) or read[0] is None or read[1]:
        raise ValueError(f"{address!r} is no address that a command may have")


def _check(verb: str, keyword: str, value: str) -> None:
    if not parameters.OF_VERB[verb][keyword].value.fullmatch(value):
        raise ValueError(f"{keyword}: {value!r} is no value that a command may have")


def original(address: str) -> str:
    """ORCPT of an address that was rewritten here, where the client gave none (RFC 3461 4.2, RFC 6533 3)."""
    if address.isascii():
        return "rfc822;" + xtext.encode(address)
    return "utf-8;" + _downgraded(xtext.encode(address.replace("\\", "\\x{5C}")))


def _downgraded(text: str) -> str:
    """UTF-8 in xtext, for a server without SMTPUTF8 (RFC 6533 3, EmbeddedUnicodeChar)."""
    return _NOT_ASCII.sub(lambda character: f"\\x{{{ord(character[0]):X}}}", text)


def unmet(mail: OutgoingMail, offered: Offered, *, sent: int = 0) -> tuple[Unmet, ...]:
    """What the server cannot do for this mail; empty: it can go.

    sent  transactions of this connection so far
    """
    found: list[Unmet] = []
    if offered.size is not None and mail.size is not None and mail.size > offered.size:
        found.append(Unmet("size", _TOO_BIG, offered.size))
    if mail.eight_bit and not offered.eight_bit:
        found.append(Unmet("8bitmime", _NO_8BITMIME))
    if not offered.smtputf8 and mail.smtputf8:
        found.append(Unmet("smtputf8", NO_SMTPUTF8))
    if offered.recipients is not None and len(mail.recipients) > offered.recipients:
        found.append(Unmet("recipients", _TOO_MANY, offered.recipients))
    if offered.domains is not None and mail.domains > offered.domains:
        found.append(Unmet("domains", _TOO_MANY, offered.domains))
    if offered.transactions is not None and sent >= offered.transactions:
        found.append(Unmet("transactions", _NO_MORE, offered.transactions))
    return tuple(found)


def mail_line(mail: OutgoingMail, offered: Offered) -> bytes:
    """MAIL, with those parameters that the server knows."""
    words = [f"MAIL FROM:<{mail.sender}>"]
    if offered.sized and mail.size is not None:
        words.append(f"SIZE={mail.size}")
    if offered.eight_bit and mail.eight_bit:
        words.append("BODY=8BITMIME")
    if offered.smtputf8 and mail.smtputf8:
        words.append("SMTPUTF8")
    if offered.dsn:
        words += [f"RET={mail.ret}"] if mail.ret else []
        words += [f"ENVID={mail.envid}"] if mail.envid else []
    return " ".join(words).encode() + b"\r\n"


def rcpt_line(recipient: OutgoingRecipient, offered: Offered, *, smtputf8: bool) -> bytes:
    """RCPT, with those parameters that the server knows. `smtputf8`: the transaction is of RFC 6531."""
    words = [f"RCPT TO:<{recipient.address}>"]
    if offered.dsn:
        if recipient.notify:
            words.append("NOTIFY=" + ",".join(recipient.notify))
        if recipient.orcpt:
            words.append("ORCPT=" + (recipient.orcpt if smtputf8 else _downgraded(recipient.orcpt)))
    return " ".join(words).encode() + b"\r\n"
