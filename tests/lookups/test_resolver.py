"""forkd/lookups/resolver.py against a real name server on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest
import uvloop

from forkd.broker.grants import labels
from forkd.config.schema import Dns, Seconds
from forkd.lookups.resolver import Answer, Resolver
from forkd.lookups.servers import endpoint
from tests.support.nameserver import NameServer


def ask(server: NameServer, body: Callable[[Resolver], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def whole() -> None:
        given = {"servers": (server.address,), "timeout": Seconds(5)} | settings
        resolver = Resolver(Dns(**given))
        try:
            await body(resolver)
        finally:
            await resolver.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


async def look(resolver: Resolver, name: str, kind: str = "a") -> Answer:
    return await resolver.look(labels(name), kind)


def test_records_have_their_types():
    """The SDK's contract: addresses, (preference, host) sorted, texts joined, names in lower case."""
    with NameServer() as server:
        server.add("x.example", "A", "192.0.2.1")
        server.add("x.example", "AAAA", "2001:db8::1")
        server.add("x.example", "MX", "20 B.example.", "10 a.example.")
        server.add("null.example", "MX", "0 .")
        server.add("x.example", "TXT", '"v=spf1 " "-all"', '"\\255"')
        server.pointer("192.0.2.1", "MX.example")

        async def body(resolver: Resolver) -> None:
            assert (await look(resolver, "x.example")).records == ("192.0.2.1",)
            assert (await look(resolver, "x.example", "aaaa")).records == ("2001:db8::1",)
            assert (await look(resolver, "x.example", "mx")).records == ((10, "a.example"), (20, "b.example"))
            assert (await look(resolver, "null.example", "mx")).records == ((0, ""),)
            assert sorted((await look(resolver, "x.example", "txt")).records) == [b"v=spf1 -all", b"\xff"]
            assert (await look(resolver, "1.2.0.192.in-addr.arpa", "ptr")).records == ("mx.example",)
            assert (await look(resolver, "x.example", "ptr")).status == "no_data"
            assert (await look(resolver, "y.example")).status == "no_such_name"

        ask(server, body)


def test_an_answer_is_kept_for_its_time_and_asked_for_anew_after_it():
    """TTL; of NXDOMAIN and no data the SOA's minimum (RFC 2308 5)."""
    with NameServer() as server:
        server.add("x.example", "A", "192.0.2.1", ttl=300)
        server.add("short.example", "A", "192.0.2.1", ttl=0)
        server.negative = 60

        async def body(resolver: Resolver) -> None:
            for _ in range(2):
                for name in ("x.example", "short.example", "no.example"):
                    await look(resolver, name)
                await look(resolver, "x.example", "mx")
            now = time.monotonic()
            found = resolver.known(labels("x.example"), "a")
            assert found is not None
            assert 290 < found.expires - now <= 300
            for name, kind in (("no.example", "a"), ("x.example", "mx")):
                absent = resolver.known(labels(name), kind)
                assert absent is not None
                assert 50 < absent.expires - now <= 60

        ask(server, body)
        counts = {question: server.asked.count(question) for question in server.asked}
        assert counts == {"x.example. A": 1, "short.example. A": 2, "no.example. A": 1, "x.example. MX": 1}


def test_the_cache_is_bounded():
    """[dns] cache: so many answers, the one used longest ago goes first; 0: none."""
    with NameServer() as server:
        for n in range(4):
            server.add(f"{n}.example", "A", "192.0.2.1")

        async def three(resolver: Resolver) -> None:
            for n in (0, 1, 2, 0, 3):
                await look(resolver, f"{n}.example")
            assert len(resolver) == 3
            assert resolver.known(labels("1.example"), "a") is None
            assert resolver.known(labels("0.example"), "a") is not None

        async def none(resolver: Resolver) -> None:
            await look(resolver, "0.example")
            assert len(resolver) == 0

        ask(server, three, cache=3)
        ask(server, none, cache=0)


