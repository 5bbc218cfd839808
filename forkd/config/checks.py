"""Which keys, each fine by itself, contradict each other or the protocol?

One function per question. A check builds only on keys that had no problem of their own, so an admin
sees causes, not consequences. What is legal but surprising becomes a note: printed at start, by
`config check` and in `status`, never an error.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Final

from forkd.config.auth_checks import AUTH_CHECKS, auth_with_plugins, wants_auth
from forkd.config.checking import Check
from forkd.config.client_checks import CLIENT_CHECKS
from forkd.config.domains import DOMAIN_NAME, domain_slip, is_domain
from forkd.config.lines import KeyPath
from forkd.config.plugin_checks import PLUGIN_CHECKS, budget_and_dns
from forkd.config.problems import Problems, Source, toml_key
from forkd.config.reader import nearest, one_of
from forkd.config.recipients import folded
from forkd.config.schema import Config, Maildir, PluginConfig
from forkd.config.units import format_duration, format_size
from forkd.smtp.address import a_labels

USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def check(config: Config, source: Source, problems: Problems, notes: list[str]) -> None:
    """Run every check of CHECKS; `config` has its defaults filled in. It looks at files that are named."""
    for one in CHECKS:
        one(Check(config, source, problems, notes))


def _server(c: Check) -> None:
    """Names that the system and the protocol accept."""
    server = c.config.server
    if c.clean(("server", "hostname")) and not DOMAIN_NAME.fullmatch(server.hostname):
        c.bad(("server", "hostname"), "this is a host name, as in mail.example.org", value=server.hostname)
    for key in ("user", "queue_user", "admin_user", "broker_user"):
        name = getattr(server, key)
        if c.clean(("server", key)) and not USER_NAME.fullmatch(name):
            c.bad(("server", key), "this is the name of a system user", value=name)
    if server.stop_timeout > 90:
        c.notes.append(
            f"server.stop_timeout = {format_duration(server.stop_timeout)} is longer than systemd waits "
            "(TimeoutStopSec, 90s by default)"
        )


def _domains(c: Check) -> None:
    """Names, mailboxes and transports of our domains."""
    seen: dict[str, str] = {}
    for name, domain in c.config.domain.items():
        path = ("domain", name)
        literal = name.startswith("[") and name.endswith("]")
        same = name.lower()
        if not literal and not is_domain(name):
            meant = domain_slip(name)
            rule = 'this is a domain name in quotes, as in [domain."example.org"]'
            c.bad(path, rule, hint=f'write [domain."{meant}"]' if meant else "")
        else:
            same = same if literal else a_labels(name)
            if same in seen:
                c.bad(path, f"this domain stands as [domain.{toml_key(seen[same])}] too")
        seen[same] = name
        if c.clean((*path, "transport")):
            c.transport_exists((*path, "transport"), domain.transport)
        if c.clean((*path, "detail")) and len(domain.detail) > 1:
            c.bad((*path, "detail"), "this is one character, or empty for none", value=domain.detail)
        if c.clean((*path, "mailboxes")) and not isinstance(domain.mailboxes, str):
            _mailboxes(c, (*path, "mailboxes"), domain.mailboxes)
    if not c.config.domain and c.clean(("domain",), ("networks", "relay")) and not c.config.networks.relay:
        rule = "no mail could ever be accepted: there is no domain of ours and no network that may relay"
        c.bad((), rule, hint='write [domain."example.org"]')


def _mailboxes(c: Check, path: KeyPath, mailboxes: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for mailbox in mailboxes:
        if not mailbox or "@" in mailbox:
            rule = "a mailbox is the part before the @"
            c.bad(path, rule, value=mailbox, hint=f'write "{mailbox.split("@")[0]}"' if mailbox else "")
        elif mailbox == "*":
            c.bad(path, "every mailbox is written without brackets", value=mailboxes, hint='write "*"')
        elif folded(mailbox) in seen:
            c.bad(path, "mailboxes are compared without case: this one stands twice", value=mailbox)
        seen.add(folded(mailbox))


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
        c.transport_exists(("queue", "relay_transport"), transport)
        if not networks and not any(wants_auth(listener) for listener in c.config.listener.values()):
            c.notes.append(
                "queue.relay_transport is not used: no client may relay "
                "(networks.relay is empty, and AUTH is off)"
            )


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


def _durability(c: Check) -> None:
    if c.config.queue.durability == "none":
        c.notes.append('queue.durability = "none": a power cut or crash of the machine loses accepted mail')
    if c.config.queue.min_free < c.config.limits.message_size and c.config.queue.min_free:
        c.notes.append(
            f"queue.min_free = {format_size(c.config.queue.min_free)} is less than one message of "
            f"limits.message_size = {format_size(c.config.limits.message_size)}"
        )


CHECKS: Final[tuple[Callable[[Check], None], ...]] = (
    _server,
    *CLIENT_CHECKS,
    *AUTH_CHECKS,
    _domains,
    _relay,
    _transports,
    _limits,
    _timeouts,
    *PLUGIN_CHECKS,
    _durability,
)


def check_with_plugins(
    config: Config, source: Source, problems: Problems, notes: list[str], plugins: tuple[PluginConfig, ...]
) -> None:
    """What depends both on forkd.toml and on the plugins that are on."""
    c = Check(config, source, problems, notes)
    auth_with_plugins(c, plugins)
    budget_and_dns(c, plugins)
