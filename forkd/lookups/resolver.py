"""What does DNS say of a name? Asked of the configured servers by dnspython, in our loop, and remembered.

UDP, and TCP where an answer was cut. A question that is under way is not asked twice. An answer is kept for
its time to live, NXDOMAIN and no data for what their zone says (RFC 2308: the SOA's); bounds: kept.py.
What failed is not kept. CNAMEs are followed, also where the server answers with nothing but the next one.

Bounds: dns.timeout for all of one lookup; MAX_LOOKUPS at once, beyond which the answer is "temporary".
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any, Literal

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver

from forkd.config.schema import Dns
from forkd.lookups import servers
from forkd.lookups.kept import Kept, Labels

MAX_LOOKUPS = 1000
"""At once: each has a socket."""
MAX_CNAMES = 8
MAX_RECORDS = 256
"""Of one answer that are told: with names of 255 octets they fit into a record of the broker's protocol."""
MAX_TTL_S = 86_400
"""RFC 8767 suggests a bound of days; a day is what most resolvers keep at most."""
MAX_NEGATIVE_TTL_S = 3 * 3600
"""RFC 2308 5: one to three hours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a name.

    expires  monotonic seconds
    """

    status: Literal["found", "no_data", "no_such_name", "temporary"]
    records: tuple[Any, ...] = ()
    expires: float = 0.0


TEMPORARY = Answer("temporary")


class Resolver:
    """One per process that asks."""

    def __init__(self, settings: Dns) -> None:
        self._settings = settings
        self._kept = Kept(settings.cache)
        self._running: dict[tuple[Labels, str], asyncio.Task[Answer]] = {}
        # None: every answer is "temporary".
        self._resolver = servers.stub(settings.servers, float(settings.timeout))
        self.asked = 0
        """Lookups that a server was asked for."""

    def __len__(self) -> int:
        """Answers that are kept."""
        return len(self._kept)

    def known(self, name: Labels, kind: str) -> Answer | None:
        """The answer, if nobody has to be asked for it."""
        return self._kept.get((name, kind))

    async def look(self, name: Labels, kind: str) -> Answer:
        """The answer; waits for dns.timeout at most, and raises nothing. Cancel it freely."""
        answer = self.known(name, kind)
        if answer is not None:
            return answer
        task = self._running.get((name, kind))
        if task is None:
            if self._resolver is None or len(self._running) >= MAX_LOOKUPS:
                return TEMPORARY
            task = self._running[name, kind] = asyncio.create_task(self._ask(name, kind))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [*self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, name: Labels, kind: str) -> Answer:
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = await self._resolve(name, kind)
        except (TimeoutError, dns.exception.DNSException, OSError, ValueError):
            return TEMPORARY
        finally:
            del self._running[name, kind]
        self._kept.put((name, kind), answer)
        return answer

    async def _resolve(self, name: Labels, kind: str) -> Answer:
        assert self._resolver is not None
        wanted = dns.name.Name([label.encode("ascii") for label in name] + [b""])
        ttl_s = float(MAX_TTL_S)
        for _ in range(MAX_CNAMES):
            self.asked += 1
            try:
                found = await self._resolver.resolve(wanted, kind, raise_on_no_answer=False, search=False)
            except dns.resolver.NXDOMAIN as error:
                return Answer("no_such_name", expires=_expires(min(ttl_s, _negative_ttl(error, wanted))))
            chain = found.chaining_result
            ttl_s = min(ttl_s, chain.minimum_ttl)
            if found.rrset is not None:
                records = _RECORDS[kind](found.rrset)[:MAX_RECORDS]
                return Answer("found", tuple(records), _expires(ttl_s))
            ended = any(rrset.rdtype == dns.rdatatype.SOA for rrset in found.response.authority)
            if ended or chain.canonical_name == wanted:
                return Answer("no_data", expires=_expires(min(ttl_s, MAX_NEGATIVE_TTL_S)))
            wanted = chain.canonical_name
        return TEMPORARY  # a chain without an end, or nearly


def _expires(ttl_s: float) -> float:
    return time.monotonic() + ttl_s


def _negative_ttl(error: dns.resolver.NXDOMAIN, name: dns.name.Name) -> float:
    """Of the SOA beside it; a name that does not exist has a short one where none stands there."""
    response: dns.message.Message = error.response(name)  # type: ignore[no-untyped-call]
    assert isinstance(response, dns.message.QueryMessage)
    return float(min(MAX_NEGATIVE_TTL_S, response.resolve_chaining().minimum_ttl))


def _text(name: dns.name.Name) -> str:
    """As plugins see names; the root, a null MX's host, is empty."""
    return name.to_text(omit_final_dot=True).lower() if len(name) > 1 else ""


_RECORDS: dict[str, Any] = {
    "a": lambda rrset: [record.address for record in rrset],
    "aaaa": lambda rrset: [record.address for record in rrset],
    "mx": lambda rrset: sorted((record.preference, _text(record.exchange)) for record in rrset),
    "txt": lambda rrset: [b"".join(record.strings) for record in rrset],
    "ptr": lambda rrset: [_text(record.target) for record in rrset],
}
