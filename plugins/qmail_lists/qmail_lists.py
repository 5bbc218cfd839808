"""qmail_lists - refuse senders and recipients by the lists of qmail-smtpd, as they are

SYNOPSIS
    plugins.d/05-qmail_lists.toml:

        plugin = "qmail_lists"

        [settings]
        sender_lists = ["/etc/indimail/control/badmailfrom"]
        recipient_lists = ["/etc/indimail/control/badrcptto.cdb"]
        exempt_lists = ["/etc/indimail/control/goodrcptto"]

        [grants]
        files = ["/etc/indimail/control/badmailfrom", "/etc/indimail/control/badrcptto.cdb",
                 "/etc/indimail/control/goodrcptto"]

    With `qmail_control` in forkd.toml it is switched on without such a file, for the lists that are there.

DESCRIPTION
    Senders in badmailfrom get 553 5.7.1 at MAIL FROM. Recipients in badrcptto get 553 5.7.1 at RCPT TO,
    unless goodrcptto has them. Addresses are compared without case, local parts too, and without quotes.

LINES
        user@example.com      this address
        @example.com          every address at this domain; sub-domains not
        *@*.example.com       a wildcard over the whole address: * any text, ? one character, [a-z] and
                              [^a-z] one of these, \\ takes the next one as it is
        !LINE                 not what LINE matches: of the wildcards that match, and lines with !, the
                              last one counts. An address or @domain that stands in the list by itself
                              is refused whatever comes behind it

    With `regex` every line is a regular expression (POSIX extended, anywhere in the address): one that
    matches refuses; with ! in front, one that does not. A line that begins with @ still means "at".

    Lines of a .cdb are addresses and @domains, never patterns.

FILES
    As qmail reads them: one line each, white space at its end is not part of it, lines that are empty or
    begin with # are skipped. UTF-8; CRLF is read too. They are read once, when forkd starts the plugin:
    qmail-smtpd reads them for each connection. A line that means nothing stops the start with its file
    and number.

SETTINGS
    senders, recipients, exempt                   lines, lists of strings             default: none
    sender_lists, recipient_lists, exempt_lists   paths of list files; they must be   default: none
                                                  granted too
    regex                                         lines are regular expressions       default: false
    sender_text, recipient_text                   what the client is told             see plugin.toml

DIFFERENCES
    qmail-smtpd looks for @domain in a text file and not in its .cdb, although its manual says so, and
    forgets the wildcards of badmailfrom where there is a badmailpatterns: here every line counts.

FAILURE
    Without the plugin, mail that you wanted refused would come in. The default on_failure,
    "disconnect", turns the client away for now; "skip" lets it in. A regular expression that runs for
    ever on a hostile address is ended by the plugin's `cpu` limit, and costs that one session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from forkd.sdk import Plugin, Recipient, Sender, Session, Verdict, deny
from forkd.sdk.cdb import CdbError, keys
from forkd.sdk.listfile import EntryError, checked, given, take_all
from forkd.sdk.qmail_list import List


def lines_of(path: str) -> Iterator[tuple[str, str]]:
    """Place and text of each line of a control file. Raises OSError, EntryError."""
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib would cost every sandbox its pages
        octets = file.read()
    for number, row in enumerate(octets.split(b"\n"), start=1):
        place = f"{path}:{number}"
        try:
            line = row.decode("utf-8-sig" if number == 1 else "utf-8").rstrip(" \t\r")
        except UnicodeDecodeError:
            raise EntryError(f"{place}: not UTF-8") from None
        if line and not line.startswith("#"):
            yield place, line


def keys_of(path: str) -> Iterator[tuple[str, str]]:
    """The same of a cdb. Raises OSError, EntryError."""
    with open(path, "rb") as file:  # noqa: PTH123
        octets = file.read()
    try:
        for number, key in enumerate(keys(octets), start=1):
            place = f"{path}: key {number}"
            try:
                yield place, key.decode("utf-8")
            except UnicodeDecodeError:
                raise EntryError(f"{place}: not UTF-8") from None
    except CdbError as why:
        raise EntryError(f"{path}: {why}") from None


def load(setting: str, lines: Iterable[str], files: Iterable[str], *, regex: bool, what: str) -> List:
    """One list of a setting and its files. Raises EntryError with every bad line, OSError."""
    found = List(regex=regex)
    rows = list(given(setting, lines))
    for path in files:
        if path.endswith(".cdb"):
            take_all(keys_of(path), found.add_key, what=what)
        else:
            rows += lines_of(path)
    take_all(rows, found.add, what=what)
    return found


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Read the lists; refuse to start on a bad line or an unreadable file."""
    regex = settings["regex"]
    senders = load(
        "senders", settings["senders"], settings["sender_lists"], regex=regex, what="these are no senders"
    )
    recipients, exempt = (
        load(name, settings[name], settings[files], regex=regex, what="these are no recipients")
        for name, files in (("recipients", "recipient_lists"), ("exempt", "exempt_lists"))
    )
    sender_refused = checked("sender_text", deny, "5.7.1", settings["sender_text"], 553)
    recipient_refused = checked("recipient_text", deny, "5.7.1", settings["recipient_text"], 553)

    def mail(session: Session, sender: Sender) -> Verdict | None:  # noqa: ARG001 - the hook's form
        return sender_refused if senders.has(sender) else None

    def rcpt(session: Session, recipient: Recipient) -> Verdict | None:  # noqa: ARG001 - the hook's form
        if recipients.has(recipient) and not exempt.has(recipient):
            return recipient_refused
        return None

    return Plugin(mail=mail, rcpt=rcpt)
