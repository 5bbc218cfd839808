"""Which recipients exist, and how are they routed? The one table that RCPT and delivery both ask.

The worker refuses at RCPT what this table does not know (550 5.1.1), and qmgr routes by the same
table, so a recipient is never accepted and then bounced for being unknown. Pure: built once from the
configuration, then only looked up.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Final

from forkd.config.domains import EVERY_SUBDOMAIN
from forkd.config.folding import folded
from forkd.config.routes import Routes
from forkd.config.schema import Config, Domain
from forkd.smtp.address import a_labels

POSTMASTER: Final = "postmaster"


_NO_OWNER: Final = frozenset(("",))


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """The recipient is ours, or may be relayed.

    transport   name of a [transport]
    mailbox     local part of the mailbox: folded() and without detail for a domain of ours, as given
                for a relayed one (RFC 5321 2.4: only the final host may interpret it)
    detail      what stood behind the separator, or empty
    """

    transport: str
    mailbox: str
    detail: str = ""

    @property
    def transports(self) -> frozenset[str]:
        """That one alone; as those of an alias (expansion.Expanded)."""
        return frozenset((self.transport,))

    @property
    def owners(self) -> frozenset[str]:
        """None, as of an alias that is no list."""
        return _NO_OWNER


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
    """Folded; None: every one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recipients:
    """The table; make it with from_config()."""

    domains: Mapping[str, _Local]
    """By name in A-labels and lower case, in the order of the configuration."""
    relay_transport: str
    parents: Mapping[str, _Local] = dataclasses.field(default_factory=dict)
    """[domain."*.NAME"] by NAME: all sub-domains, however deep, that have no table of their own."""
    routes: Routes = dataclasses.field(default_factory=lambda: Routes({}, {}))

    @classmethod
    def from_config(cls, config: Config) -> Recipients:
        """The table of a loaded configuration."""
        domains: dict[str, _Local] = {}
        parents: dict[str, _Local] = {}
        for name, domain in config.domain.items():
            into, own = (parents, name[2:]) if name.startswith(EVERY_SUBDOMAIN) else (domains, name)
            into[a_labels(own)] = _local(domain)
        return cls(
            domains=domains,
            relay_transport=config.queue.relay_transport,
            parents=parents,
            routes=Routes.from_config(config.route),
        )

    def name_of(self, domain: str) -> str:
        """The one name of a domain of ours, whichever script the client used; others stay as they are."""
        key = _key(domain)
        return key if self._ours(key) else domain

    def detail_of(self, domain: str) -> str:
        """A domain's separator of details; empty where it has none, or is not ours."""
        ours = self._ours(_key(domain))
        return "" if ours is None else ours.detail

    def is_ours(self, domain: str) -> bool:
        """We take mail for it."""
        return self._ours(_key(domain)) is not None

    def _ours(self, key: str) -> _Local | None:
        found = self.domains.get(key)
        parent = key
        while found is None and self.parents and (dot := parent.find(".")) >= 0:
            parent = parent[dot + 1 :]
            found = self.parents.get(parent)
        return found

    def resolve(self, local: str, domain: str, *, may_relay: bool) -> Resolution:
        """What becomes of mail to `local`@`domain`.

        local       without quotes and escapes, as in Mailbox
        domain      any case, A-labels or U-labels (RFC 6531 3.3: an SMTPUTF8 client may write either);
                    empty only for `postmaster` without a domain (RFC 5321 4.1.1.3), which is that of the
                    first domain; of the first parent where nothing else is ours (RFC 5321 4.5.1)
        may_relay   the client is in networks.relay, or has authenticated; qmgr passes True, since RCPT has
                    decided already

        Postmaster exists in every domain of ours (RFC 5321 4.5.1). Local parts are compared by folded(),
        first whole, then without detail, so that a listed `c++` is not taken for `c`. A route decides about
        the transport of what is accepted, never whether it is; what may be relayed needs no more than one.
        """
        found = self._resolve(local, domain, may_relay=may_relay)
        if isinstance(found, Accepted):
            route = self.routes.find(local, domain, mailbox=found.mailbox)
            return found if route is None else Accepted(route.transport, found.mailbox, found.detail)
        if may_relay and found is _NOT_LOCAL and (route := self.routes.find(local, domain)):
            return Accepted(route.transport, local)
        return found

    def _resolve(self, local: str, domain: str, *, may_relay: bool) -> Resolution:
        ours = self._ours(_key(domain))
        name = folded(local)
        if ours is None:
            if not domain:
                first = next(itertools.chain(self.domains.values(), self.parents.values()), None)
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


def _key(domain: str) -> str:
    """A recipient's domain as `domains` has it; what is no name is nobody's, and stays as it is."""
    try:
        return a_labels(domain)
    except ValueError:
        return domain


def _local(domain: Domain) -> _Local:
    every = domain.mailboxes == "*"
    return _Local(
        transport=domain.transport,
        detail=domain.detail,
        mailboxes=None if every else frozenset(map(folded, domain.mailboxes)),
    )


def _split(local: str, separator: str) -> tuple[str, str]:
    """Mailbox (folded) and detail; what begins with the separator has no detail."""
    at = local.find(separator, 1) if separator else -1
    return (folded(local), "") if at < 0 else (folded(local[:at]), local[at + len(separator) :])
