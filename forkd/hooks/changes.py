"""What have the plugins changed at this hook so far? Their edits put together, and bounded as a whole.

checks.py has looked at each answer alone; here stands what depends on the message and on the plugins
before: whether an address is one that we take mail for, how much was edited in all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from forkd.hooks.addresses import compared, mailbox
from forkd.hooks.decision import UNCHANGED, Sentinel
from forkd.rpc.calls import (
    AddHeader,
    AddRecipient,
    CallFailed,
    ChangeHeader,
    ChangeSender,
    DeleteHeader,
    DeleteRecipient,
    Edit,
    Export,
    HeaderEdit,
    ReplaceMessage,
    RewriteRecipient,
)
from forkd.sdk.replay import fold
from forkd.smtp.address import Mailbox

MAX_HEADER_EDITS = 256
"""Of one message, by all plugins: each is looked for in the header whenever the message goes out."""
MAX_HEADER_OCTETS = 131_072
"""Of one message, in names and values that plugins set: they stand in the envelope, in memory."""
MAX_ADDED_RECIPIENTS = 100
"""Of one message: what the RFC asks a server to take from a client (5321 4.5.3.1.8)."""

Routable = Callable[[str, str], bool]
"""Does forkd take mail for this local part and domain, whoever the client is?"""


class Changes:
    """The edits of one hook. Never changed: a breach in the middle of an answer leaves nothing behind."""

    __slots__ = (
        "_accepted",
        "_added",
        "_by_key",
        "_header_octets",
        "_routable",
        "exports",
        "of_envelope",
        "of_header",
        "recipient",
        "sender",
    )

    def __init__(self, accepted: Sequence[Mailbox], routable: Routable) -> None:
        self._accepted = accepted
        self._by_key: dict[_Key, tuple[Mailbox, ...]] | None = None
        """The recipients as they are now; made when the first of them is added or deleted."""
        self._routable = routable
        self._added = 0
        self._header_octets = 0
        self.of_header: tuple[HeaderEdit, ...] = ()
        """As plugins are told: values not folded."""
        self.of_envelope: tuple[Edit, ...] = ()
        self.sender: Mailbox | Literal[Sentinel.UNCHANGED] | None = UNCHANGED
        self.recipient: Mailbox | None = None
        """At rcpt: what goes in the place of the client's."""
        self.exports: dict[str, str] = {}

    @property
    def recipients(self) -> Sequence[Mailbox]:
        """As the envelope stands now."""
        if self._by_key is None:
            return self._accepted
        return [to for same in self._by_key.values() for to in same]

    def taken(self, edits: Sequence[Edit], *, smtputf8: bool) -> Changes:
        """These changes and an answer's checked edits. Raises CallFailed("protocol")."""
        after = copy.copy(self)
        after.exports = dict(self.exports)
        after._by_key = None if self._by_key is None else dict(self._by_key)
        for edit in edits:
            match edit:
                case AddHeader() | ChangeHeader() | DeleteHeader():
                    after._take_header(edit)
                case ReplaceMessage():
                    # Who said it was shown the header with those edits, and this is what came of it.
                    after.of_header, after._header_octets = (), 0
                case Export(name, value):
                    after.exports[name] = value
                case RewriteRecipient(address):
                    after.recipient = after._ours(address, smtputf8)
                case ChangeSender(address):
                    after.sender = mailbox(address, smtputf8=smtputf8) if address else None
                    after.of_envelope += (edit,)
                case AddRecipient(address):
                    after._add(after._ours(address, smtputf8))
                case DeleteRecipient(address):
                    meant = mailbox(address, smtputf8=smtputf8)
                    if meant is not None:
                        after._delete(meant)
                case _:  # a body is fetched by who asked
                    pass
        return after

    def _take_header(self, edit: HeaderEdit) -> None:
        if not isinstance(edit, DeleteHeader):
            # Around a value there is nothing to keep, and a fold would leave a blank line.
            edit = msgspec.structs.replace(edit, value=edit.value.strip(" \t"))
            self._header_octets += len(edit.name) + len(edit.value.encode())
        self.of_header += (edit,)
        if len(self.of_header) > MAX_HEADER_EDITS or self._header_octets > MAX_HEADER_OCTETS:
            raise CallFailed("protocol", "more edits of one header than fit")

    def _ours(self, address: str, smtputf8: bool) -> Mailbox:
        found = mailbox(address, smtputf8=smtputf8)
        if found is None or not self._routable(found.local, found.domain):
            raise CallFailed("protocol", f"{address[:64]!r} is no address that we take mail for")
        return found

    def _add(self, new: Mailbox) -> None:
        recipients, key = self._keyed(), _key(new)
        if key in recipients:
            return
        self._added += 1
        if self._added > MAX_ADDED_RECIPIENTS:
            raise CallFailed("protocol", f"more than {MAX_ADDED_RECIPIENTS} recipients added to one message")
        # Taken away and put back: what the client named, with what it asked for him.
        recipients[key] = tuple(to for to in self._accepted if _key(to) == key) or (new,)
        self.of_envelope += (AddRecipient(str(new)),)

    def _delete(self, meant: Mailbox) -> None:
        if self._keyed().pop(_key(meant), None) is not None:
            self.of_envelope += (DeleteRecipient(str(meant)),)

    def _keyed(self) -> dict[_Key, tuple[Mailbox, ...]]:
        if self._by_key is None:
            self._by_key = {}
            for to in self._accepted:
                key = _key(to)
                self._by_key[key] = (*self._by_key.get(key, ()), to)
        return self._by_key

    # --- for the decision ---------------------------------------------------------------------------

    def header_edits(self) -> tuple[HeaderEdit, ...]:
        """In order, values folded: fit for the wire as they stand."""
        return tuple(
            edit
            if isinstance(edit, DeleteHeader)
            else msgspec.structs.replace(edit, value=fold(edit.name, edit.value))
            for edit in self.of_header
        )

    def added(self) -> tuple[Mailbox, ...]:
        """Recipients that the client did not name."""
        if self._by_key is None:
            return ()
        before = set(map(_key, self._accepted))
        return tuple(same[0] for key, same in self._by_key.items() if key not in before)

    def deleted(self) -> tuple[Mailbox, ...]:
        """Recipients of the client's that are none any more, each as it was accepted."""
        if self._by_key is None:
            return ()
        return tuple(to for to in self._accepted if _key(to) not in self._by_key)


_Key = tuple[str, str]


def _key(mailbox_: Mailbox) -> _Key:
    """One mailbox, as our own are compared: without case (forkd.config.recipients)."""
    return mailbox_.local.casefold(), compared(mailbox_.domain)
