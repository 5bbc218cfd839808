"""What is this client called? Its reverse name, where it proves right forwards (RFC 8499, "FCrDNS").

A pointer record is whatever the owner of an address likes to write, so a name counts only when it has the
address among its own. Asked in the worker's loop by dnspython, over UDP alone: an answer is cut at what
UDP carries (1,232 octets), for more than MAX_NAMES names of one client nobody looks at.

Bounds: one lookup for however many sessions wait for the same address; names.timeout for all of it;
MAX_LOOKUPS at once, beyond which a client is unknown; names.cache names remembered, for their time to live
within names.ttl_max. After DEAD_AFTER lookups in a row that no server answered, the servers are asked for
the root's own name servers, which any living resolver knows: so a client whose zone is dead is not taken
for a dead resolver. While that is not answered either, every new client is unknown at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from typing import Any

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.resolver
import dns.reversename

from forkd import log
from forkd.config.schema import Names
from forkd.lookups import servers
from forkd.worker.clients import Address

MAX_NAMES = 4
"""Of one client that are tried forwards: real ones have one."""
MAX_LOOKUPS = 200
"""At once, per worker: each has a socket."""
DEAD_AFTER = 3
BACK_OFF_S = 2.0
"""Between two such questions, at first; each without an answer doubles it ..."""
BACK_OFF_MAX_S = 60.0
"""... up to this."""
FAILED_TTL_S = 10.0
"""A name whose lookup failed (no answer, SERVFAIL) is asked for again after so long."""

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))+")
_NUMERIC_END = re.compile(r"(^|\.)[0-9]+$")


class _NoAnswer(Exception):  # noqa: N818
    """No server answered in time."""


class _Server(dns.nameserver.Do53Nameserver):
    """One name server, by UDP; a truncated answer is taken as far as it goes."""

    async def async_query(  # noqa: PLR0917 - dnspython's signature
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,  # noqa: ARG002 - it asks for TCP then
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        return await dns.asyncquery.udp(
            request,
            self.address,
            timeout=timeout,
            port=self.port,
            source=source,
            source_port=source_port,
            one_rr_per_rrset=one_rr_per_rrset,
            ignore_trailing=ignore_trailing,
            raise_on_truncation=False,
            backend=backend,
            ignore_errors=True,
            ignore_unexpected=True,
        )


class Resolver:
    """One per worker. Every answer is a name in lower case without its last dot, or "" for unknown."""

    def __init__(self, settings: Names, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._cache: OrderedDict[Address, tuple[float, str]] = OrderedDict()
        """Until when it may be used (monotonic), and the name."""
        self._running: dict[Address, asyncio.Task[str]] = {}
        self._silent = 0
        """Lookups in a row without any answer."""
        self._dead = False
        self._probing: asyncio.Task[None] | None = None
        # None: every client is unknown.
        self._resolver = (
            servers.stub(settings.servers, float(settings.timeout), _Server) if settings.resolve else None
        )

    def known(self, address: Address) -> str | None:
        """The name if nobody has to be asked for it; None: lookup() would ask. Never waits."""
        entry = self._cache.get(address)
        if entry is not None and time.monotonic() < entry[0]:
            return entry[1]
        if address.is_loopback:
            self._remember(address, "localhost", float(self._settings.ttl_max))
            return "localhost"
        return "" if self._resolver is None else None

    def lookup(self, address: Address) -> str | asyncio.Future[str]:
        """The name, or the future of it: done within names.timeout, never failing; cancel it freely."""
        name = self.known(address)
        if name is not None:
            return name
        task = self._running.get(address)
        if task is None:
            if self._dead or len(self._running) >= MAX_LOOKUPS:
                return ""
            task = self._running[address] = self._loop.create_task(self._look(address))
        return asyncio.shield(task)

    async def name_of(self, address: Address) -> str:
        """The name; waits for names.timeout at most."""
        name = self.lookup(address)
        return name if isinstance(name, str) else await name

    async def close(self) -> None:
        """Give up what is under way."""
        tasks: list[asyncio.Task[Any]] = [*self._running.values()]
        if self._probing is not None:
            tasks.append(self._probing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, address: Address) -> str:
        settings = self._settings
        name, ttl_s = "", FAILED_TTL_S
        try:
            async with asyncio.timeout(settings.timeout):
                name, ttl_s = await self._confirmed(address)
            self._silent = 0
        except (TimeoutError, _NoAnswer):
            self._unanswered()
        except (dns.exception.DNSException, OSError, ValueError):
            self._silent = 0  # an error is an answer too: SERVFAIL, a name that is none
        finally:
            del self._running[address]
        longest = settings.ttl_max if name else settings.ttl_negative
        self._remember(address, name, min(ttl_s, longest))
        return name

    async def _confirmed(self, address: Address) -> tuple[str, float]:
        """The first of its names that has this address, and for how long that may be remembered."""
        pointers, ttl_s = await self._ask(dns.reversename.from_address(str(address)), "PTR")
        kind = "A" if address.version == 4 else "AAAA"
        for target in pointers[:MAX_NAMES]:
            name = target.rstrip(".")
            if not _HOST.fullmatch(name) or _NUMERIC_END.search(name):
                continue
            forwards, forward_ttl_s = await self._ask(f"{name}.", kind)
            if any(ipaddress.ip_address(text) == address for text in forwards):
                return name.lower(), min(ttl_s, forward_ttl_s)
        return "", self._settings.ttl_negative

    async def _ask(self, name: Any, kind: str) -> tuple[list[str], float]:
        """The records as text, and their time to live; none where there are none."""
        assert self._resolver is not None
        try:
            answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return [], self._settings.ttl_negative
        except dns.resolver.LifetimeTimeout as error:
            raise _NoAnswer from error
        if answer.rrset is None:
            return [], self._settings.ttl_negative
        return [record.to_text() for record in answer.rrset], float(answer.rrset.ttl)

    def _remember(self, address: Address, name: str, ttl_s: float) -> None:
        if len(self._cache) >= self._settings.cache:
            self._cache.popitem(last=False)
        self._cache.pop(address, None)
        self._cache[address] = (time.monotonic() + ttl_s, name)

    def _unanswered(self) -> None:
        self._silent += 1
        if self._silent >= DEAD_AFTER and self._probing is None:
            self._probing = self._loop.create_task(self._probe())

    async def _probe(self) -> None:
        """Is it the resolver that is dead? Ask it until it answers."""
        pause_s = BACK_OFF_S
        while not await self._answers():
            if not self._dead:
                self._dead = True
                log.service(act="resolver_silent", level="warning", detail="clients have no names meanwhile")
            await asyncio.sleep(pause_s)
            pause_s = min(BACK_OFF_MAX_S, 2 * pause_s)
        if self._dead:
            log.service(act="resolver_answers")
        self._dead = False
        self._silent = 0
        self._probing = None

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._ask(dns.name.root, "NS")
        except (TimeoutError, _NoAnswer):
            return False
        except (dns.exception.DNSException, OSError):
            return True
        return True
