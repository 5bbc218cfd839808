"""Does what the aliases files say fit the rest? Each line by itself was understood (config/aliases.py)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from forkd.config.aliases import MOST_ADDRESSES, Alias, Aliases, Key, key_of
from forkd.config.checking import dotted
from forkd.config.expansion import TAKEN, AliasedRecipients, Expanded, Unexpandable
from forkd.config.problems import Problems, toml_key
from forkd.config.reader import nearest
from forkd.config.recipients import POSTMASTER, Accepted, NotLocal, Recipients, Unknown
from forkd.config.schema import Config
from forkd.smtp.address import split_address

_NAMED: Final = 3
"""Of many, so many stand in a note."""


def check_aliases(config: Config, aliases: Aliases, problems: Problems, notes: list[str]) -> None:
    """Each alias is of a domain of ours, each of its members has a way, none is too long.

    The rest of the configuration has no problem. Costs a few microseconds per address in the files.
    """
    table = Recipients.from_config(config)
    proxied = next((name for name, one in config.listener.items() if one.accept == "proxy"), "")
    expanding = AliasedRecipients(table, aliases)
    most = _most(aliases, table.detail_of)
    covered: list[str] = []
    for key, alias in aliases.table.items():
        local, domain = key
        name = f"{local}@{domain}"
        if not table.is_ours(domain):
            rule = f"{name} is an alias, but {domain} is no [domain] of ours: no mail for it is taken"
            hint = nearest(domain, table.domains, listing=False) or f"write [domain.{toml_key(domain)}]"
            problems.add_at_line(alias.source, alias.line, rule, hint=hint)
            continue
        before = len(problems)
        for target in alias.targets:
            if slip := _slip(key, target, table, aliases):
                problems.add_at_line(alias.source, alias.line, slip[0], hint=slip[1])
        if not local or len(problems) > before:
            continue
        if most(key) > MOST_ADDRESSES or proxied or _over_a_domain(alias, table, aliases):
            _whole(key, alias, expanding.expand(local, domain), proxied, problems)
        if _covers(key, alias, table):
            covered.append(name)
    _postmaster(config, expanding, notes)
    if covered:
        more = f" and {len(covered) - _NAMED} more" if len(covered) > _NAMED else ""
        notes.append(
            f"mailboxes whose mail goes to their alias alone: {', '.join(covered[:_NAMED])}{more} "
            "(an alias that names itself keeps its mailbox)"
        )


def _postmaster(config: Config, expanding: AliasedRecipients, notes: list[str]) -> None:
    """Copies of reports reach somebody: an alias perhaps (without any, config/report_checks.py looks)."""
    address = config.reports.postmaster
    if address and not isinstance(expanding.resolve(*split_address(address), may_relay=True), TAKEN):
        notes.append(f"reports.postmaster = {address}: there is no such mailbox or alias, nor a way there")


def _slip(key: Key, target: str, table: Recipients, aliases: Aliases) -> tuple[str, str] | None:
    """Why an address behind the colon leads nowhere, and what to do; None: it does not."""
    local, domain = split_address(target)
    if local and key_of(local, domain) != key and aliases.find(local, domain, table.detail_of(domain)):
        return None
    # Of a whole domain each address is looked at when mail for it comes.
    found = table.resolve(local or POSTMASTER, domain, may_relay=True)
    if isinstance(found, Accepted):
        return None
    if isinstance(found, NotLocal):
        hint = f"set relay_transport in [queue], or transport in [route.{toml_key(domain)}]"
        return f"there is no way for mail to {target}: its domain is not ours", hint
    hint = f"no alias has this name, and domain.{toml_key(domain)}.mailboxes does not list it"
    return f"{target} does not exist", hint


def _whole(key: Key, alias: Alias, found: object, proxied: str, problems: Problems) -> None:
    """What an alias becomes in the end."""
    name = f"{key[0]}@{key[1]}"
    if isinstance(found, Unknown):
        rule = (
            f"{name} stands for nobody: what a line for a whole domain makes of its addresses is {name} "
            "again, or does not exist"
        )
        problems.add_at_line(alias.source, alias.line, rule)
    elif isinstance(found, Unexpandable):
        rule = f"{name} stands for more than {MOST_ADDRESSES:,} addresses"
        problems.add_at_line(alias.source, alias.line, rule, hint="a list manager is made for so many")
    elif proxied and isinstance(found, Expanded):
        several = ""
        if len(found.transports) > 1:
            several = f"addresses of several transports ({', '.join(sorted(found.transports))})"
        elif len(found.owners) > 1:
            several = "lists of several owners, or a list and others"
        if several:
            rule = (
                f"{name} stands for {several}, and {dotted(('listener', proxied))} has "
                'accept = "proxy": its clients wait for one answer'
            )
            problems.add_at_line(alias.source, alias.line, rule)


def _over_a_domain(alias: Alias, table: Recipients, aliases: Aliases) -> bool:
    """It stands for an address that a line for a whole domain takes on: where to, depends on the address."""
    for target in alias.targets:
        local, domain = split_address(target)
        after = aliases.find(local, domain, table.detail_of(domain))
        if after is not None and not after[0]:
            return True
    return False


def _covers(key: Key, alias: Alias, table: Recipients) -> bool:
    """A listed mailbox gets no mail, since an alias of its name does not name it."""
    ours = table.domains.get(key[1])
    if ours is None or ours.mailboxes is None or key[0] not in ours.mailboxes:
        return False
    return key not in {key_of(*split_address(target)) for target in alias.targets}


def _most(aliases: Aliases, detail_of: Callable[[str], str]) -> Callable[[Key], int]:
    """So many addresses a line stands for at most; what is there twice is counted twice."""

    @functools.cache
    def most(key: Key) -> int:
        total = 0
        for target in aliases.table[key].targets:
            local, domain = split_address(target)
            after = aliases.find(local, domain, detail_of(domain)) if local else None
            total += 1 if after is None or after == key else most(after)
        return total

    return most
