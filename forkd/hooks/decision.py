"""What came of a hook? The one answer that the worker obeys, and the lines that the log gets."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal

from forkd.hooks.given import KeptCopy, Sandbox
from forkd.rpc.calls import HeaderEdit
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply


class Sentinel(enum.Enum):
    """The null sender is None, so "no change" needs a value of its own."""

    UNCHANGED = enum.auto()


UNCHANGED: Literal[Sentinel.UNCHANGED] = Sentinel.UNCHANGED


@dataclasses.dataclass(frozen=True, slots=True)
class Remains:
    """What a failed call left behind, for the log and for a crash record.

    sandbox  closed; its last_report() says how it ended.
    frames   that it was sent, the failed one last; empty where none are kept (crash.keep).
    message  the copy that the call had; who takes the record closes it.
    cut      not all of that is there.
    auth     arguments of its auth calls, encoded: the passwords in them must not be in what it left.
    """

    sandbox: Sandbox
    frames: tuple[bytes, ...] = ()
    message: KeptCopy | None = None
    cut: bool = False
    auth: tuple[bytes, ...] = dataclasses.field(default=(), repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class PluginRecord:
    """What one plugin said, for the log.

    verdict  accept | deny | defer | disconnect | discard | quarantine | ok | none; after a failure what
             on_failure made of it; `shadow` where nothing was made of it
    failure  empty, a cause of CallFailed, `overload`, `failed earlier`, or `breaker open`
    detail   for the log, not escaped; `output` the sandbox' last lines on stderr
    edits    how many its answer had
    by       the member of a group that had the verdict, or empty
    log      lines that it logged, not escaped; count: what it counted
    remains  of a call that failed; None where there was no sandbox
    """

    plugin: str
    hook: str
    verdict: str
    ms: float
    failure: str = ""
    detail: str = ""
    output: str = ""
    edits: int = 0
    by: str = ""
    remains: Remains | None = None
    log: tuple[str, ...] = ()
    count: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def short(self) -> str:
        """For a log line: `name/hook=verdict+2 1.2ms`, with the number of edits, the cause of a failure."""
        name = f"{self.plugin}.{self.by}" if self.by else self.plugin
        edits = f"+{self.edits}" if self.edits else ""
        cause = f"!{self.failure.replace(' ', '_')}" if self.failure else ""
        return f"{name}/{self.hook}={self.verdict}{edits}{cause} {self.ms:.1f}ms"


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """All plugins' answers at one hook taken together.

    reply       what the client gets instead of the usual reply; None: the command goes on.
    discard     the command goes on and takes no effect: the recipient (rcpt) or the message (data,
                message) is dropped behind a 250.
    quarantine  the message is kept and not delivered until an admin releases it: why (data, message).
    ok          at `auth`: the credentials are right.
    recipient   at `rcpt`: goes in the place of the client's, and is routable().

    What follows is of the hook `message`, and only where reply is None and discard false:

    edits              of the header, in order; values are folded and fit for the wire.
    body               what the last body sink's finish() gave; None: the client's body stays.
    add_recipients     those that were not there before, each routable().
    delete_recipients  as the client gave them.
    sender             the new one (None: the null sender), or UNCHANGED.

    exports     what plugins exported at this hook, whatever else they said.
    """

    reply: Reply | None = None
    discard: bool = False
    quarantine: str = ""
    ok: bool = False
    recipient: Mailbox | None = None
    edits: tuple[HeaderEdit, ...] = ()
    body: object | None = None
    add_recipients: tuple[Mailbox, ...] = ()
    delete_recipients: tuple[Mailbox, ...] = ()
    sender: Mailbox | Literal[Sentinel.UNCHANGED] | None = UNCHANGED
    exports: Mapping[str, str] = dataclasses.field(default_factory=dict)
    records: tuple[PluginRecord, ...] = ()

    def closing(self) -> Decision:
        """The same, and where it refuses, the connection ends after the reply."""
        if self.reply is None:
            return self
        return dataclasses.replace(self, reply=dataclasses.replace(self.reply, close=True))

    @property
    def close(self) -> bool:
        """The connection ends after the reply."""
        return self.reply is not None and self.reply.close
