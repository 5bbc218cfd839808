"""Which keys, each fine by itself, contradict each other or the protocol?

One function per question. A check builds only on keys that had no problem of their own, so an admin
sees causes, not consequences. What is legal but surprising becomes a note: printed at start, by
`config check` and in `status`, never an error.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import string
from collections.abc import Callable
from typing import Final

from forkd.config.lines import KeyPath
from forkd.config.problems import Problems, Source, toml_key
from forkd.config.reader import nearest, one_of
from forkd.config.schema import LAYERS, Config, Maildir
from forkd.config.units import format_duration, format_size

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
"""RFC 5321 4.1.2 Domain, lengths of RFC 1035 2.3.4. Names in other scripts are written in A-labels (xn--)."""
USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """What a check works with. `notes` collects what is legal but worth saying."""

    config: Config
    source: Source
    problems: Problems
    notes: list[str]

    def bad(self, path: KeyPath, rule: str, *, value: object, hint: str = "") -> None:
        self.problems.add(self.source, path, rule, value=value, hint=hint)

    def clean(self, *paths: KeyPath) -> bool:
        return self.problems.clean(self.source, *paths)


def check(config: Config, source: Source, problems: Problems, notes: list[str]) -> None:
    """Run every check of CHECKS; `config` has its defaults filled in."""
    for one in CHECKS:
        one(Check(config, source, problems, notes))


def _server(c: Check) -> None:
    """Names that the system and the protocol accept."""
    server = c.config.server
    if c.clean(("server", "hostname")) and not DOMAIN_NAME.fullmatch(server.hostname):
        c.bad(("server", "hostname"), "this is a host name, as in mail.example.org", value=server.hostname)
    for key in ("user", "queue_user", "admin_user"):
        name = getattr(server, key)
        if c.clean(("server", key)) and not USER_NAME.fullmatch(name):
            c.bad(("server", key), "this is the name of a system user", value=name)
    if server.stop_timeout > 90:
        c.notes.append(
            f"server.stop_timeout = {format_duration(server.stop_timeout)} is longer than systemd waits "
            "(TimeoutStopSec, 90s by default)"
        )


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
            c.bad(path, str(error), value=listener.address, hint=_address_hint(listener.address))
            continue
        for (other_host, other_port), other in taken.items():
            if port == other_port != 0 and _overlap(host, other_host):
                c.bad(path, f"[listener.{toml_key(other)}] has this address", value=listener.address)
        taken[host, port] = name


def _domains(c: Check) -> None:
    """Names, mailboxes and transports of our domains."""
    seen: dict[str, str] = {}
    for name, domain in c.config.domain.items():
        path = ("domain", name)
        literal = name.startswith("[") and name.endswith("]")
        if not literal and not DOMAIN_NAME.fullmatch(name):
            rule = 'this is a domain name in quotes, as in [domain."example.org"]'
            hint = _domain_hint(name)
            c.problems.add(c.source, path, rule, hint=hint)
        elif name.lower() in seen:
            c.problems.add(
                c.source, path, f"this domain stands as [domain.{toml_key(seen[name.lower()])}] too"
            )
        seen[name.lower()] = name
        if c.clean((*path, "transport")):
            _transport_exists(c, (*path, "transport"), domain.transport)
        if c.clean((*path, "detail")) and len(domain.detail) > 1:
            c.bad((*path, "detail"), "this is one character, or empty for none", value=domain.detail)
        if c.clean((*path, "mailboxes")) and not isinstance(domain.mailboxes, str):
            _mailboxes(c, (*path, "mailboxes"), domain.mailboxes)
    if not c.config.domain and c.clean(("domain",), ("networks", "relay")) and not c.config.networks.relay:
        rule = "no mail could ever be accepted: there is no domain of ours and no network that may relay"
        c.problems.add(c.source, (), rule, hint='write [domain."example.org"]')


def _mailboxes(c: Check, path: KeyPath, mailboxes: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for mailbox in mailboxes:
        if not mailbox or "@" in mailbox:
            rule = "a mailbox is the part before the @"
            c.bad(path, rule, value=mailbox, hint=f'write "{mailbox.split("@")[0]}"' if mailbox else "")
        elif mailbox == "*":
            c.bad(path, "every mailbox is written without brackets", value=mailboxes, hint='write "*"')
        elif mailbox.lower() in seen:
            c.bad(path, "mailboxes are compared without case: this one stands twice", value=mailbox)
        seen.add(mailbox.lower())


def _networks(c: Check) -> None:
    """Networks are networks; nobody opens a relay to the world."""
    for key in ("trusted", "relay"):
        path = ("networks", key)
        if not c.clean(path):
            continue
        for text in getattr(c.config.networks, key):
            try:
                network = ipaddress.ip_network(text, strict=True)
            except ValueError:
                rule = "this is a network, as in 192.0.2.0/24 or 2001:db8::/32, or an address"
                c.bad(path, rule, value=text, hint=_network_hint(text))
                continue
            if network.prefixlen == 0:
                rule = (
                    "this would be an open relay: everybody's mail to everywhere"
                    if key == "relay"
                    else "this would exempt the whole world from every limit"
                )
                c.bad(path, rule, value=text)
            elif isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
                rule = "clients over IPv4 are seen with their IPv4 address"
                hint = f"write {network.network_address.ipv4_mapped}"
                c.bad(path, rule, value=text, hint=hint)


def _relay(c: Check) -> None:
    """Relaying needs both who may and how."""
    networks, transport = c.config.networks.relay, c.config.queue.relay_transport
    if not c.clean(("networks", "relay"), ("queue", "relay_transport")):
        return
    if networks and not transport:
        rule = "these clients may relay, but queue.relay_transport does not say how their mail goes on"
        hint = f"set relay_transport in [queue] to {one_of(c.config.transport)}"
        c.bad(("networks", "relay"), rule, value=networks, hint=hint)
    if transport:
        _transport_exists(c, ("queue", "relay_transport"), transport)
        if not networks:
            c.notes.append("queue.relay_transport is not used: no client may relay (networks.relay is empty)")


def _transports(c: Check) -> None:
    """Paths of Maildirs have only the fields we fill in."""
    for name, transport in c.config.transport.items():
        path = ("transport", name, "path")
        if not isinstance(transport, Maildir) or not c.clean(path):
            continue
        try:
            parsed = list(string.Formatter().parse(transport.path))
        except ValueError:
            c.bad(path, "the braces do not match", value=transport.path)
            continue
        for field in sorted({field for _, field, _, _ in parsed if field is not None} - {"domain", "user"}):
            hint = nearest(field, ("domain", "user"), listing=False)
            c.bad(path, "only {domain} and {user} can stand in a path", value=transport.path, hint=hint)
        if not transport.path:
            c.bad(path, "this must not be empty", value=transport.path)


def _limits(c: Check) -> None:
    """Limits below what the standard asks for are said, not refused."""
    limits = c.config.limits
    for key, least, shown, section in (
        ("recipients", 100, "100", "4.5.3.1.8"),
        ("message_size", 65_536, "64KiB", "4.5.3.1.7"),
        ("max_hops", 100, "100", "6.3"),
    ):
        if getattr(limits, key) < least:
            c.notes.append(
                f"limits.{key} is below {shown}, what every client may expect (RFC 5321 {section})"
            )


def _timeouts(c: Check) -> None:
    """A timeout that another one always comes before does nothing, and is then a mistake."""
    timeouts, queue = c.config.timeouts, c.config.queue
    orders: tuple[tuple[KeyPath, float, KeyPath, float, str], ...] = (
        (
            ("timeouts", "command"), timeouts.command,
            ("timeouts", "idle_session"), timeouts.idle_session,
            "a session would be over before a command could be late",
        ),
        (
            ("timeouts", "data_block"), timeouts.data_block,
            ("timeouts", "data_total"), timeouts.data_total,
            "the whole of DATA would be over before a piece of it could be late",
        ),
        (
            ("queue", "retry_first"), queue.retry_first,
            ("queue", "retry_max"), queue.retry_max,
            "the first wait cannot be longer than the longest",
        ),
        (
            ("queue", "retry_max"), queue.retry_max,
            ("queue", "give_up"), queue.give_up,
            "mail would be given up before such a wait is over",
        ),
    )  # fmt: skip
    for low_path, low, high_path, high, why in orders:
        if low <= high or not c.clean(low_path, high_path):
            continue
        if high_path[-1] == "give_up" and high == 0:
            continue  # never tried again, so no wait matters
        # Blame the key the admin wrote; when he wrote both, the smaller one's table says it as well.
        path, value = (low_path, low) if low_path in c.source.lines else (high_path, high)
        rule = (
            f"{low_path[-1]} ({format_duration(low)}) is longer than "
            f"{high_path[-1]} ({format_duration(high)}): {why}"
        )
        c.bad(path, rule, value=format_duration(value))


def _sandbox(c: Check) -> None:
    """Required layers are layers that exist."""
    path = ("sandbox", "require")
    if not c.clean(path):
        return
    for layer in c.config.sandbox.require:
        if layer not in LAYERS:
            c.bad(path, "no such layer", value=layer, hint=nearest(layer, LAYERS))
    walls = Config().sandbox.require
    missing = ", ".join(layer for layer in walls if layer not in c.config.sandbox.require)
    if missing:
        c.notes.append(f"sandbox.require leaves out {missing}: plugins may run without these walls")


def _durability(c: Check) -> None:
    if c.config.queue.durability == "none":
        c.notes.append('queue.durability = "none": a power cut or crash of the machine loses accepted mail')
    if c.config.queue.min_free < c.config.limits.message_size and c.config.queue.min_free:
        c.notes.append(
            f"queue.min_free = {format_size(c.config.queue.min_free)} is less than one message of "
            f"limits.message_size = {format_size(c.config.limits.message_size)}"
        )


CHECKS: tuple[Callable[[Check], None], ...] = (
    _server,
    _listeners,
    _domains,
    _networks,
    _relay,
    _transports,
    _limits,
    _timeouts,
    _sandbox,
    _durability,
)


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:25` or `[::1]:25` as host and port; port 0 lets the kernel choose (for tests).

    Raises ValueError, its text being the rule. Host names are refused: which of its addresses is meant,
    and whether it can be looked up at boot, is nothing to find out by trying.
    """
    rule = "this is HOST:PORT with an IP address, as in 127.0.0.1:25, 0.0.0.0:25 or [::]:25"
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(rule)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(rule) from None
    if bracketed != (address.version == 6):
        raise ValueError(rule)
    return str(address), int(port)


