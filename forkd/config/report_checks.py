"""Does [reports] fit the rest? Copies go to an address that mail can reach, and warnings come in time."""

from __future__ import annotations

from forkd.config.checking import Check
from forkd.config.domains import is_domain
from forkd.config.recipients import Accepted, Recipients
from forkd.config.routes import EVERYTHING
from forkd.config.schema import Discard
from forkd.config.units import format_duration
from forkd.smtp.address import split_address


def reports(c: Check) -> None:
    """Of CHECKS."""
    table, queue = c.config.reports, c.config.queue
    postmaster, copies = ("reports", "postmaster"), ("reports", "copies")
    if c.clean(postmaster) and table.postmaster:
        _postmaster(c, table.postmaster)
    if c.clean(postmaster, copies) and table.copies != "untold" and not table.postmaster:
        c.bad(copies, "nobody gets them", value=table.copies, hint="set postmaster in [reports]")
    warn_after, give_up = ("reports", "warn_after"), ("queue", "give_up")
    if c.clean(warn_after, give_up) and c.given(warn_after) and table.warn_after >= queue.give_up > 0:
        rule = (
            f"warn_after ({format_duration(table.warn_after)}) is no shorter than queue.give_up "
            f"({format_duration(queue.give_up)}): mail would be given up before anybody is warned"
        )
        c.bad(warn_after, rule, value=format_duration(table.warn_after), hint='write "0s" for no warning')
    _ways_out(c)


def _ways_out(c: Check) -> None:
    """Most senders are elsewhere."""
    config = c.config
    if not c.clean(("queue", "relay_transport"), ("route",), ("reports",), ("listener",), ("transport",)):
        return
    if config.queue.relay_transport or EVERYTHING in config.route:
        return
    fails = any(not isinstance(table, Discard) for table in config.transport.values())
    if fails and any(listener.accept == "queue" for listener in config.listener.values()):
        instead = (
            f"goes to {config.reports.postmaster} (reports.postmaster) instead"
            if config.reports.postmaster
            else "waits in the queue until a way is there, or it is given up"
        )
        c.notes.append(
            "queue.relay_transport is not set, so senders in other domains hear nothing of their mail: "
            f"a report on mail that failed {instead}"
        )


def _postmaster(c: Check, address: str) -> None:
    path = ("reports", "postmaster")
    local, domain = split_address(address)
    if not local or not is_domain(domain) or not local.isprintable():
        c.bad(path, "this is an address, as in postmaster@example.org", value=address)
        return
    if not c.clean(("domain",), ("route",), ("queue", "relay_transport")):
        return
    found = Recipients.from_config(c.config).resolve(local, domain, may_relay=True)
    if not isinstance(found, Accepted) and not c.config.aliases.files:
        rule = "copies could not be delivered: no [domain] has this mailbox, and nothing relays to its domain"
        c.bad(path, rule, value=address, hint="name a mailbox of ours, or set relay_transport in [queue]")
