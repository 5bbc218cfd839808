"""What do qmail's control files say, in forkd's words? DIR in, settings out.

    me, smtpgreeting          server.hostname, server.greeting
    rcpthosts, morercpthosts  [domain]; `.example.org` there is [domain."*.example.org"] here
    locals, virtualdomains    which of these are delivered here
    relayclients              networks.relay
    databytes, maxrecipients  limits.message_size, limits.recipients
    maxhops, tarpit*          limits.max_hops, limits.tarpit_count, limits.tarpit_delay
    timeoutsmtpd              timeouts.command, timeouts.data_block
    badmailfrom, badrcptto,   the plugin qmail_lists
    goodrcptto, *patterns

Each function reads the files of one row. What a file means was read off qmail-smtpd(8), qmail-control(5),
indimail-control(5) and IndiMail's qmail-smtpd; where forkd cannot do the same, a note says what it does.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from forkd.config.checks import greeting_slip
from forkd.config.domains import DOMAIN_NAME, EVERY_SUBDOMAIN, domain_slip, is_domain
from forkd.config.problems import Problems, Source, display_path, shorten
from forkd.config.qmail_files import CDB, Control, Row
from forkd.config.qmail_lists import read_lists
from forkd.config.schema import Timeouts
from forkd.config.units import Bytes, Seconds
from forkd.smtp.address import a_labels

MOST_BYTES: Final = 1 << 40
MOST_DELAY_S: Final = 240


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """A value of a table of forkd.toml, of the schema's type, and the control file that says so."""

    value: Any
    file: str


@dataclasses.dataclass(slots=True)
class Said:
    """All that a control folder says.

    control    the folder, and where problems of its files go
    settings   by table and key
    domains    name as below [domain.] -> control file
    elsewhere  those of them that qmail would pass on to another host
    relay      whose mail to anywhere is taken: network -> line of relayclients
    lists      setting of qmail_lists -> files with something in them, and what
    regex      their lines are regular expressions
    notes      what is different, or surprising
    """

    control: Control
    settings: dict[tuple[str, str], Setting] = dataclasses.field(default_factory=dict)
    domains: dict[str, str] = dataclasses.field(default_factory=dict)
    elsewhere: set[str] = dataclasses.field(default_factory=set)
    relay: dict[str, Row] = dataclasses.field(default_factory=dict)
    lists: dict[str, dict[str, list[Row]]] = dataclasses.field(default_factory=dict)
    regex: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    others: tuple[str, ...] = ()
    """Names of what else lies there."""

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.control.folder

    def set(self, table: str, key: str, value: Any, row: Row) -> None:
        """This file says so."""
        self.settings[table, key] = Setting(value, row.file)


def read_control(folder: Path, problems: Problems) -> Said:
    """Read the folder. What is wrong in it is noted in `problems`; the rest is read all the same."""
    control = Control(folder, problems)
    said = Said(control)
    if not control.has("me") and not control.has("rcpthosts"):
        inner = folder / "control"
        hint = f"did you mean {display_path(inner)}?" if inner.is_dir() else ""
        rule = "this is no folder of control files: neither me nor rcpthosts is there"
        problems.add(Source(folder), (), rule, hint=hint)
        return said
    for read in _READERS:
        read(control, said)
    said.others = tuple(control.others())
    return said


# --- who we are ---------------------------------------------------------------------------------------------


def _names(control: Control, said: Said) -> None:
    me = control.first("me")
    if me is not None and not DOMAIN_NAME.fullmatch(me.text):
        control.bad(me, "this is a host name, as in mail.example.org", hint=_write(domain_slip(me.text)))
        me = None
    elif me is None:
        said.notes.append(f"there is no {control.shown('me')}: forkd takes the machine's own name")
    if me is not None:
        said.set("server", "hostname", me.text, me)
    greeting = control.lines("smtpgreeting")
    if not greeting:
        return
    host, _, rest = greeting[0].text.partition(" ")
    # One word may be a host name too ("localhost"), or the "Welcome" of somebody who left the name out.
    if DOMAIN_NAME.fullmatch(host) and ("." in host or (me is not None and host.lower() == me.text.lower())):
        if me is not None and host.lower() != me.text.lower():
            said.notes.append(
                f"smtpgreeting begins with {host}, me is {me.text}: forkd has one name for the greeting, the "
                f"reply to EHLO and Received fields, and that is {host}"
            )
        said.set("server", "hostname", host, greeting[0])
    else:
        said.notes.append(
            f"{control.shown('smtpgreeting')} does not begin with a host name (RFC 5321 4.2): forkd puts its "
            "own in front"
        )
        rest = greeting[0].text
    if "ESMTP" not in rest.split():
        rest = f"{rest.strip()} ESMTP".strip()
    text = "\n".join([rest.strip(), *(row.text for row in greeting[1:])])
    if slip := greeting_slip(text):
        control.bad(greeting[0], slip)
    else:
        said.set("server", "greeting", text, greeting[0])


