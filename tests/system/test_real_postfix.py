"""Mail that goes on to a real mail server: Postfix, in the clear and by TLS, with a password and without."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.dovecot import Dovecot
from tests.support.mta import Sender, start_postfix
from tests.support.params import quick_first
from tests.support.people import Person
from tests.support.pki import Authority, Pair, first_certificate
from tests.support.sinks import Sink, source
from tests.support.waiting import wait_for

from .conftest import Make

NAME = "mail.next.example"


@dataclasses.dataclass
class NextHop:
    """A Postfix that hands all it takes to a sink."""

    postfix: Sender
    sink: Sink

    @property
    def port(self) -> int:
        return self.postfix.port


@pytest.fixture
def start_next_hop() -> Iterator[Callable[..., NextHop]]:
    """start_next_hop(settings) -> Postfix with these lines in main.cf."""
    ends: list[Callable[[], object]] = []

    def start(settings: str = "") -> NextHop:
        sink = Sink().start()
        ends.append(sink.__exit__)
        folder = Path(tempfile.mkdtemp(prefix="postfix-", dir="/var/tmp"))
        folder.chmod(0o755)
        ends.append(lambda: shutil.rmtree(folder, ignore_errors=True))
        postfix = start_postfix(folder / "p", relay_to=sink.port, settings=settings)
        ends.append(postfix.stop)
        return NextHop(postfix, sink)

    yield start
    for end in reversed(ends):
        end()


@pytest.fixture
def pki() -> Iterator[Authority]:
    # Not tmp_path: an ordinary user's forkd reads from here.
    folder = Path(tempfile.mkdtemp(prefix="pki-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield Authority(folder)
    shutil.rmtree(folder, ignore_errors=True)


def config(port: int, more: str = "") -> str:
    return (
        '[queue]\nretry_first = "200ms"\nretry_max = "1s"\n[domain."example.org"]\ntransport = "next"\n'
        f'[transport.next]\nkind = "smtp"\nhosts = ["127.0.0.1:{port}"]\n{more}'
    )


def queued(daemon: Daemon) -> int:
    return sum(1 for each in (daemon.var / "spool" / "new").rglob("*") if each.is_file())


def serves(pair: Pair) -> str:
    return (
        f"smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {pair.key}, {pair.chain}\n"
        "smtpd_tls_loglevel = 1\nsmtpd_tls_received_header = yes\n"
    )


def digest(pair: Pair) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first_certificate(pair.chain.read_text()))).hexdigest()


def first_outcome(daemon: Daemon) -> dict:
    with daemon.smtp() as client:
        client.sendmail("alice@client.example", ["bob@example.org"], "Subject: x\r\n\r\nx\r\n")
    return wait_for(lambda: daemon.events("delivery"), timeout_s=40)[0]


def test_postfix_takes_it_for_all_recipients_at_once(
    make_daemon: Make, start_next_hop: Callable[..., NextHop]
):
    """One transaction, pipelined; and what Postfix refuses at RCPT fails alone."""
    hop = start_next_hop(
        "smtpd_recipient_restrictions = check_recipient_access inline:{no@example.org=REJECT}\n"
    )
    daemon = make_daemon(config=config(hop.port))
    people = ["bob@example.org", "no@example.org", "eve@example.org"]
    with daemon.smtp() as client:
        client.sendmail("alice@client.example", people, "Subject: x\r\n\r\nx\r\n")
    wanted = {people[0]: "delivered", people[1]: "failed", people[2]: "delivered"}

    def told() -> dict[str, str]:
        lines = daemon.events("delivery")  # and those of the report to the sender
        return {line["recipient"]: line["status"] for line in lines if line["recipient"] in people}

    wait_for(lambda: told() == wanted, timeout_s=40)
    wait_for(lambda: hop.sink.recipients().total() == 2, timeout_s=40)
    assert hop.postfix.log_text().count(": client=") == 1


RIGHT = {
    "opportunistic, no certificate of ours": 'tls = "opportunistic"\n',
    "required, by its name": f'tls = "required"\ntls_ca = "CA"\ntls_name = "{NAME}"\n',
    "required, by a name below": 'tls = "required"\ntls_ca = "CA"\ntls_name = ".next.example"\n',
    "required, by fingerprint": 'tls = "required"\ntls_fingerprints = ["DIGEST"]\n',
}


@pytest.mark.parametrize("name", quick_first(RIGHT, 2))
def test_mail_goes_by_tls(
    make_daemon: Make, start_next_hop: Callable[..., NextHop], pki: Authority, name: str
):
    """And Postfix says so in its Received field."""
    pair = pki.pair(NAME)
    hop = start_next_hop(serves(pair))
    keys = RIGHT[name].replace("CA", str(pki.file)).replace("DIGEST", digest(pair))
    daemon = make_daemon(config=config(hop.port, keys))
    line = first_outcome(daemon)
    assert line["status"] == "delivered", line
    assert line["tls"].startswith("TLSv1.3 TLS_")
    assert line["tls"].endswith(", not verified" if name.startswith("opportunistic") else ", verified")
    wait_for(lambda: any(b"using TLSv1.3" in mail for mail in hop.sink.mails()), timeout_s=40)


WRONG = {
    "another name": (
        "other.example",
        90,
        'tls_ca = "CA"\ntls_name = "mail.next.example"',
        "not for mail.next",
    ),
    "the address": (NAME, 90, 'tls_ca = "CA"', "not for 127.0.0.1"),
    "expired": (NAME, -1, f'tls_ca = "CA"\ntls_name = "{NAME}"', "expired"),
    "an authority of its own": (NAME, 90, f'tls_name = "{NAME}"', "unable to get local issuer"),
    "another fingerprint": (NAME, 90, f'tls_fingerprints = ["{"0" * 64}"]', "fingerprint is"),
}


@pytest.mark.parametrize("name", quick_first(WRONG, 2))
def test_mail_waits_where_the_certificate_is_wrong(
    make_daemon: Make, start_next_hop: Callable[..., NextHop], pki: Authority, name: str
):
    """Temporary: an admin mends it, here or there; and not an octet of it goes."""
    issued, days, keys, why = WRONG[name]
    hop = start_next_hop(serves(pki.pair(issued, days=days)))
    daemon = make_daemon(
        config=config(hop.port, 'tls = "required"\n' + keys.replace("CA", str(pki.file)) + "\n")
    )
    line = first_outcome(daemon)
    assert line["status"] == "deferred"
    assert why in str(line)
    assert queued(daemon) >= 1
    assert ": client=" not in hop.postfix.log_text()


def test_mail_waits_where_tls_is_required_and_not_offered(
    make_daemon: Make, start_next_hop: Callable[..., NextHop], pki: Authority
):
    """RFC 8314 4.1, and what a man in the middle would do (STARTTLS left out)."""
    hop = start_next_hop()
    daemon = make_daemon(config=config(hop.port, f'tls = "required"\ntls_ca = "{pki.file}"\n'))
    line = first_outcome(daemon)
    assert line["status"] == "deferred"
    assert "TLS is required" in str(line)
    assert ": client=" not in hop.postfix.log_text()


def test_our_certificate_is_shown_to_who_asks(
    make_daemon: Make, start_next_hop: Callable[..., NextHop], pki: Authority
):
    """tls_certificate and tls_key: read by master, given to qmgr sealed."""
    own = pki.pair("us.example.org", client=True)
    own.key.chmod(0o644)  # for forkd as an ordinary user
    asks = (
        f"smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = {pki.file}\nsmtpd_tls_fingerprint_digest = sha256\n"
    )
    hop = start_next_hop(serves(pki.pair(NAME)) + asks)
    daemon = make_daemon(config=config(hop.port, f'tls_certificate = "{own.chain}"\ntls_key = "{own.key}"\n'))
    assert first_outcome(daemon)["status"] == "delivered"
    wait_for(lambda: any(b'Client CN "us.example.org"' in mail for mail in hop.sink.mails()), timeout_s=40)


LOGINS = {
    "the right password": ("correct horse", "delivered", "250"),
    "a wrong one": ("battery staple", "deferred", "535"),
}


@pytest.mark.parametrize("name", quick_first(LOGINS))
def test_we_log_in_where_that_is_asked(
    make_daemon: Make,
    start_next_hop: Callable[..., NextHop],
    pki: Authority,
    who: Person,
    name: str,
):
    """Postfix with Dovecot's SASL, under TLS only. The file is its owner's alone; a wrong password is the
    admin's to mend, and nobody's mail fails for it."""
    password, status, said = LOGINS[name]
    secret = pki.folder / "password"
    secret.write_text(f"{password}\n")
    secret.chmod(0o600)
    os.chown(secret, who.uid, -1)
    with Dovecot({"relay": "correct horse"}) as dovecot:
        hop = start_next_hop(
            serves(pki.pair(NAME))
            + f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {dovecot.socket}\n"
            "smtpd_tls_auth_only = yes\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject\n"
        )
        keys = f'tls = "required"\ntls_ca = "{pki.file}"\ntls_name = "{NAME}"\n'
        keys += f'user = "relay"\npassword_file = "{secret}"\n'
        daemon = make_daemon(config=config(hop.port, keys))
        line = first_outcome(daemon)
        assert (line["status"], said in str(line)) == (status, True), line
        assert password not in daemon.log_text()


PROXIED = (
    ("no@example.org", 554, b"5.7.1"),
    ("later@example.org", 450, b"4.7.1"),
)


def test_a_client_that_waits_hears_of_all_or_nothing(
    make_daemon: Make, start_next_hop: Callable[..., NextHop]
):
    """accept = "proxy": where Postfix refuses one, nobody gets it: no 250 is a lie, and who comes
    again makes no duplicates."""
    table = "inline:{no@example.org=REJECT, {later@example.org = 450 4.7.1 later}}"
    hop = start_next_hop(f"smtpd_recipient_restrictions = check_recipient_access {table}\n")
    daemon = make_daemon(config=config(hop.port), listener='accept = "proxy"')
    with daemon.smtp() as client:
        client.ehlo()
        for refused, code, enhanced in PROXIED:
            client.mail("alice@client.example")
            assert [client.rcpt(each)[0] for each in ("bob@example.org", refused)] == [250, 250]
            answer = client.data("Subject: x\r\n\r\nx\r\n")
            assert (answer[0], answer[1][:5]) == (code, enhanced), answer
        people = ["bob@example.org", "eve@example.org"]
        client.sendmail("alice@client.example", people, "Subject: y\r\n\r\ny\r\n")
    wait_for(lambda: hop.sink.recipients().total() >= 2, timeout_s=40)
    assert hop.sink.recipients() == {"bob@example.org": 1, "eve@example.org": 1}
    assert queued(daemon) == 0


@pytest.mark.slow
def test_ten_thousand_mails_pass_through_postfix(make_daemon: Make, start_next_hop: Callable[..., NextHop]):
    """Each once: nothing was killed."""
    hop = start_next_hop("smtpd_client_connection_count_limit = 0\n")
    daemon = make_daemon(config=config(hop.port, "connections = 20\n"))
    sent = source(daemon.port, 10_000, sessions=20)
    wait_for(lambda: queued(daemon) == 0, timeout_s=500)
    wait_for(lambda: hop.sink.recipients().total() >= len(sent), timeout_s=500)
    given = hop.sink.recipients()
    assert set(given) == sent
    assert given.total() == len(sent)
