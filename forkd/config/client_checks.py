"""Do the tables about clients contradict each other: listeners, TLS, names, networks, limits?"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from forkd.config.addresses import address_slip, overlap, parse_address, parse_server
from forkd.config.auth_checks import has_tls
from forkd.config.checking import Check
from forkd.config.domains import is_domain, server_name
from forkd.config.lines import KeyPath
from forkd.config.problems import toml_key

SUBMISSIONS_PORT: Final = 465
"""Implicit TLS (RFC 8314 7.3)."""


def _listeners(c: Check) -> None:
    """Each has an address of its own."""
    taken: dict[tuple[str, int], str] = {}
    for name, listener in c.config.listener.items():
        path = ("listener", name, "address")
        if not c.clean(path):
            continue
        try:
            host, port = parse_address(listener.address)
        except ValueError as error:
            c.bad(path, str(error), value=listener.address, hint=address_slip(listener.address))
            continue
        for (other_host, other_port), other in taken.items():
            if port == other_port != 0 and overlap(host, other_host):
                c.bad(path, f"[listener.{toml_key(other)}] has this address", value=listener.address)
        taken[host, port] = name
        if port == SUBMISSIONS_PORT and listener.tls != "implicit":
            c.notes.append(
                f"listener.{toml_key(name)}: on port 465 clients speak TLS at once (RFC 8314 7.3), "
                'and tls is not "implicit"'
            )
        if listener.greeting_delay and listener.early_talker == "ignore":
            c.notes.append(
                f"listener.{toml_key(name)}: greeting_delay waits for who talks early, "
                'and early_talker = "ignore" lets them'
            )


def _tls(c: Check) -> None:
    """TLS has a certificate, certificates of clients have somebody to check them against."""
    config = c.config
    asked = False
    for name, listener in config.listener.items():
        path: KeyPath = ("listener", name)
        if not c.clean((*path, "tls"), (*path, "client_certificates"), ("certificate",)):
            continue
        if listener.tls not in ("auto", "off") and not config.certificate:
            hint = f"write [certificate.{toml_key(config.server.hostname)}] with its chain"
            c.bad(
                (*path, "tls"), "TLS needs a [certificate], and there is none", value=listener.tls, hint=hint
            )
            continue
        clients = listener.client_certificates
        if clients == "off":
            continue
        asked = True
        where = (*path, "client_certificates")
        if not has_tls(config, listener):
            c.bad(where, "clients show certificates in TLS, and this listener speaks none", value=clients)
        elif clients == "require" and listener.tls not in ("required", "implicit"):
            rule = "a client that does not start TLS would need no certificate"
            c.bad(where, rule, value=clients, hint='write tls = "required" or "implicit" beside it')
        elif config.tls.client_ca is None and c.clean(("tls", "client_ca")):
            rule = "nothing says who signs the certificates of clients"
            c.bad(where, rule, value=clients, hint="set client_ca in [tls]")
    if config.certificate and all(listener.tls == "off" for listener in config.listener.values()):
        c.notes.append('no [certificate] is used: every listener has tls = "off"')
    if config.tls.client_ca is not None and c.clean(("tls", "client_ca")):
        c.file(("tls", "client_ca"), config.tls.client_ca)
        if not asked:
            c.notes.append("tls.client_ca is not used: no listener has client_certificates")


def _certificates(c: Check) -> None:
    """Names of certificates are names, and the files are there."""
    seen: dict[str, str] = {}
    for name, certificate in c.config.certificate.items():
        path: KeyPath = ("certificate", name)
        if not is_domain(name.removeprefix("*.")):
            rule = 'this is a host name in quotes, as in [certificate."mail.example.org"] or "*.example.org"'
            c.bad(path, rule)
            continue
        same = server_name(name)
        if same in seen:
            c.bad(path, f"this name stands as [certificate.{toml_key(seen[same])}] too")
        seen[same] = name
        if c.clean((*path, "chain")):
            c.file((*path, "chain"), certificate.chain, secret=certificate.key is None)
        if certificate.key is not None and c.clean((*path, "key")):
            c.file((*path, "key"), certificate.key, secret=True)


def _ciphers(c: Check) -> None:
    """OpenSSL knows the ciphers."""
    if not c.config.tls.ciphers or not c.clean(("tls", "ciphers")):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(c.config.tls.ciphers)
    except ssl.SSLError:
        rule = "OpenSSL knows none of these ciphers (see openssl-ciphers(1))"
        c.bad(("tls", "ciphers"), rule, value=c.config.tls.ciphers)


def _names(c: Check) -> None:
    """Name servers are addresses."""
    names = c.config.names
    if not c.clean(("names", "servers")):
        return
    for server in names.servers:
        try:
            parse_server(server)
        except ValueError as error:
            c.bad(("names", "servers"), str(error), value=server)
    if names.servers and not names.resolve:
        c.notes.append("names.servers is not used: names.resolve is false")


_FOR_EVERYBODY: Final = {
    "trusted": "this would exempt the whole world from every limit",
    "relay": "this would be an open relay: everybody's mail to everywhere",
    "proxy": "everybody could pass for anybody by a PROXY header",
    "xclient": "everybody could pass for anybody by XCLIENT",
}
"""Lists in which no network may be the whole world."""


def _networks(c: Check) -> None:
    """Networks are networks; nobody opens a relay, or the choice of a name, to the world."""
    networks = c.config.networks
    wire: dict[str, set[object]] = {}
    for key in ("trusted", "relay", "proxy", "xclient", "wire_reject", "wire_normalize"):
        path = ("networks", key)
        if not c.clean(path):
            continue
        parsed = [(text, c.network(path, text)) for text in getattr(networks, key)]
        for text, network in parsed:
            if network is not None and network.prefixlen == 0 and key in _FOR_EVERYBODY:
                c.bad(path, _FOR_EVERYBODY[key], value=text)
        if key.startswith("wire_"):
            wire[key] = {network for _, network in parsed if network is not None}
    for twice in wire.get("wire_reject", set()) & wire.get("wire_normalize", set()):
        rule = "this network stands in wire_reject too: which of both is meant?"
        c.bad(("networks", "wire_normalize"), rule, value=str(twice))


def _proxy(c: Check) -> None:
    """A listener behind a proxy knows the proxies."""
    behind = [name for name, listener in c.config.listener.items() if listener.proxy]
    if not c.clean(("networks", "proxy")):
        return
    if not c.config.networks.proxy:
        for name in behind:
            rule = "only networks.proxy may connect here, and it is empty: nobody could"
            c.bad(("listener", name, "proxy"), rule, value=True, hint="set proxy in [networks]")
    elif not behind:
        c.notes.append("networks.proxy is not used: no listener has proxy = true")


def _rates(c: Check) -> None:
    """A limit of a network below that of one client leaves the client's without effect."""
    limits = c.config.limits
    for key, network_key in (
        ("sessions_per_client", "sessions_per_network"),
        ("connections_per_minute", "connections_per_minute_network"),
        ("messages_per_minute", "messages_per_minute_network"),
        ("recipients_per_minute", "recipients_per_minute_network"),
    ):
        one, all_of_them = getattr(limits, key), getattr(limits, network_key)
        if one and all_of_them and all_of_them < one:
            c.notes.append(
                f"limits.{network_key} = {all_of_them} is below limits.{key} = {one}, "
                "which one client of that network can then never reach"
            )


CLIENT_CHECKS: Final[tuple[Callable[[Check], None], ...]] = (
    _listeners,
    _certificates,
    _tls,
    _ciphers,
    _names,
    _networks,
    _proxy,
    _rates,
)
