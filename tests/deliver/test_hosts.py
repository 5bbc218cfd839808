"""forkd/deliver/hosts.py: where mail goes, asked of a real name server on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from forkd.config.schema import Dns, Seconds
from forkd.deliver.hosts import Hop, Hosts, NoHops, Ourselves, Settings, in_order, in_turns, usable
from forkd.lookups.resolver import Resolver
from tests.support.nameserver import NameServer


def hops(server: NameServer, domain: str, **settings: object) -> tuple[Hop, ...]:
    resolver = Resolver(Dns(servers=(server.address,), timeout=Seconds(1)))
    hosts = Hosts(Settings(**settings), resolver)  # type: ignore[arg-type]
    return asyncio.run(hosts.hops(domain))


def refused(server: NameServer, domain: str, **settings: object) -> tuple[str, str]:
    with pytest.raises(NoHops) as caught:
        hops(server, domain, **settings)
    return caught.value.status, caught.value.enhanced


def addresses(found: tuple[Hop, ...]) -> list[str]:
    return [hop.address for hop in found]


@pytest.fixture
def server():
    with NameServer() as server:
        yield server


def test_mx_hosts_are_tried_by_preference_with_all_of_their_addresses(server: NameServer):
    """RFC 5321 5.1: the lowest number first; of one host IPv6 and IPv4 in turns (RFC 8305)."""
    server.add("x.test", "MX", "20 b.test.", "10 a.test.")
    server.add("a.test", "A", "192.0.2.1")
    server.add("a.test", "AAAA", "2001:db8::1", "2001:db8::2")
    server.add("b.test", "A", "192.0.2.2")
    found = hops(server, "x.test")
    assert [hop.name for hop in found] == ["a.test", "a.test", "a.test", "b.test"]
    assert set(addresses(found)[:3:2]) == {"2001:db8::1", "2001:db8::2"}
    assert addresses(found)[1::2] == ["192.0.2.1", "192.0.2.2"]
    assert {hop.port for hop in found} == {25}
    assert {hop.domain for hop in found} == {""}
    assert {hop.domain for hop in hops(server, "x.test", proven=True)} == {"x.test"}


@pytest.mark.parametrize(
    ("family", "wanted"),
    [("any", ["2001:db8::1", "192.0.2.1"]), ("ipv4", ["192.0.2.1"]), ("ipv6", ["2001:db8::1"])],
)
def test_a_family_can_be_chosen(server: NameServer, family: str, wanted: list[str]):
    server.add("x.test", "A", "192.0.2.1")
    server.add("x.test", "AAAA", "2001:db8::1")
    assert addresses(hops(server, "x.test", family=family)) == wanted
    assert any("AAAA" in asked for asked in server.asked) == (family != "ipv4")


def test_hosts_of_one_preference_share_the_mail(server: NameServer):
    """RFC 5321 5.1: a client must spread the load; another order each time, and never over preferences."""
    records = [(10, f"{letter}.test") for letter in "abcde"] + [(20, "last.test")]
    orders = {tuple(in_order(records, random.Random(seed))) for seed in range(50)}
    assert len({order[0] for order in orders}) == 5
    assert {order[-1] for order in orders} == {(20, "last.test")}


def test_a_domain_without_mx_is_its_own_mail_server(server: NameServer):
    """RFC 5321 5.1: the implicit MX."""
    server.add("x.test", "A", "192.0.2.1")
    assert hops(server, "x.test", port=2525) == (Hop("x.test", "192.0.2.1", 2525),)


def test_an_alias_is_followed(server: NameServer):
    """RFC 5321 5.1: the name that a CNAME gives is processed as if it were the first one."""
    server.add("www.test", "CNAME", "x.test.")
    server.add("x.test", "MX", "10 a.test.")
    server.add("a.test", "A", "192.0.2.1")

    def answer(query):
        name = query.question[0].name.to_text(omit_final_dot=True)
        kind = "CNAME" if name == "www.test" else None
        if kind is None:
            return server.from_records(query)
        import dns.message
        import dns.rrset

        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "CNAME", "x.test."))
        return response.to_wire()

    server.answer = answer
    assert hops(server, "www.test") == (Hop("a.test", "192.0.2.1", 25),)


def test_a_name_in_any_script_is_asked_for_in_ascii(server: NameServer):
    """RFC 6531 3.2: A-labels are what DNS knows."""
    server.add("xn--bcher-kva.test", "MX", "10 a.test.")
    server.add("a.test", "A", "192.0.2.1")
    assert addresses(hops(server, "Bücher.test")) == ["192.0.2.1"]


def test_address_literals_need_no_name_server(server: NameServer):
    """RFC 5321 4.1.3."""
    assert addresses(hops(server, "[192.0.2.7]")) == ["192.0.2.7"]
    assert addresses(hops(server, "[IPv6:2001:db8::7]")) == ["2001:db8::7"]
    assert refused(server, "[x-tag:y]") == ("failed", "5.1.2")
    assert refused(server, "[192.0.2.7]", family="ipv6") == ("failed", "5.4.4")
    assert refused(server, "[0.0.0.0]") == ("failed", "5.4.4")
    assert not server.asked


def fails(server: NameServer) -> None:
    server.answer = server.refuses


def is_silent(server: NameServer) -> None:
    server.answer = server.silent


def host_fails(server: NameServer) -> None:
    server.add("x.test", "MX", "10 a.test.")

    def answer(query):
        kind = query.question[0].rdtype
        return server.from_records(query) if kind == 15 else server.refuses(query)

    server.answer = answer


NOBODY: dict[str, tuple[Callable[[NameServer], object], tuple[str, str]]] = {
    "no such domain": (lambda server: None, ("failed", "5.1.2")),
    "null MX": (lambda server: server.add("x.test", "MX", "0 ."), ("failed", "5.1.10")),
    "no record": (lambda server: server.add("x.test", "TXT", '"here"'), ("failed", "5.1.2")),
    "MX without an address": (lambda server: server.add("x.test", "MX", "10 no.test."), ("failed", "5.4.4")),
    "MX that is an address": (
        lambda server: server.add("x.test", "MX", "10 192.0.2.1."),
        ("failed", "5.4.4"),
    ),
    "SERVFAIL": (fails, ("deferred", "4.4.3")),
    "silence": (is_silent, ("deferred", "4.4.3")),
    "SERVFAIL for the host": (host_fails, ("deferred", "4.4.3")),
}


@pytest.mark.parametrize("name", NOBODY)
def test_why_there_is_nobody_to_give_it_to(server: NameServer, name: str):
    """For good only where DNS says so itself (RFC 5321 5.1, RFC 7505 4)."""
    prepare, wanted = NOBODY[name]
    prepare(server)
    assert refused(server, "x.test") == wanted


def test_what_is_no_domain_name_fails(server: NameServer):
    assert refused(server, "a\u2028b.test") == ("failed", "5.1.2")
    assert refused(server, "a..test") == ("failed", "5.1.2")
    assert refused(server, f"{'a' * 64}.test") == ("failed", "5.1.2")


def test_a_host_that_cannot_be_heard_of_is_passed_over(server: NameServer):
    """The others are tried now; it may be there the next time."""
    server.add("x.test", "MX", "10 gone.test.", "20 b.test.")
    server.add("b.test", "A", "192.0.2.2")
    assert addresses(hops(server, "x.test")) == ["192.0.2.2"]


def test_we_never_give_mail_to_ourselves_or_to_worse_hosts(server: NameServer):
    """RFC 5321 5.1: where we stand in the list, only better ones are tried; by name or by address."""
    server.add("x.test", "MX", "10 best.test.", "20 us.test.", "20 equal.test.", "30 worse.test.")
    for at, name in enumerate(("best", "us", "equal", "worse"), 1):
        server.add(f"{name}.test", "A", f"192.0.2.{at}")
    server.add("y.test", "MX", "10 us.test.", "20 worse.test.")
    by_name = Ourselves(names=frozenset({"us.test"}))
    by_address = Ourselves(listeners=(("192.0.2.2", 25),))
    for ourselves in (by_name, by_address):
        assert addresses(hops(server, "x.test", ourselves=ourselves)) == ["192.0.2.1"]
        assert refused(server, "y.test", ourselves=ourselves) == ("failed", "5.4.6")
    assert refused(server, "[192.0.2.2]", ourselves=by_address) == ("failed", "5.4.6")


def test_a_listener_on_every_address_is_ourselves_on_those_of_this_machine(server: NameServer):
    """0.0.0.0:2525: another port is another server, another address another machine."""
    ourselves = Ourselves(listeners=(("0.0.0.0", 2525),))
    server.add("x.test", "A", "127.0.0.1")
    server.add("y.test", "A", "192.0.2.1")
    assert refused(server, "x.test", ourselves=ourselves, port=2525) == ("failed", "5.4.6")
    assert addresses(hops(server, "x.test", ourselves=ourselves, port=25)) == ["127.0.0.1"]
    assert addresses(hops(server, "y.test", ourselves=ourselves, port=2525)) == ["192.0.2.1"]


def test_the_lists_of_others_are_bounded(server: NameServer):
    """Who has a zone writes what he likes."""
    server.add("x.test", "MX", *(f"{at} h{at}.test." for at in range(40)))
    for at in range(40):
        server.add(f"h{at}.test", "A", *(f"192.0.2.{each}" for each in range(1, 6)))
    found = hops(server, "x.test", family="ipv4")
    assert len(found) == 20
    assert len([each for each in server.asked if each.startswith("h")]) == 10


def test_nobody_is_asked_twice_for_what_is_known(server: NameServer):
    """Kept for its time to live (lookups/kept.py)."""
    server.add("x.test", "MX", "10 a.test.")
    server.add("a.test", "A", "192.0.2.1")
    server.negative = 60

    async def twice() -> None:
        hosts = Hosts(Settings(), Resolver(Dns(servers=(server.address,))))
        for _ in range(5):
            await hosts.hops("x.test")

    asyncio.run(twice())
    assert sorted(server.asked) == ["a.test. A", "a.test. AAAA", "x.test. MX"]


def test_fixed_hosts_are_tried_as_they_are_written(server: NameServer):
    """No MX; names by this machine (/etc/hosts), or by the name servers that are configured."""
    server.add("b.test", "A", "192.0.2.2")
    fixed = (("192.0.2.9", 26), ("b.test", 25), ("/run/store", 0))
    assert hops(server, "any.test", fixed=fixed, system=False) == (
        Hop("192.0.2.9", "192.0.2.9", 26),
        Hop("b.test", "192.0.2.2", 25),
        Hop("localhost", "/run/store", 0),
    )
    found = hops(server, "any.test", fixed=(("localhost", 24),), family="ipv4")
    assert found == (Hop("localhost", "127.0.0.1", 24),)


def test_a_fixed_host_without_an_address_is_waited_for(server: NameServer):
    """An admin named it, and mends it: no mail fails for it."""
    assert refused(server, "any.test", fixed=(("no.test", 25),), system=False) == ("deferred", "4.4.3")
    assert refused(server, "any.test", fixed=(("no.invalid", 25),)) == ("deferred", "4.4.3")


def test_in_turns():
    assert in_turns([["a", "b", "c"], ["1"], []]) == ["a", "1", "b", "c"]


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"]
)
def test_no_host_has_such_an_address(address: str):
    """0.0.0.0 would be this machine itself."""
    assert not usable(address)