def _address_hint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if host in ("*", "") and colon:
        return f'write "0.0.0.0:{port}" or "[::]:{port}"'
    if host == "localhost":
        return f'write "127.0.0.1:{port}" or "[::1]:{port}"'
    if host.count(":") > 1 and not host.startswith("["):
        return f'write "[{host}]:{port}"'
    if not colon and "." in text:
        return f'write "{text}:25"'
    return f'write "127.0.0.1:{text}"' if text.isdecimal() else ""


def _overlap(one: str, other: str) -> bool:
    """One address, or one of them is every address of the same family."""
    if one == other:
        return True
    same_family = (":" in one) == (":" in other)
    return same_family and any(ipaddress.ip_address(host).is_unspecified for host in (one, other))


def _transport_exists(c: Check, path: KeyPath, name: str) -> None:
    if name not in c.config.transport and c.clean(("transport", name)):
        c.bad(
            path,
            f"there is no [transport.{toml_key(name)}]",
            value=name,
            hint=nearest(name, c.config.transport),
        )


def _network_hint(text: str) -> str:
    try:
        return f'write "{ipaddress.ip_network(text, strict=False)}"'
    except ValueError:
        return ""


def _domain_hint(name: str) -> str:
    candidate = name.strip().rstrip(".").removeprefix("@").removeprefix("*.")
    if candidate != name and DOMAIN_NAME.fullmatch(candidate):
        return f'write [domain."{candidate}"]'
    try:
        encoded = name.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    return f'write [domain."{encoded}"]' if DOMAIN_NAME.fullmatch(encoded) else ""