# --- whose mail is taken ------------------------------------------------------------------------------------


def _domains(control: Control, said: Said) -> None:
    hosts = control.lines("rcpthosts")
    more = control.keys(f"morercpthosts{CDB}")
    text = control.lines("morercpthosts")
    if text and more is None and not control.has(f"morercpthosts{CDB}"):
        said.notes.append(
            f"{control.shown('morercpthosts')} is not compiled: qmail-smtpd reads morercpthosts.cdb only and "
            "refuses these domains; forkd reads the text"
        )
    rows = [*(hosts or ()), *(more if more is not None else text or ())]
    local = _local_names(control)
    if hosts is None:
        # Without rcpthosts qmail-smtpd relays for everybody. That is nothing to imitate.
        rows = [row for row in local if row.file != "virtualdomains"]
        left = [row.text or "all others" for row in local if row.file == "virtualdomains"]
        said.notes.append(
            f"there is no {control.shown('rcpthosts')}: qmail-smtpd would take mail for every domain from "
            f"everybody; forkd takes it for what {rows[0].file if rows else 'locals'} names"
            + (f", and not for {_list(left)} of virtualdomains" if left else "")
        )
    for row in rows:
        if (name := _domain(control, row)) and name not in said.domains:
            said.domains[name] = row.file
    here = {row.text.lower() for row in local}
    if "" not in here:
        said.elsewhere = {name for name in said.domains if not _delivered(name, here)}
    if missing := [row.text for row in control.lines("locals") or () if not _taken(row.text, said.domains)]:
        said.notes.append(
            f"{_some(missing)} in locals and not in rcpthosts: no such mail comes in by SMTP, as with qmail"
        )


def _local_names(control: Control) -> list[Row]:
    """What qmail delivers itself: `example.org`, `.example.org` for sub-domains, and "" for everything."""
    rows = control.lines("locals")
    me = control.first("me")
    if rows is None:
        rows = [me] if me is not None else []
    for row in control.lines("virtualdomains") or ():
        name, colon, prepend = row.text.partition(":")
        if colon and prepend:  # without it, this is an exception from another line
            rows.append(dataclasses.replace(row, text=name))
    return rows


def _domain(control: Control, row: Row) -> str:
    """As it stands below [domain.]; empty when it is none, which is noted."""
    text = row.text
    bare = text.removeprefix(".")
    if text.startswith("[") and text.endswith("]") and text.isascii():
        return text.lower()
    if not is_domain(bare):
        rule = "this is a domain, as in example.org, or .example.org for all of its sub-domains"
        slip = domain_slip(text)
        control.bad(row, rule, hint=_write(f".{slip}" if slip and text.startswith("*.") else slip))
        return ""
    return (EVERY_SUBDOMAIN if bare != text else "") + a_labels(bare)


def _delivered(name: str, here: set[str]) -> bool:
    """`name`, as below [domain.], is one of these or below one of them."""
    return name in here or any(name[at:] in here for at, letter in enumerate(name) if letter == ".")


def _taken(text: str, domains: dict[str, str]) -> bool:
    name = text.lower()
    return name in domains or any(
        f"*{name[at:]}" in domains for at, letter in enumerate(name) if letter == "."
    )


