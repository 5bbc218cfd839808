"""Which recipients exist, and how are they routed? The one table that RCPT and delivery both ask.

The worker refuses at RCPT what this table does not know (550 5.1.1), and qmgr routes by the same
table, so a recipient is never accepted and then bounced for being unknown. Pure: built once from the
configuration, then only looked up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from forkd.config.schema import Config, Domain

POSTMASTER: Final = "postmaster"


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """The recipient is ours, or may be relayed.

    transport   name of a [transport]
    mailbox     local part of the mailbox: lower case and without detail for a domain of ours, as given
                for a relayed one (RFC 5321 2.4: only the final host may interpret it)
    detail      what stood behind the separator, or empty
    """

    transport: str
    mailbox: str
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NotLocal:
    """The domain is not ours and this client may not relay: 550 5.7.1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """The domain is ours, the mailbox does not exist: 550 5.1.1."""


Resolution = Accepted | NotLocal | Unknown
_NOT_LOCAL: Final = NotLocal()
_UNKNOWN: Final = Unknown()


@dataclasses.dataclass(frozen=True, slots=True)
class _Local:
    transport: str
    detail: str
    mailboxes: frozenset[str] | None
    """Lower case; None: every one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recipients:
    """The table; make it with from_config()."""

    domains: Mapping[str, _Local]
    """By name in lower case, in the order of the configuration."""
    relay_transport: str

    @classmethod
    def from_config(cls, config: Config) -> Recipients:
        """The table of a loaded configuration."""
        return cls(
            domains={name.lower(): _local(domain) for name, domain in config.domain.items()},
            relay_transport=config.queue.relay_transport,
        )

    def resolve(self, local: str, domain: str, *, may_relay: bool) -> Resolution:
        """What becomes of mail to `local`@`domain`.

        local       without quotes and escapes, as in Mailbox
        domain      any case; empty only for `postmaster` without a domain (RFC 5321 4.1.1.3), which is
                    that of the first domain
        may_relay   the client is in networks.relay; qmgr passes True, since RCPT has decided already

        Postmaster exists in every domain of ours (RFC 5321 4.5.1). Local parts are compared without
        case, first whole, then without detail, so that a listed `c++` is not taken for `c`.
        """
        ours = self.domains.get(domain.lower())
        name = local.lower()
        if ours is None:
            if not domain:
                first = next(iter(self.domains.values()), None)
                return Accepted(first.transport, name) if first and name == POSTMASTER else _UNKNOWN
            if may_relay and self.relay_transport:
                return Accepted(self.relay_transport, local)
            return _NOT_LOCAL
        if ours.mailboxes is not None and name in ours.mailboxes:
            return Accepted(ours.transport, name)
        base, detail = _split(local, ours.detail)
        if ours.mailboxes is None or base in ours.mailboxes or base == POSTMASTER:
            return Accepted(ours.transport, base, detail)
        return _UNKNOWN


def _local(domain: Domain) -> _Local:
    every = domain.mailboxes == "*"
    return _Local(
        transport=domain.transport,
        detail=domain.detail,
        mailboxes=None if every else frozenset(mailbox.lower() for mailbox in domain.mailboxes),
    )


def _split(local: str, separator: str) -> tuple[str, str]:
    """Mailbox (lower case) and detail; what begins with the separator has no detail."""
    at = local.find(separator, 1) if separator else -1
    return (local.lower(), "") if at < 0 else (local[:at].lower(), local[at + len(separator) :])
