"""What other tests leave of swaks' options: protocols, pipelining, PRDR, data, ends of sessions.

Those of TLS, AUTH, XCLIENT and PROXY are in test_tls.py, test_auth.py and test_opening_*.py.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.daemon import swaks
from tests.support.waiting import wait_for
from tests.system.conftest import Make
from tests.system.test_auth import SECRET, Mail, prepare

LOGIN = f"--auth-user anna --auth-password '{SECRET}'"
DELIVERED = "250 2.0.0 Ok: queued as"

PROTOCOLS = (
    ("default", "SMTP", "SMTP"),
    ("default", "ESMTP", "ESMTP"),
    ("default", "ESMTPS", "ESMTPS"),
    ("smtps", f"SSMTPA {LOGIN}", "ESMTPSA"),
    ("plain", f"ESMTPA {LOGIN}", "ESMTPA"),
    ("submission", f"ESMTPSA {LOGIN}", "ESMTPSA"),
)
"""Listener, swaks' word for how to talk, our word for it in the Received field (RFC 3848)."""

OPTIONS = (
    ("default", "--pipeline", 0, DELIVERED),
    ("default", "--pipeline --tls", 0, DELIVERED),
    ("submission", f"--pipeline --tls --auth PLAIN {LOGIN}", 0, DELIVERED),
    ("smtps", f"--pipeline --tls-on-connect --auth LOGIN {LOGIN}", 0, DELIVERED),
    # One of two is refused: the other has the mail.
    ("default", "--pipeline --to swaks@test.local,x@elsewhere.example", 0, "550 5.7.1"),
    ("default", "--pipeline --to x@elsewhere.example", 24, "550 5.7.1"),
    # Not offered, so swaks gives up.
    ("default", "--prdr", 30, "221 2.0.0"),
    ("default", "--helo [127.0.0.1]", 0, DELIVERED),
    ("default", "--helo [IPv6:::1]", 0, DELIVERED),
    ("default", "--helo 'two words'", 22, "501 "),
    ("default", "--from '<>'", 0, DELIVERED),
    ("default", "--body '.\\n..\\nthree'", 0, DELIVERED),
    ("default", "--attach-type text/plain --attach @/etc/hostname", 0, DELIVERED),
    ("default", "--add-header 'X-Tall: x' --timeout 20s --force-getpwuid", 0, DELIVERED),
    # Plain SMTP on a listener that wants more.
    ("submission", "--protocol SMTP", 23, "530 5.7.0"),
    # We speak no LMTP as a server.
    ("default", "--protocol LMTP", 22, "500 5.5.1"),
)
"""Listener, options, exit status (swaks names the step that failed by it), what is said."""

STOPS = ("CONNECT", "FIRST-HELO", "TLS", "HELO", "AUTH", "MAIL", "RCPT")
DROPS = (*STOPS, "DATA", "DOT")


def run(mail: Mail, listener: str, arguments: str) -> subprocess.CompletedProcess[str]:
    # The last of an option counts, so a row may have its own --to, --from and --helo.
    to = "--helo client.example --from anna@test.local --to swaks@test.local"
    return swaks(mail.daemon, f"--port {mail.port(listener)} {to} {arguments}")


@pytest.mark.slow
def test_options(make_daemon: Make, who) -> None:
    """One daemon for all rows; what a row does to its session harms no other."""
    mail = prepare(make_daemon(start=False), who.uid)
    taken = len(PROTOCOLS)
    for listener, protocol, word in PROTOCOLS:
        done = run(mail, listener, f"--protocol {protocol} --port {mail.port(listener)}")
        assert done.returncode == 0, done.stdout
        (queue_id,) = re.findall(r"queued as (\S+)", done.stdout)
        wait_for(
            lambda word=word, queue_id=queue_id: any(
                f"with {word} id {queue_id}" in path.read_text() for path in mail.daemon.mailbox("swaks")
            ),
            timeout_s=20,
        )
    for listener, arguments, status, said in OPTIONS:
        done = run(mail, listener, arguments)
        assert (done.returncode, said in done.stdout) == (status, True), f"{arguments}\n{done.stdout}"
        taken += DELIVERED in done.stdout
    for stop in STOPS:
        done = run(mail, "submission", f"--tls --auth PLAIN {LOGIN} --quit-after {stop}")
        assert done.returncode == 0, done.stdout
        assert "221 2.0.0" in done.stdout
    for how in ("--drop-after", "--drop-after-send"):
        for stop in DROPS:
            run(mail, "submission", f"--tls --auth PLAIN {LOGIN} {how} {stop}")
    # A message is ours from the last dot on, whether the client waits for our answer or not.
    wait_for(lambda: len(mail.daemon.events("message")) == taken + 2, timeout_s=20)
    assert not mail.daemon.events("bug")
