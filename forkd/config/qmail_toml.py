"""How does a forkd.toml read that says what qmail's control files say? Said in, TOML out.

Each line tells the file it comes from. Nothing in it refers to the folder: it may be gone tomorrow.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from forkd.config.problems import display_path, toml_key, toml_value
from forkd.config.qmail import Said
from forkd.config.qmail_files import CDB, Row
from forkd.config.qmail_lists import ORDER, PLUGIN
from forkd.config.qmail_merge import as_toml

LISTS_FILE: Final = f"plugins.d/{ORDER:02}-{PLUGIN}.toml"
"""Beside forkd.toml: the lists of senders and recipients."""

_LINES: Final = {"sender_lists": "senders", "recipient_lists": "recipients", "exempt_lists": "exempt"}
"""Setting with files -> the one with the lines themselves."""
_SIGN: Final = re.compile(r"[*?\[\\]|^!")
_COLUMN: Final = 40


def config_toml(said: Said, queue_program: str) -> str:
    """forkd.toml.

    queue_program  absolute path of qmail-queue, which takes the mail as before; empty: there is none here
    """
    rows = [
        f"# Written by `forkd config import-qmail {display_path(said.folder)}`,",
        "# what the control files there say; behind each line stands the file it comes from.",
        "# All that can be set, with its defaults: etc/forkd.toml.",
        *_server(said),
        "",
        "# [listener.default]                    # not in a control file: where tcpserver listened",
        '# address = "0.0.0.0:25"',
        *_domains(said),
        *_networks(said, queue_program),
        *_table(said, "limits"),
        *_table(said, "timeouts"),
        *_transport(said, queue_program),
    ]
    return "\n".join(rows) + "\n"


def lists_toml(said: Said) -> str:
    """LISTS_FILE; empty: there are no lists."""
    if not said.lists:
        return ""
    rows = [
        "# Who is refused, by the lists of qmail-smtpd. What lines mean: plugins/qmail_lists/qmail_lists.py.",
        f'plugin = "{PLUGIN}"',
        "",
        "[settings]",
    ]
    if said.regex:
        rows.append(_with_comment("regex = true", "qregex"))
    for setting, files in said.lists.items():
        rows.append(_with_comment(f"{_LINES[setting]} = [", ", ".join(files)))
        rows += [f"    {toml_value(_line(row))}," for row in itertools.chain(*files.values())]
        rows.append("]")
    return "\n".join(rows) + "\n"


def _line(row: Row) -> str:
    """As it stands in a text file: a key of a .cdb has no wildcards, whatever is in it."""
    return _SIGN.sub(r"\\\g<0>", row.text) if row.file.endswith(CDB) else row.text


def _with_comment(line: str, *files: str) -> str:
    return f"{line:<{_COLUMN - 1}} # {', '.join(files)}"


def _table(said: Said, table: str) -> Iterator[str]:
    settings = {key: setting for (where, key), setting in said.settings.items() if where == table}
    if settings:
        yield ""
        yield f"[{table}]"
    for key, setting in settings.items():
        yield _with_comment(f"{key} = {as_toml(setting.value)}", setting.file)


def _server(said: Said) -> Iterable[str]:
    return list(_table(said, "server")) or ["", "[server]"]


def _domains(said: Said) -> Iterator[str]:
    """Grouped by file: a domain takes two lines."""
    for name, file in said.domains.items():
        comment = f"{file}; not in locals, nor in virtualdomains" if name in said.elsewhere else file
        yield ""
        yield _with_comment(f"[domain.{toml_key(name)}]", comment)
        yield 'detail = ""'


def _networks(said: Said, queue_program: str) -> Iterator[str]:
    if not said.relay:
        return
    sign = "" if queue_program else "# "
    yield ""
    yield "[networks]"
    if sign:
        yield "# With a transport that sends mail to anywhere, and its name below [queue] as relay_transport:"
    yield _with_comment(f"{sign}relay = [", next(iter(said.relay.values())).file)
    for network in said.relay:
        yield f'{sign}    "{network}",'
    yield f"{sign}]"


def _transport(said: Said, queue_program: str) -> Iterator[str]:
    if queue_program:
        if said.relay:
            yield from ("", "[queue]", 'relay_transport = "local"')
        yield ""
        yield "# qmail's queue takes the mail, and does as before: locals, virtualdomains, smtproutes."
        yield "[transport.local]"
        yield 'kind = "qmail-queue"'
        yield f"argv = [{toml_value(queue_program)}]"
        return
    yield ""
    yield "# No qmail-queue was found here: mail goes into Maildirs below data_dir. To hand it over to qmail:"
    yield "# [transport.local]"
    yield '# kind = "qmail-queue"'
    yield '# argv = ["/var/qmail/bin/qmail-queue"]'
