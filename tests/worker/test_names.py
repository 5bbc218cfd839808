"""Reverse names: pointer record with forward check, bounded, cached, never a burden to a greeting."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections.abc import Awaitable, Callable, Iterator

import dns.flags
import dns.message
import dns.rrset
import pytest
import uvloop

from forkd.config.schema import Names, Seconds
from forkd.worker.names import DEAD_AFTER, MAX_NAMES, Resolver
from tests.support.nameserver import NameServer

FOUND = "192.0.2.7"
SLOW_S = 0.3
"""names.timeout of tests in which a server is silent."""


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def run(
    server: NameServer,
    scenario: Callable[[Resolver], Awaitable[object]],
    *,
    timeout_s: float = 10,
    cache: int = 100,
    ttl_negative_s: float = 60,
) -> object:
    """The scenario on the loop that workers run."""
    settings = Names(
        servers=(server.address,),
        timeout=Seconds(timeout_s),
        cache=cache,
        ttl_negative=Seconds(ttl_negative_s),
    )

    async def main() -> object:
        resolver = Resolver(settings, asyncio.get_running_loop())
        try:
            return await scenario(resolver)
        finally:
            await resolver.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def name_of(server: NameServer, address: str, **settings: float) -> object:
    return run(server, lambda resolver: resolver.name_of(ipaddress.ip_address(address)), **settings)  # type: ignore[arg-type]


def test_a_name_that_proves_right_is_the_clients(server: NameServer):
    """Pointer record, and the name has the address; lower case, without the last dot."""
    server.host(FOUND, "Mail.Example.ORG")
    assert name_of(server, FOUND) == "mail.example.org"


def test_ipv6_is_looked_up_as_well(server: NameServer):
    server.host("2001:db8::7", "mail6.example.org")
    assert name_of(server, "2001:db8::7") == "mail6.example.org"


def test_a_client_without_a_pointer_record_is_unknown(server: NameServer):
    """NXDOMAIN."""
    assert name_of(server, FOUND) == ""


def test_a_name_that_has_not_this_address_is_a_lie(server: NameServer):
    """Whoever owns the reverse zone writes what he likes."""
    server.pointer(FOUND, "mail.example.org")
    server.add("mail.example.org", "A", "192.0.2.8", "192.0.2.9")
    assert name_of(server, FOUND) == ""


def test_a_name_that_does_not_exist_forwards_is_a_lie(server: NameServer):
    server.pointer(FOUND, "nowhere.example.org")
    assert name_of(server, FOUND) == ""


def test_one_of_several_names_may_prove_right(server: NameServer):
    server.pointer(FOUND, "a.example.org", "b.example.org")
    server.add("b.example.org", "A", FOUND)
    assert name_of(server, FOUND) == "b.example.org"


@pytest.mark.parametrize(
    "name", ["192.0.2.7", "localhost", r"a\032b.example.org", "-x.example.org", r"a\010b.example", "7"]
)
def test_what_is_no_host_name_is_no_name(server: NameServer, name: str):
    """It would stand in headers and logs; a number is taken for an address by somebody."""
    server.pointer(FOUND, name)
    server.add(name, "A", FOUND)
    assert name_of(server, FOUND) == ""


def test_only_a_few_of_many_names_are_tried(server: NameServer):
    """A client with a thousand names costs what one with four does."""
    server.pointer(FOUND, *(f"n{number}.example.org" for number in range(30)))
    assert name_of(server, FOUND) == ""
    assert len(server.asked) == 1 + MAX_NAMES


def test_a_truncated_answer_is_not_asked_for_again_by_tcp(server: NameServer):
    """What does not fit a packet is cut; nobody makes us read 64 KiB of names."""
    server.host(FOUND, "mail.example.org")

    def truncated(query: dns.message.QueryMessage) -> bytes:
        response = dns.message.from_wire(server.from_records(query) or b"")
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=65535)

    server.answer = truncated
    assert name_of(server, FOUND) == "mail.example.org"


def test_garbage_is_no_answer_and_does_no_harm(server: NameServer):
    """A packet that is no message is waited past, until the time is over."""
    server.answer = lambda query: b"\xff" * 2000
    assert name_of(server, FOUND, timeout_s=SLOW_S) == ""


def test_an_answer_of_the_largest_size_is_read(server: NameServer):
    """Poisoned sizes: 400 names in one packet of UDP."""
    server.pointer(FOUND, *(f"n{number}.{'x' * 60}.example.org" for number in range(400)))
    assert name_of(server, FOUND) == ""
    assert len(server.asked) == 1 + MAX_NAMES


def test_servfail_is_unknown(server: NameServer):
    server.answer = server.refuses
    assert name_of(server, FOUND) == ""


def test_a_silent_server_is_unknown_when_the_time_is_over(server: NameServer):
    """names.timeout: a greeting's longest delay."""
    server.answer = server.silent
    assert name_of(server, FOUND, timeout_s=SLOW_S) == ""


def test_a_slow_answer_counts_within_the_time(server: NameServer):
    server.host(FOUND, "mail.example.org")
    go_on = threading.Event()

    def slow(query: dns.message.QueryMessage) -> bytes | None:
        go_on.wait(10)
        return server.from_records(query)

    server.answer = slow

    async def scenario(resolver: Resolver) -> str:
        looking = asyncio.ensure_future(resolver.name_of(ipaddress.ip_address(FOUND)))
        while not server.asked:
            await asyncio.sleep(0.001)
        assert not looking.done()
        go_on.set()
        return await looking

    assert run(server, scenario) == "mail.example.org"


