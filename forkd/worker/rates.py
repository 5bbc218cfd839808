"""How often may a client, its network, an account do that? Rates per minute over all workers, by anvil."""

from __future__ import annotations

import time
from collections import Counter

from forkd.config.schema import Limits
from forkd.rpc.channel import RequestClient, Unavailable
from forkd.rpc.messages import Happened, LastMinute
from forkd.worker.clients import Client

ANVIL_TIMEOUT_S = 1.0
"""A worker waits so long for anvil, then goes by its share of the limit."""
MAX_ACCOUNT_OCTETS = 256
"""Of an account's name that is counted: what is longer is no account's name but somebody's joke."""
MINUTE_S = 60.0


class Share:
    """This worker's own counts of the minute under way, for the time in which anvil is away."""

    MAX_KEYS = 100_000

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._minute = -1
        self._counts: Counter[str] = Counter()

    def within(self, limit: int, key: str, *, times: int = 1) -> bool:
        """Count, and tell whether limit / workers still holds (times = 0: for one more); 0: no limit."""
        if limit <= 0:
            return True
        minute = int(time.monotonic() / MINUTE_S)
        if minute != self._minute or len(self._counts) >= self.MAX_KEYS:
            self._minute = minute
            self._counts.clear()
        self._counts[key] += times
        return self._counts[key] + (not times) <= max(1, limit // self._workers)


class Rates:
    """Asked at MAIL and RCPT where such a rate is set, and at AUTH. Trusted clients are exempt.

    Refused attempts count too, as in Postfix' anvil: who goes on gains nothing. But what a client is
    refused by its own limit does not count for its network, which others are in.
    """

    def __init__(self, limits: Limits, *, workers: int, anvil: RequestClient) -> None:
        self._limits = limits
        self._anvil = anvil
        self._share = Share(max(1, workers))
        self._of_client = {"message": limits.messages_per_minute, "recipient": limits.recipients_per_minute}
        self._of_network = {
            "message": limits.messages_per_minute_network,
            "recipient": limits.recipients_per_minute_network,
        }

    def counts(self, what: str) -> bool:
        """Is there such a rate? Without one nobody is asked. `message` or `recipient`."""
        return bool(self._of_client[what] or self._of_network[what])

    async def message(self, client: Client) -> bool:
        """One message more from this client: may it? Blocks for a round trip to anvil."""
        return await self._one_more("message", client)

    async def recipient(self, client: Client) -> bool:
        """One recipient more from this client: may it? Blocks for a round trip to anvil."""
        return await self._one_more("recipient", client)

    async def _one_more(self, what: str, client: Client) -> bool:
        limits = {}
        if client.key:
            if self._of_client[what]:
                limits[client.key] = self._of_client[what]
            if self._of_network[what]:
                limits[client.network] = self._of_network[what]
        return await self._within(what, limits, times=1)

    async def may_authenticate(self, client: Client, account: str) -> bool:
        """Before a password is looked at: has this client, or has this account, failed too often?

        An account is counted whoever tries it, trusted clients too. Blocks for a round trip to anvil.
        """
        limits = {}
        if client.key and self._limits.auth_failures_per_minute:
            limits[client.key] = self._limits.auth_failures_per_minute
        if account and self._limits.account_failures_per_minute:
            limits[_account_key(account)] = self._limits.account_failures_per_minute
        return await self._within("auth_failure", limits, times=0)

    def auth_failed(self, client: Client, account: str) -> None:
        """Count a wrong password; never waits."""
        keys = [key for key in (client.key, account and _account_key(account)) if key]
        if keys and not self._anvil.post(Happened(n=0, what="auth_failure", keys=tuple(keys))):
            for key in keys:
                self._share.within(1, f"auth_failure {key}")

    async def _within(self, what: str, limits: dict[str, int], *, times: int) -> bool:
        if not limits:
            return True
        keys, most = tuple(limits), tuple(limits.values())
        try:
            counted: LastMinute = await self._anvil.request(
                lambda n: Happened(n=n, what=what, keys=keys, times=times, most=most),  # type: ignore[arg-type]
                timeout_s=ANVIL_TIMEOUT_S,
            )
        except Unavailable:
            return all(
                self._share.within(limit, f"{what} {key}", times=times) for key, limit in limits.items()
            )
        return all(n + (not times) <= limit for n, limit in zip(counted.times, most, strict=False))


def _account_key(account: str) -> str:
    return f"account {account[:MAX_ACCOUNT_OCTETS].casefold()}"