def test_a_question_under_way_is_not_asked_twice():
    """A hundred sessions that wait for one answer cost one packet; one that goes away takes nobody along."""
    with NameServer() as server:
        server.add("x.example", "A", "192.0.2.1")

        async def body(resolver: Resolver) -> None:
            asking = [asyncio.ensure_future(look(resolver, "x.example")) for _ in range(100)]
            await asyncio.sleep(0)
            asking[0].cancel()
            assert {answer.status for answer in await asyncio.gather(*asking[1:])} == {"found"}

        ask(server, body)
        assert server.asked == ["x.example. A"]


def test_an_answer_that_was_cut_comes_by_tcp():
    """UDP, then TCP (RFC 7766)."""
    with NameServer() as server:
        server.udp_bytes = 400
        server.add("x.example", "A", *(f"192.0.2.{n}" for n in range(100)))

        async def body(resolver: Resolver) -> None:
            assert len((await look(resolver, "x.example")).records) == 100

        ask(server, body)
        assert server.asked_tcp == ["x.example."]


@pytest.mark.parametrize("how", ["whole", "step by step"])
def test_aliases_are_followed(how: str):
    """CNAMEs, whether the server gives all of the chain or the next one only; the shortest time counts."""
    with NameServer() as server:
        server.add("end.example", "A", "192.0.2.7", ttl=300)

        def answer(query: dns.message.QueryMessage) -> bytes | None:
            name = query.question[0].name
            response = dns.message.make_response(query)
            if name.to_text() == "x.example.":
                response.answer.append(dns.rrset.from_text(name, 30, "IN", "CNAME", "end.example."))
                if how == "whole":
                    response.answer.append(dns.rrset.from_text("end.example.", 300, "IN", "A", "192.0.2.7"))
                return response.to_wire()
            return server.from_records(query)

        server.answer = answer

        async def body(resolver: Resolver) -> None:
            found = await look(resolver, "x.example")
            assert found.records == ("192.0.2.7",)
            assert found.expires - time.monotonic() <= 30

        ask(server, body)


def test_a_chain_without_an_end_is_temporary():
    """Two names that are each other's alias."""
    with NameServer() as server:

        def answer(query: dns.message.QueryMessage) -> bytes | None:
            name = query.question[0].name
            other = "b.example." if name.to_text() == "a.example." else "a.example."
            response = dns.message.make_response(query)
            response.answer.append(dns.rrset.from_text(name, 30, "IN", "CNAME", other))
            return response.to_wire()

        server.answer = answer

        async def body(resolver: Resolver) -> None:
            assert (await look(resolver, "a.example")).status == "temporary"

        ask(server, body)
        assert len(server.asked) <= 10


@pytest.mark.parametrize("how", ["silent", "refuses", "garbage"])
def test_a_server_without_an_answer_is_temporary_and_not_kept(how: str):
    """dns.timeout bounds it; the next question is asked again."""
    with NameServer() as server:
        server.answer = {"silent": server.silent, "refuses": server.refuses, "garbage": lambda _: b"\0" * 40}[
            how
        ]
        server.add("x.example", "A", "192.0.2.1")

        async def body(resolver: Resolver) -> None:
            assert (await look(resolver, "x.example")).status == "temporary"
            server.answer = server.from_records
            assert (await look(resolver, "x.example")).status == "found"

        ask(server, body, timeout=Seconds(1))


def test_too_many_records_are_cut():
    """An answer must fit a record to the sandbox."""
    with NameServer() as server:
        server.add("x.example", "A", *(f"10.0.{n // 250}.{n % 250}" for n in range(1000)))

        async def body(resolver: Resolver) -> None:
            assert len((await look(resolver, "x.example")).records) == 256

        ask(server, body)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_servers_are_written_with_or_without_a_port(text: str, meant: tuple[str, int]):
    """[dns] servers."""
    assert endpoint(text) == meant
