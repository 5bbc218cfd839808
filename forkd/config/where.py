"""Where does mail to an address go, and why there? RCPT's answer and qmgr's way, from the same tables."""

from __future__ import annotations

import dataclasses
from typing import Literal

from forkd.config.aliases import Aliases, Member, TooMany
from forkd.config.expansion import TAKEN, AliasedRecipients
from forkd.config.load import LoadedConfig
from forkd.config.recipients import POSTMASTER, Accepted, NotLocal, Recipients
from forkd.config.routes import in_force
from forkd.config.schema import Route
from forkd.smtp.address import Mailbox, split_address

Takes = Literal["everybody", "relay", "nobody"]
"""Whose mail for it is taken: everybody's, that of clients that may relay, nobody's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One line of an aliases file that counts."""

    address: str
    file: str
    line: int
    targets: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """One address that gets the mail, or does not exist (`transport` is empty then)."""

    address: str
    sender: str = ""
    """What the mail's sender is changed to: the owner of a list."""
    transport: str = ""
    kind: str = ""
    mailbox: str = ""
    detail: str = ""
    pattern: str = ""
    """Of the [route] that matched; empty: its domain's transport, or queue.relay_transport."""
    route: Route | None = None
    """What is in force for it; of one that exists."""


@dataclasses.dataclass(frozen=True, slots=True)
class Where:
    """All there is to say of an address."""

    address: str
    takes: Takes
    reply: str
    """What RCPT says to who may not relay, code and enhanced code."""
    steps: tuple[Step, ...]
    ends: tuple[End, ...]


def where(loaded: LoadedConfig, address: str) -> Where:
    """What becomes of mail to that address."""
    table = Recipients.from_config(loaded.config)
    both = AliasedRecipients(table, loaded.aliases)
    local, domain = split_address(address)
    found = both.resolve(local, domain, may_relay=False)
    takes: Takes = "everybody" if isinstance(found, TAKEN) else "nobody"
    reply = "250" if takes == "everybody" else "550 5.7.1" if isinstance(found, NotLocal) else "550 5.1.1"
    if isinstance(found, NotLocal) and isinstance(both.resolve(local, domain, may_relay=True), Accepted):
        takes = "relay"
    if not domain and local.lower() == POSTMASTER:
        domain = next(iter(table.domains), "")
    try:
        members, steps = _expanded(table, loaded.aliases, local, domain)
    except TooMany:
        return Where(address, "nobody", "450 4.2.4", (), ())
    ends = [_end(loaded, table, member) for member in members] if takes != "nobody" or steps else []
    return Where(address, takes, reply, tuple(steps), tuple(ends))


def _expanded(
    table: Recipients, aliases: Aliases, local: str, domain: str
) -> tuple[list[Member], list[Step]]:
    if not table.is_ours(domain):
        return [Member(str(Mailbox(local, domain)))], []
    members = aliases.expand(local, domain, table.detail_of)
    steps = aliases.steps(local, domain, table.detail_of)
    return [*members.values()], [
        Step(address, str(alias.source.path), alias.line, alias.targets) for address, alias in steps
    ]


def _end(loaded: LoadedConfig, table: Recipients, member: Member) -> End:
    config = loaded.config
    local, domain = split_address(member.address)
    found = table.resolve(local, domain, may_relay=True)
    if not isinstance(found, Accepted):
        return End(member.address, member.owner)
    pattern = table.routes.match(local, domain, mailbox=found.mailbox)
    return End(
        member.address,
        member.owner,
        transport=found.transport,
        kind=str(config.transport[found.transport].__struct_config__.tag),
        mailbox=found.mailbox,
        detail=found.detail,
        pattern=pattern,
        route=in_force(config, config.route.get(pattern)),
    )
