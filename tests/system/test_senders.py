"""Real mail servers and libraries as clients, with whatever they negotiate."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.mta import Sender, start_exim, start_postfix
from tests.support.pki import Authority
from tests.support.waiting import wait_for

from .conftest import STOCK, Make

MESSAGES = 1_000


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's tmp_path: the servers' own users must get in.
    made = Path(tempfile.mkdtemp(prefix="forkd-sender-", dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def text(number: int) -> str:
    """Message `number`: of several kinds, so that the sender must stuff dots, send 8-bit, and break lines."""
    kinds = (
        "plain",
        ".\n..\n.dots at the start of lines\n",
        "ümläute\n" * 5,
        "x" * 900 + "\n" + "y" * 70 + "\n",
        "0123456789" * 7 + "\n",
    )
    body = kinds[number % len(kinds)] * (1 + number % 40)
    head = f"Subject: number {number}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
    return f"{head}\n{body}\nend {number}\n"


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def feed(sender: Sender, count: int) -> None:
    """Hand `count` messages to the sender, over one connection."""
    with smtplib.SMTP("127.0.0.1", sender.port, local_hostname="feeder.example", timeout=60) as client:
        for number in range(count):
            client.sendmail("a@sender.example", ["relayed@test.local"], crlf(text(number)))


def maildir(daemon: Daemon) -> list[Path]:
    return list((daemon.var / "mail" / "test.local" / "relayed" / "new").glob("*"))


def all_arrived_whole(daemon: Daemon, count: int) -> None:
    """Each number once, its text as it was sent."""
    wait_for(lambda: len(maildir(daemon)) >= count, timeout_s=240)
    seen: Counter[int] = Counter()
    for path in maildir(daemon):
        head, _, body = path.read_bytes().partition(b"\n\n")
        match = re.search(rb"(?m)^Subject: number (\d+)$", head)
        assert match, head
        number = int(match[1])
        seen[number] += 1
        assert body == text(number).encode().partition(b"\n\n")[2], f"{path}: number {number}"
    assert seen == Counter(range(count))


SENDERS: dict[str, Callable[..., Sender]] = {"postfix": start_postfix, "exim": start_exim}
TLS = {
    "postfix": {"settings": "smtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1\n"},
    "exim": {"transport": "  hosts_require_tls = *\n  tls_verify_certificates =\n  hosts_noproxy_tls = *\n"},
}
PLAIN = {
    "postfix": {"settings": "smtp_tls_security_level = none\n"},
    "exim": {"transport": "  hosts_avoid_tls = *\n"},
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("encrypted", [True, False], ids=["tls", "plain"])
@pytest.mark.parametrize("name", SENDERS)
def test_a_thousand_messages_relayed_by(name: str, encrypted: bool, make_daemon: Make, folder: Path, who):
    """Exim sends chunks (BDAT), both take STARTTLS; nothing is lost, doubled or altered."""
    daemon = make_daemon(plugins=STOCK, start=False)
    pair = Authority(daemon.folder).pair("mx.test.local")
    os.chown(pair.key, who.uid, -1)
    daemon.config += pair.table("mx.test.local")
    daemon.write_config()
    daemon.start()
    sender = SENDERS[name](folder / name, relay_to=daemon.port, **(TLS if encrypted else PLAIN)[name])
    try:
        feed(sender, MESSAGES)
        all_arrived_whole(daemon, MESSAGES)
        if name == "exim":
            assert re.search(r" => .* K ", sender.log_text()), "K: it was sent in chunks"
    finally:
        sender.stop()
    received = [re.search(rb"with (E?SMTPS?) ", path.read_bytes()) for path in maildir(daemon)]
    assert {match[1] for match in received if match} == {b"ESMTPS" if encrypted else b"ESMTP"}
    assert not [e for e in daemon.events("session") if e.get("errors")], "no command of theirs was refused"


PERL_BDAT = """
use Net::SMTP;
my $smtp = Net::SMTP->new("127.0.0.1", Port => $ARGV[0], Hello => "client.example", Timeout => 30)
    or die "no greeting";
die "CHUNKING is not offered" unless defined $smtp->supports("CHUNKING");
${*$smtp}{net_smtp_chunking} = 1;   # it would use BDAT only together with BINARYMIME, which forkd has not
$smtp->mail('a@sender.example') && $smtp->to('relayed@test.local') or die $smtp->message;
$smtp->bdat("Subject: number 0\\r\\n\\r\\nfirst\\r\\n.\\r\\n") or die $smtp->message;
$smtp->bdat("second\\r") or die $smtp->message;
$smtp->bdat("\\nthird\\r\\n") or die $smtp->message;
$smtp->bdatlast("") or die $smtp->message;
$smtp->mail('a@sender.example') && $smtp->to('relayed@test.local') or die $smtp->message;
$smtp->bdatlast("Subject: number 1\\r\\n\\r\\nat once\\r\\n") or die $smtp->message;
$smtp->quit or die $smtp->message;
"""


def test_perls_net_smtp_sends_chunks(make_daemon: Make):
    """RFC 3030, as a real client does it: chunks cut within a line end, an empty last one, one alone."""
    daemon = make_daemon()
    done = subprocess.run(
        ["perl", "-e", PERL_BDAT, str(daemon.port)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(maildir(daemon)) == 2, timeout_s=20)
    bodies = {path.read_bytes().partition(b"\n\n")[2] for path in maildir(daemon)}
    assert bodies == {b"first\n.\nsecond\nthird\n", b"at once\n"}
