"""Which recipients does the envelope name, where some of the client's are aliases?

Plugins, log and Received field know what the client said; from here on there are only members. RFC 3461 5.2.7
says what becomes of the DSN parameters:

    the alias stands for   sender      NOTIFY            ORCPT   where SUCCESS was asked for
    one address            stays       goes on           stays   that address' own report
    several                stays       without SUCCESS   stays   "expanded", at once
    members of a list      its owner   none              none    "delivered", at once: to the list

An alias of one address that is in the envelope already, since the client named it too or by another alias, is
reported as one of several would be: the address has the other's parameters.

A list is an alias with an owner (config/aliases.py). A report sent to a list keeps the null sender, so that
none of its members answers it with another (RFC 5321 4.5.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from forkd.config.aliases import Key, Member, key_of
from forkd.config.expansion import Expanded
from forkd.queue.envelope import Recipient

if TYPE_CHECKING:
    from forkd.worker.transaction import Destination


def recipients(destinations: Sequence[Destination], *, null_sender: bool) -> tuple[Recipient, ...]:
    """The envelope's recipients: each address once, in the order in which it was named first.

    Whom the client named himself keeps his own DSN parameters, if he is a member of an alias too.
    """
    plain: set[Key] = {
        key_of(to.mailbox.local, to.mailbox.domain)
        for to in destinations
        if not isinstance(to.route, Expanded)
    }
    found: dict[Key, Recipient] = {}
    settled: list[Recipient] = []
    for to in destinations:
        if not isinstance(to.route, Expanded):
            own = key_of(to.mailbox.local, to.mailbox.domain)
            original = "" if to.original is None else str(to.original)
            found.setdefault(
                own,
                Recipient(address=str(to.mailbox), notify=to.notify, orcpt=to.orcpt, original=original),
            )
            continue
        shared = False
        for key, recipient in _members(to, to.route, null_sender=null_sender):
            if key in plain or key in found:
                shared = True
            else:
                found[key] = recipient
        settled += _settled(to, to.route, shared=shared)
    return (*found.values(), *settled)


def _members(to: Destination, route: Expanded, *, null_sender: bool) -> Iterator[tuple[Key, Recipient]]:
    said = str(to.original or to.mailbox)
    notify = to.notify
    if len(route.members) > 1 and "SUCCESS" in notify:
        notify = tuple(word for word in notify if word != "SUCCESS") or ("NEVER",)
    for key, member in route.members.items():
        if member.owner:
            owner = "" if null_sender else member.owner
            yield key, Recipient(address=member.address, original=said, sender=owner)
        else:
            yield key, Recipient(address=member.address, notify=notify, orcpt=to.orcpt, original=said)


def _settled(to: Destination, route: Expanded, *, shared: bool) -> Iterator[Recipient]:
    """The alias itself, where its sender asked to be told. `shared`: a member stands for another as well."""
    if "SUCCESS" not in to.notify:
        return
    members: list[Member] = list(route.members.values())
    fate = "delivered" if all(member.owner for member in members) else "expanded"
    if fate == "delivered" or len(members) > 1 or shared:
        original = "" if to.original is None else str(to.original)
        yield Recipient(
            address=str(to.mailbox), notify=("SUCCESS",), orcpt=to.orcpt, original=original, fate=fate
        )
