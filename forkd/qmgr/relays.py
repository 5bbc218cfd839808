"""How do the settings of a [transport] of kind "smtp" or "lmtp" become one? With what master read for it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forkd.config.addresses import parse_address, parse_host
from forkd.config.next_hop_schema import MAX_PASSWORD_OCTETS, Lmtp, NextHop, Smtp, password_length
from forkd.config.schema import Config
from forkd.deliver import lmtp, smtp
from forkd.deliver.client_tls import ClientTls
from forkd.deliver.hosts import Hosts, Ourselves, Settings
from forkd.deliver.opening import HowToConnect
from forkd.deliver.pool import PoolLimits
from forkd.lookups.resolver import Resolver
from forkd.smtp.client_phases import TIMEOUT_S, ClientOptions, Phase
from forkd.smtp.client_sasl import Credentials

WHOLE = 12
"""Times what a reply may take: an hour for a transaction, by default. A hundred recipients, each of whose
replies takes its whole time, would be eight."""
MAX_FILE_BYTES = 1 << 20
"""As much as master hands over (master/certificates.py)."""


class Relays:
    """Makes the transports of one configuration.

    files  name of a transport -> descriptors of authorities, certificate, key, password, -1 where it has none
           (RoleStart.next_hops); they stay open.
    """

    def __init__(self, config: Config, files: Mapping[str, tuple[int, ...]]) -> None:
        self._config = config
        self._files = files
        self._ourselves = Ourselves(
            names=frozenset({config.server.hostname.lower()}),
            listeners=tuple(parse_address(each.address) for each in config.listener.values()),
        )

    @property
    def kinds(self) -> dict[type, Callable[[str, Any, object], smtp.Smtp | lmtp.Lmtp]]:
        """For routing.Routing: settings -> who makes a transport of them."""
        return {
            Smtp: lambda name, table, _: self.smtp(name, table),
            Lmtp: lambda name, table, _: self.lmtp(name, table),
        }

    @functools.cached_property
    def _resolver(self) -> Resolver:
        """One for all: they share what it remembers."""
        return Resolver(self._config.dns)

    def smtp(self, name: str, table: Smtp) -> smtp.Smtp:
        """[transport.NAME] kind = "smtp"."""
        sources = {4: table.source_ipv4, 6: table.source_ipv6}
        how = self._how(name, table, {version: text for version, text in sources.items() if text})
        parsed = [parse_host(text) for text in table.hosts]
        settings = Settings(
            fixed=tuple((host, port or table.usual_port) for host, port in parsed),
            port=table.usual_port,
            family=table.family,
            proven=how.tls.proves_domain,
            system=not self._config.dns.servers,
            ourselves=self._ourselves,
        )
        return smtp.Smtp(name, Hosts(settings, self._resolver), how, limits=_limits(table, table.connections))

    def lmtp(self, name: str, table: Lmtp) -> lmtp.Lmtp:
        """[transport.NAME] kind = "lmtp"."""
        fixed = (table.unix, 0) if table.unix else parse_host(table.address)
        settings = Settings(fixed=(fixed,), system=not self._config.dns.servers)
        how = self._how(name, table, {})
        return lmtp.Lmtp(name, Hosts(settings, self._resolver), how, limits=_limits(table, table.connections))

    def _how(self, name: str, table: NextHop, sources: Mapping[int, str]) -> HowToConnect:
        authorities, chain, key, password = self._files.get(name, (-1, -1, -1, -1))
        options = ClientOptions(
            hostname=table.hostname,
            lmtp=isinstance(table, Lmtp),
            auth_needs_tls=not (table.auth_without_tls or table.unix),
        )
        tls = ClientTls(
            table.tls,
            authorities=_octets(authorities).decode("ascii", "replace") if authorities >= 0 else "",
            fingerprints=table.tls_fingerprints,
            name=table.tls_name,
            certificate=(_path(chain), _path(key)) if chain >= 0 else None,
        )
        return HowToConnect(
            options=options,
            tls=tls,
            credentials=_credentials(table.user, password) if password >= 0 else None,
            connect_timeout_s=float(table.connect_timeout),
            sources=sources,
            timeouts=_timeouts(float(table.timeout)),
            whole_s=WHOLE * float(table.timeout),
        )


def _limits(table: NextHop, connections: int) -> PoolLimits:
    return PoolLimits(
        connections=connections,
        messages_per_connection=table.messages_per_connection,
        idle_s=float(table.idle),
    )


def _timeouts(reply_s: float) -> Mapping[Phase, float]:
    """Those of RFC 5321, in proportion to what one reply may take."""
    share = reply_s / TIMEOUT_S[Phase.MAIL]
    return {phase: seconds * share for phase, seconds in TIMEOUT_S.items()}


def _credentials(user: str, descriptor: int) -> Credentials:
    octets = os.pread(descriptor, MAX_PASSWORD_OCTETS + 2, 0)
    return Credentials(user, octets[: password_length(octets)].decode("utf-8"))


def _octets(descriptor: int) -> bytes:
    return os.pread(descriptor, MAX_FILE_BYTES, 0)


def _path(descriptor: int) -> Path:
    """OpenSSL takes paths only."""
    return Path(f"/proc/self/fd/{descriptor}")
