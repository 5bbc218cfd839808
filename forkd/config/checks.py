"""Which keys, each fine by itself, contradict each other or the protocol?

One function per question. A check builds only on keys that had no problem of their own, so an admin
sees causes, not consequences. What is legal but surprising becomes a note: printed at start, by
`config check` and in `status`, never an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

from forkd.config.admin_checks import roles
from forkd.config.auth_checks import AUTH_CHECKS, auth_with_plugins, wants_auth
from forkd.config.checking import Check
from forkd.config.client_checks import CLIENT_CHECKS
from forkd.config.domains import DOMAIN_NAME, EVERY_SUBDOMAIN, domain_slip, is_domain, server_name
from forkd.config.folding import folded
from forkd.config.lines import KeyPath
from forkd.config.maildir_checks import maildirs
from forkd.config.metrics_checks import metrics
from forkd.config.next_hop_checks import next_hops
from forkd.config.next_hop_schema import PATIENT_S
from forkd.config.pipe_checks import pipes
from forkd.config.plugin_checks import PLUGIN_CHECKS, budget_and_dns
from forkd.config.problems import Problems, Source, toml_key
from forkd.config.reader import one_of
from forkd.config.report_checks import reports
from forkd.config.route_checks import routes
from forkd.config.routes import EVERYTHING
from forkd.config.schema import Config, Discard, Lmtp, PluginConfig, QmailQueue, Smtp
from forkd.config.units import format_duration, format_size

USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
MAX_GREETING_LINE: Final = 250
"""Of 512, with the longest host name, code and line end."""


def check(config: Config, source: Source, problems: Problems, notes: list[str]) -> None:
    """Run every check of CHECKS; `config` has its defaults filled in. It looks at files that are named."""
    for one in CHECKS:
        one(Check(config, source, problems, notes))


def _server(c: Check) -> None:
    """Names that the system and the protocol accept."""
    server = c.config.server
    if c.clean(("server", "hostname")) and not DOMAIN_NAME.fullmatch(server.hostname):
        c.bad(("server", "hostname"), "this is a host name, as in mail.example.org", value=server.hostname)
    if c.clean(("server", "greeting")) and (slip := greeting_slip(server.greeting)):
        c.bad(("server", "greeting"), slip, value=server.greeting)
    for key in ("user", "queue_user", "admin_user", "broker_user", "launcher_user"):
        name = getattr(server, key)
        if c.clean(("server", key)) and not USER_NAME.fullmatch(name):
            c.bad(("server", key), "this is the name of a system user", value=name)


def _pool(c: Check) -> None:
    """No more workers run than there may be."""
    least, most = c.config.pool.min, c.config.server.workers
    if c.clean(("pool", "min"), ("server", "workers")) and 0 < most < least:
        rule = f"more than server.workers ({most}), of which it is the least"
        c.bad(("pool", "min"), rule, value=least, hint="leave it out: all of them then run always")


def _launcher_user(c: Check) -> None:
    """Queue programs run without our walls: their user has nothing else of ours, no mail and no process."""
    if not any(isinstance(table, QmailQueue) for table in c.config.transport.values()):
        return
    server, own = c.config.server, ("server", "launcher_user")
    for key in ("user", "queue_user", "admin_user", "broker_user"):
        name, other = getattr(server, key), ("server", key)
        if name != server.launcher_user or not c.clean(own, other):
            continue
        blamed, clash = (own, key) if c.given(own) else (other, "launcher_user")
        rule = (
            f"server.{clash} is this user too: a queue program runs without walls, "
            "and could reach what is that role's"
        )
        c.bad(blamed, rule, value=name, hint="name a user that nothing else runs as")
        return


def greeting_slip(text: str) -> str:
    """Why this cannot stand behind the host name in the greeting, or empty."""
    lines = text.split("\n")
    if any(not line.isascii() or not line.isprintable() for line in lines):
        return "this is printable ASCII (RFC 5321 4.2), a line end beginning a further line"
    if any(len(line) > MAX_GREETING_LINE for line in lines):
        return f"a line of it has {MAX_GREETING_LINE} characters at most (RFC 5321 4.5.3.1.5)"
    return ""


def _domains(c: Check) -> None:
    """Names, mailboxes and transports of our domains."""
    seen: dict[str, str] = {}
    for name, domain in c.config.domain.items():
        path = ("domain", name)
        literal = name.startswith("[") and name.endswith("]")
        same = name.lower()
        if not literal and not is_domain(name.removeprefix(EVERY_SUBDOMAIN)):
            meant = domain_slip(name)
            rule = 'this is a domain name in quotes, as in [domain."example.org"]'
            c.bad(path, rule, hint=f'write [domain."{meant}"]' if meant else "")
        else:
            same = same if literal else server_name(name)
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
    if networks and not transport and EVERYTHING not in c.config.route:
        rule = "these clients may relay, but queue.relay_transport does not say how their mail goes on"
        hint = f"set relay_transport in [queue] to {one_of(c.config.transport)}"
        c.bad(("networks", "relay"), rule, value=networks, hint=hint)
    if transport:
        c.transport_exists(("queue", "relay_transport"), transport)
        if (
            not networks
            and not c.config.aliases.files
            and not any(wants_auth(listener) for listener in c.config.listener.values())
        ):
            c.notes.append(
                "queue.relay_transport is used for reports alone: no client may relay "
                "(networks.relay is empty, and AUTH is off), and there are no aliases"
            )


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOADER: Final = ("LD_", "GLIBC_TUNABLES")


def _queue_programs(c: Check) -> None:
    """Programs are named by their path; what they find in the environment can be said there."""
    for name, table in c.config.transport.items():
        if not isinstance(table, QmailQueue):
            continue
        argv, environment = ("transport", name, "argv"), ("transport", name, "environment")
        if c.clean(argv):
            if not table.argv[0].startswith("/"):
                c.bad(argv, "the program is an absolute path, its arguments follow", value=table.argv[0])
            elif not os.access(table.argv[0], os.X_OK):
                c.notes.append(
                    f"transport.{toml_key(name)}: {table.argv[0]} is no program that can be executed: "
                    "its mail waits, or is refused for now"
                )
            if any("\0" in word for word in table.argv):
                c.bad(argv, "a word of a command line has no NUL", value=table.argv)
        if not c.clean(environment):
            continue
        for key, value in table.environment.items():
            if not _NAME.fullmatch(key) or "\0" in value:
                c.bad(environment, "this is no variable that a program could be given", value=key)
            elif key.startswith(_LOADER):
                c.notes.append(f"transport.{toml_key(name)}: setuid programs do not see the variable {key}")


PROXIED: Final = (QmailQueue, Smtp, Lmtp, Discard)
"""Transports that have one answer for all recipients of a transaction (worker/next_hop.py sees to it that
there is one), and so may answer while a client waits."""


def _proxied(c: Check) -> None:
    """accept = "proxy": every way that mail may take from there can be waited for."""
    listeners = [name for name, listener in c.config.listener.items() if listener.accept == "proxy"]
    if not listeners:
        return
    ways: list[tuple[KeyPath, str]] = [
        (("domain", name, "transport"), domain.transport) for name, domain in c.config.domain.items()
    ]
    ways += [(("route", name, "transport"), route.transport) for name, route in c.config.route.items()]
    if c.config.queue.relay_transport:
        ways.append((("queue", "relay_transport"), c.config.queue.relay_transport))
    for path, way in ways:
        table = c.config.transport.get(way)
        if table is not None and c.clean(path) and not isinstance(table, PROXIED):
            rule = (
                f'[listener.{toml_key(listeners[0])}] has accept = "proxy", so its clients wait for this '
                "transport's answer, and this one gives none to them"
            )
            c.bad(path, rule, value=way, hint='choose one of kind "smtp", "lmtp" or "qmail-queue"')
    for way in dict.fromkeys(way for _, way in ways):
        table = c.config.transport.get(way)
        if isinstance(table, QmailQueue) and table.timeout > PATIENT_S:
            c.notes.append(
                f"transport.{toml_key(way)}.timeout = {format_duration(table.timeout)}: with accept = "
                f'"proxy" clients wait for it, and give up after 10 minutes (RFC 5321 4.5.3.2.6): mail '
                "would then come twice"
            )


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
    _pool,
    _launcher_user,
    *CLIENT_CHECKS,
    *AUTH_CHECKS,
    _domains,
    _relay,
    routes,
    maildirs,
    _queue_programs,
    pipes,
    next_hops,
    _proxied,
    _limits,
    _timeouts,
    reports,
    roles,
    metrics,
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
