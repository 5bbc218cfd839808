"""What an address tells about a client."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest

from forkd.config.schema import Config, Limits, Networks
from forkd.worker.clients import Clients, client_key, network_key, peer_address


def clients(**networks: tuple[str, ...]) -> Clients:
    return Clients(msgspec.structs.replace(Config(), networks=Networks(**networks)))


def test_an_ipv4_mapped_address_counts_as_the_ipv4_address():
    """RFC 4291 2.5.5.2: ::ffff:192.0.2.7 is 192.0.2.7, in limits, logs and for plugins."""
    assert peer_address("::ffff:192.0.2.7") == ipaddress.ip_address("192.0.2.7")
    assert clients(relay=("192.0.2.0/24",)).find("::ffff:192.0.2.7").relay


def test_a_scope_is_no_part_of_an_address():
    assert peer_address("fe80::1%eth0") == ipaddress.ip_address("fe80::1")


@pytest.mark.parametrize(
    ("address", "key", "network"),
    [
        ("192.0.2.7", "192.0.2.7", "network 192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "network 2001:db8:1::/48"),
    ],
)
def test_limits_count_an_address_or_a_64_and_the_network_around_it(address: str, key: str, network: str):
    parsed = ipaddress.ip_address(address)
    assert client_key(parsed) == key
    assert network_key(parsed, v4=24, v6=48) == network


def test_the_key_of_a_network_is_never_that_of_a_client():
    """limits.network_prefix_v6 = 64 makes both the same network, and still two counts."""
    parsed = ipaddress.ip_address("2001:db8::1")
    assert network_key(parsed, v4=32, v6=64) != client_key(parsed)


def test_trusted_clients_have_no_keys_and_still_no_right_to_relay():
    """networks.trusted: exempt from limits per address, never from relay rules."""
    client = clients().find("127.0.0.1")
    assert client.trusted
    assert (client.key, client.network, client.relay) == ("", "", False)


def test_each_table_stands_for_itself():
    found = clients(proxy=("192.0.2.1/32",), xclient=("192.0.2.2",), relay=("2001:db8::/32",))
    assert [found.find("192.0.2.1").proxy, found.find("192.0.2.1").xclient] == [True, False]
    assert [found.find("192.0.2.2").proxy, found.find("192.0.2.2").xclient] == [False, True]
    assert found.find("2001:db8::5").relay
    assert not found.find("192.0.2.3").relay
    assert found.find("192.0.2.3") is found.find("192.0.2.3")


def test_the_narrower_network_decides_about_wire():
    """networks.wire_reject, wire_normalize: override listener.wire for these clients."""
    found = clients(wire_reject=("192.0.2.0/24",), wire_normalize=("192.0.2.128/25", "198.51.100.0/24"))
    assert found.find("192.0.2.1").wire == "reject"
    assert found.find("192.0.2.200").wire == "normalize"
    assert found.find("198.51.100.1").wire == "normalize"
    assert found.find("203.0.113.1").wire is None


def test_the_size_of_a_network_is_the_admins_to_say():
    """limits.network_prefix_v4, network_prefix_v6."""
    limits = Limits(network_prefix_v4=16, network_prefix_v6=32)
    found = Clients(msgspec.structs.replace(Config(), limits=limits))
    assert found.find("192.0.2.1").network == "network 192.0.0.0/16"
    assert found.find("2001:db8:1::1").network == "network 2001:db8::/32"
