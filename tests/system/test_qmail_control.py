"""A daemon that takes over from qmail-smtpd: its control files in force, and its lists."""

from __future__ import annotations

import time

from tests.support.cdb import cdb
from tests.support.daemon import Daemon

from .conftest import Make

FILES: dict[str, str | bytes] = {
    "me": "mx.example.org\n",
    "smtpgreeting": "mx.example.org No spam here\nand no bulk mail\n",
    "rcpthosts": "test.local\n.test.local\n",
    "morercpthosts.cdb": cdb("more.example"),
    "databytes": "70000\n",
    "maxrecipients": "3\n",
    "tarpitcount": "3\n",
    "tarpitdelay": "1\n",
    "badmailfrom": "# bulk\n@bulk.example\n*@*.bulk.example\n!news@good.bulk.example\n",
    "badrcptto": "@old.test.local\n",
    "goodrcptto": "postmaster@old.test.local\n",
}


def take_over(daemon: Daemon) -> None:
    """Its configuration is the folder of control files."""
    folder = daemon.folder
    (folder / "control").mkdir()
    for name, content in FILES.items():
        (folder / "control" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    daemon.start()


def say(file, command: str) -> tuple[int, bytes]:
    """Send a line; the code and text of the last line of its reply."""
    if command:
        file.write(command.encode() + b"\r\n")
        file.flush()
    while (line := file.readline())[3:4] == b"-":
        pass
    return int(line[:3]), line[4:].rstrip()


def dialogue(daemon: Daemon):
    return daemon.connect().makefile("rwb")


def test_control_files_are_in_force(make_daemon: Make):
    """operations and smtp pages: qmail's control files are understood where admins have them."""
    server = '\nqmail_control = "control"'
    daemon = make_daemon(start=False, server=server, config="[networks]\ntrusted = []\n")
    take_over(daemon)
    client = dialogue(daemon)
    assert client.readline() == b"220-mx.example.org No spam here ESMTP\r\n"
    assert client.readline() == b"220 and no bulk mail\r\n"
    client.write(b"EHLO client.example\r\n")
    client.flush()
    assert client.readline() == b"250-mx.example.org\r\n"
    lines = [client.readline()]
    while lines[-1][3:4] == b"-":
        lines.append(client.readline())
    assert b"250-SIZE 70000\r\n" in lines

    assert say(client, "MAIL FROM:<a@bulk.example>") == (
        553,
        b"5.7.1 your envelope sender is in my badmailfrom list",
    )
    assert say(client, "RCPT TO:<a@test.local>")[0] == 503
    assert say(client, "MAIL FROM:<A@X.Bulk.Example>")[0] == 553
    assert say(client, "MAIL FROM:<news@good.bulk.example>")[0] == 250
    assert say(client, "RSET")[0] == 250

    assert say(client, "MAIL FROM:<a@example.com>")[0] == 250
    assert say(client, "RCPT TO:<a@elsewhere.example>")[0] == 550
    assert say(client, "RCPT TO:<a@old.test.local>") == (553, b"5.7.1 this recipient is in my badrcptto list")
    assert say(client, "RCPT TO:<postmaster@old.test.local>")[0] == 250
    assert say(client, "RCPT TO:<a@Deep.Sub.test.local>")[0] == 250
    before = time.monotonic()
    assert say(client, "RCPT TO:<a@more.example>")[0] == 250
    assert time.monotonic() - before > 0.9, "the third recipient was answered at once: no tarpit"
    assert say(client, "RCPT TO:<b@more.example>")[0] == 452
    assert say(client, "DATA")[0] == 354
    client.write(b"Subject: hello\r\n\r\nhello\r\n.\r\n")
    client.flush()
    assert say(client, "")[0] == 250
    daemon.told("delivery", 3)
    assert daemon.mailbox("a", "deep.sub.test.local")
    assert daemon.mailbox("a", "more.example")
    assert daemon.mailbox("postmaster", "old.test.local")
    (plugin,) = [
        row
        for row in daemon.forkd("plugin", "list", "-c", "forkd.toml").stdout.splitlines()
        if "qmail" in row
    ]
    assert plugin.split()[0] == "qmail_lists"
