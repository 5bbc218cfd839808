"""[transport.NAME] kind = "pipe": what may be set, and which words stand for something in `argv`?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from forkd.config.table import DAY, Between, Ordered, Table
from forkd.config.units import Bytes, Seconds

OF_RECIPIENT: Final = ("recipient", "user", "detail", "domain", "original_recipient")
OF_MESSAGE: Final = ("sender", "queue_id", "size", "client_ip", "client_name", "helo", "login")
FIELD: Final = re.compile(r"\$\{([^{}]*)\}")
"""What deliver/pipe_words.py replaces in a word of argv, where the name is one of those two tables."""

POSTFIX_FIELDS: Final = {
    "extension": "detail",
    "mailbox": "user",
    "client_address": "client_ip",
    "client_hostname": "client_name",
    "client_helo": "helo",
    "sasl_username": "login",
    "nexthop": "domain",
}
"""What pipe(8) of Postfix calls it -> what it is called here."""

VARIABLES: Final = (
    *("SENDER", "RECIPIENT", "LOCAL", "EXT", "HOST"),
    *("QMAILUSER", "QMAILHOST", "QMAILRCPTS", "NUMRCPTS", "MSGSIZE", "ENVSIZE"),
    *("TCPREMOTEIP", "TCPREMOTEHOST", "TCPREMOTEINFO"),
)
"""Of the environment, set for each message: as qmail-command(8) and program plugins have them."""


class Pipe(Table, frozen=True, tag_field="kind", tag="pipe"):
    """[transport.NAME] kind = "pipe": given to a program, on its standard input, with LF line ends.

    The program runs in a sandbox, as program plugins do: it reads the system's libraries, starts nothing but
    itself, writes nowhere and has no network, but for what is granted here.
    """

    argv: Annotated[tuple[str, ...], Ordered()] = ()
    """Program (absolute path) and arguments; ${recipient} and the others are replaced within their word,
    which stays one argument whatever comes in. A word with a recipient's field comes once for each."""
    per: Literal["recipient", "message"] = "recipient"
    """One run for each recipient, or one for all recipients of a message: then its end is that of all."""
    return_path: bool = True
    """A Return-Path field on top (RFC 5321 4.4): this is the final delivery."""
    delivered_to: bool = True
    """A Delivered-To field on top, and mail that has this recipient's already is a loop; only where each
    recipient has a run of his own, since it would show the others."""
    from_line: bool = False
    """A line `From SENDER DATE` above all fields, as mbox files and some old programs want it. What begins so
    in the message is left as it is: who writes an mbox quotes it (`>From`), or a sender adds mails to it."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """What the program finds beside PATH, LC_ALL, and what is said of the message (VARIABLES)."""
    timeout: Annotated[Seconds, Between(1, DAY)] = Seconds(300)
    """Then it is killed with what it started, and the mail tried again."""
    connections: Annotated[int, Between(1, 256)] = 4
    """Programs at once: each has its copy of the message in memory."""
    files: tuple[Path, ...] = ()
    """Files and folders that it may read."""
    write: tuple[Path, ...] = ()
    """Folders in which it may make, change and remove files; they must be its user's (`uid`) to write."""
    exec: tuple[Path, ...] = ()
    """What else it may start; its interpreter needs no leave."""
    processes: Annotated[int, Between(0, 1000)] = 0
    """How many beside itself, for pipelines."""
    memory: Annotated[Bytes, Between(1 << 20, 1 << 40)] = Bytes(256 << 20)
    """Address space of each of its processes."""
    cpu: Annotated[Seconds, Between(1, DAY)] = Seconds(60)
    """Processor time, in whole seconds; then it is killed."""
    open_files: Annotated[int, Between(8, 1024)] = 64
    """Descriptors."""
    file_size: Annotated[Bytes, Between(1, 1 << 50)] = Bytes(1 << 30)
    """Of one file in a folder that it may write; mailboxes in one file grow."""
    uid: Annotated[int, Between(0, 4_294_967_000)] = 0
    """Who it runs as when root starts us; 0: one of sandbox.uid_base's."""
