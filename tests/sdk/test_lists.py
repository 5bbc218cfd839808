"""Whom does a list name? The forms of forkd.sdk.lists, each with those it names and those it does not."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk import Address
from forkd.sdk.listfile import EntryError
from forkd.sdk.lists import PRIVATE, Addresses, Clients, Domains, Networks, exceptions
from forkd.sdk.views import Envelope, Session


def client(address: str, name: str = "") -> Session:
    session = Session(Envelope(granted=False))
    session.client_ip, session.client_name = address, name
    return session


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("192.0.2.1", [("192.0.2.1", "")], [("192.0.2.2", ""), ("2001:db8::1", "")]),
        ("192.0.2.0/24", [("192.0.2.0", ""), ("192.0.2.255", "")], [("192.0.3.0", "")]),
        ("0.0.0.0/0", [("203.0.113.9", "")], [("2001:db8::1", "")]),
        ("2001:db8::/32", [("2001:db8:ffff::1", "")], [("2001:db9::1", ""), ("192.0.2.1", "")]),
        ("2001:DB8::1", [("2001:db8:0::1", "")], [("2001:db8::2", "")]),
        ("mx.example.com", [("::1", "MX.example.com")], [("::1", "a.mx.example.com"), ("::1", "")]),
        (".example.com", [("::1", "a.b.example.com")], [("::1", "example.com"), ("::1", "xexample.com")]),
        ("*.example.com", [("::1", "a.example.com")], [("::1", "example.com")]),
        ("bücher.example", [("::1", "xn--bcher-kva.example")], [("::1", "x.example")]),
    ],
)  # fmt: skip
def test_a_client_by_address_network_or_name(
    entry: str, yes: list[tuple[str, str]], no: list[tuple[str, str]]
):
    clients = Clients()
    clients.add(entry)
    assert [each for each in yes if not clients.names(client(*each))] == []
    assert [each for each in no if clients.names(client(*each))] == []


@pytest.mark.parametrize(
    "entry", ["192.0.2.1/24", "192.0.2", "192.0.2.256", "2001:db8::/129", "::g", "a b", "", ".", "a..b"]
)
def test_what_is_no_client(entry: str):
    with pytest.raises(EntryError):
        Clients().add(entry)


def test_an_address_that_is_none_is_in_no_network():
    """A client on a unix socket, or unknown."""
    assert not Networks("0.0.0.0/0", "::/0").names("")
    assert not Networks("0.0.0.0/0").names("unix")


@given(st.ip_addresses(), st.integers(0, 128))
def test_networks_agree_with_ipaddress(address, prefix):
    """Looked up in one step per length of prefix; the same as asking each network."""
    network = ipaddress.ip_network((address, min(prefix, address.max_prefixlen)), strict=False)
    networks = Networks(str(network), "198.51.100.0/24")
    other = (
        ipaddress.ip_address(int(address) ^ 1 << (address.max_prefixlen // 2))
        if address.version == 4
        else address
    )
    for each in (address, other):
        assert networks.names(str(each)) == (
            each in network or each in ipaddress.ip_network("198.51.100.0/24")
        )


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "::1", "::",
                "fd00::1", "fe80::1", "224.0.0.1", "255.255.255.255"]
)  # fmt: skip
def test_private_addresses(address: str):
    assert PRIVATE.names(address)


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "172.32.0.1", "100.128.0.1", "8.8.8.8", "2001:db8::1", "2a00::1", ""]
)
def test_public_addresses(address: str):
    assert not PRIVATE.names(address)


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("User@Example.com", ["USER@example.com"], ["x@example.com", "user@a.example.co"]),
        ("example.com", ["a@example.com"], ["a@b.example.com", "example.com@x.example"]),
        ("@example.com", ["a@example.com"], ["a@example.org"]),
        ("*@example.com", ["a@example.com"], ["a@example.org"]),
        (".example.com", ["a@b.example.com", "a@c.b.example.com"], ["a@example.com"]),
        ("user@", ["user@a.example", "USER@b.example"], ["users@a.example", ""]),
        ("user@*", ["user@a.example"], []),
        ('"a b"@x.example', ['"a b"@x.example'], ["ab@x.example"]),
        ("u@[192.0.2.1]", ["u@[192.0.2.1]"], ["u@192.0.2.1"]),
        ("<>", [""], ["a@example.com"]),
    ],
)  # fmt: skip
def test_an_address(entry: str, yes: list[str], no: list[str]):
    addresses = Addresses()
    assert not addresses
    addresses.add(entry)
    assert addresses
    assert [each for each in yes if not addresses.names(Address.parse(each))] == []
    assert [each for each in no if addresses.names(Address.parse(each))] == []


def test_domains_below():
    domains = Domains()
    domains.add(".example.com")
    assert domains.names("a.example.com")
    assert not domains.names("example.com")


def test_exceptions_from_a_setting_and_from_files(tmp_path: Path):
    """Every bad line of a source is shown at once, with its place."""
    file = tmp_path / "list"
    file.write_text("# partners\nclient 192.0.2.1\nuser Bob  # ours\n")
    named = exceptions(
        "allow", ["sender example.com", "recipient postmaster@", "client  .mx.example"], [str(file)]
    )
    assert named.clients.names(client("192.0.2.1"))
    assert named.clients.names(client("::1", "a.mx.example"))
    assert named.senders.names(Address.parse("a@example.com"))
    assert named.recipients.names(Address.parse("postmaster@any.example"))
    assert named.users == {"bob"}
    file.write_text("client\nnobody x\nclient 1.2.3\nsender a b\nrecipient a@b..c\n\nclient 192.0.2.1\n")
    with pytest.raises(ValueError, match="these name nobody") as error:
        exceptions("allow", [], [str(file)])
    places = [line.partition(": ")[0] for line in str(error.value).splitlines()[1:]]
    assert places == [f"{file}:{n}" for n in range(1, 6)]
    with pytest.raises(ValueError, match="setting allow, entry 1: 'all': write one of client"):
        exceptions("allow", ["all"])