def test_many_sessions_of_one_client_ask_once(server: NameServer):
    """One lookup for however many wait; one of them that goes away takes nothing from the others."""
    server.host(FOUND, "mail.example.org")

    async def scenario(resolver: Resolver) -> list[str]:
        address = ipaddress.ip_address(FOUND)
        gone = asyncio.ensure_future(resolver.name_of(address))
        waiting = [asyncio.ensure_future(resolver.name_of(address)) for _ in range(20)]
        await asyncio.sleep(0)
        gone.cancel()
        return list(await asyncio.gather(*waiting))

    assert run(server, scenario) == ["mail.example.org"] * 20
    assert len(server.asked) == 2


def test_a_known_name_is_not_asked_for_again(server: NameServer):
    server.host(FOUND, "mail.example.org")

    async def scenario(resolver: Resolver) -> None:
        address = ipaddress.ip_address(FOUND)
        nobody = ipaddress.ip_address("192.0.2.99")
        assert resolver.known(address) is None
        assert await resolver.name_of(address) == "mail.example.org"
        assert resolver.known(address) == "mail.example.org"
        assert await resolver.name_of(nobody) == ""
        assert resolver.known(nobody) == ""

    run(server, scenario)
    assert len(server.asked) == 3


def test_a_name_is_asked_for_again_when_its_time_is_over(server: NameServer):
    """The time to live of the records counts: 0 is never remembered."""
    server.host(FOUND, "mail.example.org", ttl=0)

    async def scenario(resolver: Resolver) -> None:
        address = ipaddress.ip_address(FOUND)
        assert await resolver.name_of(address) == "mail.example.org"
        assert resolver.known(address) is None
        assert await resolver.name_of(address) == "mail.example.org"

    run(server, scenario)
    assert len(server.asked) == 4


def test_the_cache_is_bounded(server: NameServer):
    """names.cache."""

    async def scenario(resolver: Resolver) -> list[str | None]:
        for last in range(1, 6):
            await resolver.name_of(ipaddress.ip_address(f"192.0.2.{last}"))
        return [resolver.known(ipaddress.ip_address(f"192.0.2.{last}")) for last in range(1, 6)]

    assert run(server, scenario, cache=2) == [None, None, None, "", ""]


def test_loopback_is_localhost_without_asking(server: NameServer):
    assert name_of(server, "127.0.0.1") == "localhost"
    assert name_of(server, "::1") == "localhost"
    assert server.asked == []


def test_names_can_be_switched_off():
    """names.resolve = false."""

    async def main() -> str | None:
        return Resolver(Names(resolve=False), asyncio.get_running_loop()).known(ipaddress.ip_address(FOUND))

    assert asyncio.run(main()) == ""


def test_a_dead_resolver_is_left_in_peace_until_it_answers(server: NameServer, monkeypatch):
    """After DEAD_AFTER lookups without any answer new clients are unknown at once; it is asked on behind
    the scenes, and when it answers names are looked up again."""
    monkeypatch.setattr("forkd.worker.names.BACK_OFF_S", 0.05)
    server.host("192.0.2.200", "mail.example.org")
    server.answer = server.silent

    async def scenario(resolver: Resolver) -> str:
        for last in range(DEAD_AFTER):
            assert await resolver.name_of(ipaddress.ip_address(f"192.0.2.{last}")) == ""
        later = ipaddress.ip_address("192.0.2.200")
        while not isinstance(resolver.lookup(later), str):
            await asyncio.sleep(0.01)
        asked = [question for question in server.asked if "200" in question]
        assert resolver.lookup(later) == ""
        server.answer = server.from_records
        while isinstance(resolver.lookup(later), str):
            await asyncio.sleep(0.01)
        assert len(asked) <= 2
        return await resolver.name_of(later)

    assert run(server, scenario, timeout_s=SLOW_S, ttl_negative_s=0.001) == "mail.example.org"


def test_a_dead_zone_is_not_taken_for_a_dead_resolver(server: NameServer):
    """Whoever has a reverse zone that nobody answers for cannot take the others' names away."""
    server.host("198.51.100.1", "mail.example.org")

    def dead_zone(query: dns.message.QueryMessage) -> bytes | None:
        if "2.0.192.in-addr" in query.question[0].name.to_text():
            return None
        return server.from_records(query)

    server.answer = dead_zone

    async def scenario(resolver: Resolver) -> str:
        for last in range(DEAD_AFTER + 1):
            assert await resolver.name_of(ipaddress.ip_address(f"192.0.2.{last}")) == ""
        while not [question for question in server.asked if question == ". NS"]:
            await asyncio.sleep(0.01)
        return await resolver.name_of(ipaddress.ip_address("198.51.100.1"))

    assert run(server, scenario, timeout_s=SLOW_S) == "mail.example.org"


def test_a_server_may_be_named_with_and_without_a_port():
    """names.servers."""

    async def main() -> list[tuple[str, int]]:
        settings = Names(servers=("192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353"))
        resolver = Resolver(settings, asyncio.get_running_loop())
        assert resolver._resolver is not None
        return [(server.address, server.port) for server in resolver._resolver.nameservers]  # type: ignore[union-attr]

    assert asyncio.run(main()) == [
        ("192.0.2.1", 53),
        ("192.0.2.1", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::1", 5353),
    ]