def _relay(control: Control, said: Said) -> None:
    for row in control.lines("relayclients") or ():
        network, appended = _network(row.text)
        if not network:
            rule = (
                "this is an IP address, or its first numbers and a dot for a network, with a colon behind it"
            )
            control.bad(row, rule, hint=_write(_network_slip(row.text)))
        elif appended:
            rule = f"forkd appends nothing to recipients, and {appended!r} stands behind the colon"
            control.bad(row, rule, hint=_write(row.text.removesuffix(appended)))
        else:
            said.relay.setdefault(network, row)


def _network(text: str) -> tuple[str, str]:
    """`192.0.2.1:`, `192.0.2.:`, `2001:db8::1:` as a network, and what is to be appended to recipients."""
    for address in (text, text.removesuffix(":")):
        try:
            return str(ipaddress.ip_address(address)), ""
        except ValueError:
            continue
    head, _, appended = text.partition(":")
    numbers = head.removesuffix(".").split(".")
    whole = len(numbers) == 4
    if head.endswith(".") == whole or not all(number.isascii() and number.isdecimal() for number in numbers):
        return "", ""
    try:
        network = ipaddress.ip_network((".".join(numbers + ["0"] * (4 - len(numbers))), 8 * len(numbers)))
    except ValueError:
        return "", ""
    return str(network.network_address) if whole else str(network), appended


def _network_slip(text: str) -> str:
    try:
        network = ipaddress.ip_network(text.strip().removesuffix(":"), strict=False)
    except ValueError:
        return ""
    if network.version == 6 or network.prefixlen % 8:
        return ""
    numbers = str(network.network_address).split(".")[: network.prefixlen // 8]
    return ".".join(numbers) + ".:" if numbers and len(numbers) < 4 else ""


# --- limits -------------------------------------------------------------------------------------------------


def _limits(control: Control, said: Said) -> None:
    if found := _count(control, "databytes", MOST_BYTES):
        size, row = found
        if not size:
            said.notes.append("databytes is 0, no limit: forkd's largest, 1TiB")
        said.set("limits", "message_size", Bytes(size or MOST_BYTES), row)
    else:
        said.notes.append("no databytes: qmail-smtpd knows no limit then; forkd's is limits.message_size")
    if (found := _count(control, "maxrecipients", 1_000_000_000)) and found[0]:
        said.set("limits", "recipients", *found)
    if (found := _count(control, "maxhops", 1_000_000_000)) and found[0]:
        said.set("limits", "max_hops", *found)
    delay = _count(control, "tarpitdelay", 1_000_000_000)
    if (found := _count(control, "tarpitcount", 1_000_000_000)) and found[0]:
        said.set("limits", "tarpit_count", *found)
        if delay:
            if delay[0] > MOST_DELAY_S:
                said.notes.append(
                    f"tarpitdelay is {delay[0]}: clients wait 5 minutes, so {MOST_DELAY_S}s here"
                )
            said.set("limits", "tarpit_delay", Seconds(min(delay[0], MOST_DELAY_S)), delay[1])


def _count(control: Control, name: str, most: int) -> tuple[int, Row] | None:
    """A number that is not too large; what is negative is 0, as qmail has it."""
    found = control.number(name)
    if found and found[0] > most:
        control.bad(found[1], f"this is {most} at most")
        return None
    return found and (max(0, found[0]), found[1])


def _timeouts(control: Control, said: Said) -> None:
    """qmail-smtpd waits so long for each read; forkd also limits the whole, which must not be less."""
    found = control.number("timeoutsmtpd")
    if found is None:
        return
    number, row = found
    if not 1 <= number <= 30 * 86_400:
        control.bad(row, "this is a number of seconds, 1 to 2592000")
        return
    wait = Seconds(number)
    default = Timeouts()
    for key, least in (
        ("command", wait),
        ("data_block", wait),
        ("data_total", default.data_total),
        ("idle_session", default.idle_session),
    ):
        if wait > least or least is wait:
            said.set("timeouts", key, wait, row)


_READERS: Final[tuple[Callable[[Control, Said], None], ...]] = (
    _names,
    _domains,
    _relay,
    _limits,
    _timeouts,
    read_lists,
)


def _write(text: str) -> str:
    return f"write {text}" if text else ""


def _list(names: list[str]) -> str:
    return shorten(", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""))


def _some(names: list[str]) -> str:
    return f"{_list(names)} {'is' if len(names) == 1 else 'are'}"
