"""The stock plugins that ask the world: real daemon, real broker, a real name server, a real clamd."""

from __future__ import annotations

import contextlib
import email
import os
import signal
import smtplib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.support.clamd import EICAR, SUSPECT, Clamd
from tests.support.daemon import Daemon
from tests.support.nameserver import NameServer
from tests.support.talker import Talker
from tests.support.waiting import wait_for

from .conftest import Make

SAMPLES = Path(__file__).parent.parent.parent / "etc" / "plugins.d"
BEHIND_A_PROXY = {"listener": "proxy = true"}
"""So that a client on loopback has an address of the Internet."""
PROXIES = '[networks]\nproxy = ["127.0.0.0/8"]\n'


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def clamd() -> Iterator[Clamd]:
    with Clamd() as server:
        yield server


def from_address(daemon: Daemon, address: str) -> Talker:
    """A client with this address, as the proxy tells it."""
    family, ours = ("TCP6", "2001:db8::25") if ":" in address else ("TCP4", "192.0.2.25")
    talker = Talker(daemon, before=f"PROXY {family} {address} {ours} 40000 25\r\n".encode())
    assert talker.say("EHLO client.example").startswith("250")
    return talker


def ask(client: Talker, to: str = "user@test.local", sender: str = "ann@example.org") -> str:
    """The reply to one recipient of a new transaction."""
    client.say("RSET")
    assert client.say(f"MAIL FROM:<{sender}>").startswith("250")
    return client.say(f"RCPT TO:<{to}>")


def send(
    daemon: Daemon, to: str, *, sender: str = "ann@example.org", mail: bytes = b"", source: str = "127.0.0.1"
) -> tuple[int, str]:
    """One mail in a session of its own: the reply that refused it, or that to the end of data."""
    client = daemon.smtp(source_address=(source, 0))
    try:
        client.ehlo()
        for code, text in (client.mail(sender), client.rcpt(to)):
            if code != 250:
                return code, text.decode()
        code, text = client.data(mail or b"Subject: x\r\n\r\nhello\r\n")
    except smtplib.SMTPDataError as refusal:
        code, said = refusal.smtp_code, refusal.smtp_error
        return code, said.decode() if isinstance(said, bytes) else said
    finally:
        client.close()  # a daemon that is told to stop would wait for it
    return code, text.decode()


def the_mail(daemon: Daemon, user: str) -> EmailMessage:
    """The one mail that `user` got."""
    (path,) = wait_for(lambda: daemon.mailbox(user), timeout_s=20)
    return email.message_from_bytes(path.read_bytes())


# --- dnsbl -----------------------------------------------------------------------------------------------

DNSBL = """
plugin = "dnsbl"
[settings]
zones = [
    "ok.bl.test -5", "one.bl.test 127.0.0.[2..9] 2", "two.bl.test",
    "hijacked.bl.test 9", "dead.bl.test 9",
]
domain_zones = ["names.bl.test 3 => {what} is a spammer's domain"]
sender_domain = true
threshold = 3
[grants]
dns = ["bl.test"]
reads = ["envelope"]
"""


@pytest.mark.both_modes
def test_dnsbl_asks_a_real_name_server(make_daemon: Make, names: NameServer) -> None:
    """Weights, IPv6, allow lists, hijacked answers, dead lists; postmaster; each name is asked once."""
    for zone in ("one", "two"):
        names.add(f"7.2.0.192.{zone}.bl.test", "A", "127.0.0.2")
    names.add("7.2.0.192.one.bl.test", "TXT", '"sent spam on 23 November"')
    names.add("8.2.0.192.one.bl.test", "A", "127.0.0.3")
    names.add("9.2.0.192.two.bl.test", "A", "127.0.0.2")
    names.add("9.2.0.192.one.bl.test", "A", "127.0.0.2")
    names.add("9.2.0.192.ok.bl.test", "A", "127.0.9.2")
    names.add("6.2.0.192.hijacked.bl.test", "A", "198.51.100.1")
    names.add("6.2.0.192.dead.bl.test", "A", "127.0.0.2")
    names.add("1.0.0.127.dead.bl.test", "A", "127.0.0.2")
    six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    names.add(f"{six}.one.bl.test", "A", "127.0.0.2")
    names.add(f"{six}.two.bl.test", "A", "127.0.0.2")
    names.add("spam.example.names.bl.test", "A", "127.0.0.2")
    daemon = make_daemon(
        config=f'{PROXIES}[dns]\nservers = ["{names.address}"]\n',
        plugins={"30-dnsbl.toml": DNSBL},
        **BEHIND_A_PROXY,
    )
    client = from_address(daemon, "192.0.2.7")
    said = ask(client)
    assert said == "550 5.7.1 192.0.2.7 is listed by one.bl.test sent spam on 23 November\r\n"
    before = len(names.asked)
    assert ask(client, "other@test.local").startswith("550")
    assert ask(client, "postmaster@test.local").startswith("250")
    assert len(names.asked) == before, "what was asked is kept for the session"
    assert from_address(daemon, "2001:db8::1").say("NOOP").startswith("250")
    assert ask(from_address(daemon, "2001:db8::1")).startswith("550 5.7.1 2001:db8::1 is listed")
    for fine in ("192.0.2.8", "192.0.2.9", "192.0.2.6", "192.0.2.5", "10.0.0.7"):
        client = from_address(daemon, fine)
        assert ask(client).startswith("250"), fine
        assert client.say("DATA").startswith("354")
        assert client.say(f"Subject: from {fine}\r\n\r\nx\r\n.").startswith("250"), fine
    said = ask(from_address(daemon, "192.0.2.5"), sender="a@spam.example")
    assert said == "550 5.7.1 spam.example is a spammer's domain\r\n"
    assert not [each for each in names.asked if each.startswith(("7.0.0.10", "1.0.0.127.one.bl.test. AAAA"))]
    wait_for(lambda: "hijacked.bl.test counts for nothing: it answers 198.51.100.1" in daemon.log_text())
    wait_for(lambda: "dead.bl.test counts for nothing: it lists what no list has" in daemon.log_text())
    assert len(wait_for(lambda: len(found := daemon.mailbox("user")) == 5 and found, timeout_s=20)) == 5
    assert not daemon.events("plugin_failure")


@pytest.mark.parametrize("broken", ["refuses", "silent"])
def test_dnsbl_lets_mail_in_when_no_name_can_be_looked_up(
    make_daemon: Make, names: NameServer, broken: str
) -> None:
    """SERVFAIL, or no answer at all: the client is not made to wait for long, and nobody is listed."""
    names.answer = getattr(names, broken)
    daemon = make_daemon(
        config=f'{PROXIES}[dns]\nservers = ["{names.address}"]\ntimeout = "200ms"\n',
        plugins={"30-dnsbl.toml": DNSBL},
        **BEHIND_A_PROXY,
    )
    assert ask(from_address(daemon, "192.0.2.7")).startswith("250")
    wait_for(lambda: "bl.test counts for nothing: it does not answer" in daemon.log_text())
    assert not daemon.events("plugin_failure")


# --- greylist --------------------------------------------------------------------------------------------

GREYLIST = """
plugin = "greylist"
[settings]
delay = "1s"
private = true
header = true
{more}
[grants]
reads = ["envelope"]
state = true
edit_headers = ["X-Greylist"]
[limits]
timeout = "2s"
"""


def test_greylist_lets_in_who_comes_again(make_daemon: Make) -> None:
    """451 at first, 250 after the delay, and at once from then on: in any worker, after a restart too."""
    daemon = make_daemon(server="workers = 2\n", plugins={"40-greylist.toml": GREYLIST.format(more="")})
    code, text = send(daemon, "user@test.local")
    assert (code, text) == (451, "4.7.1 greylisted: you are new here, please try again in 1 seconds")
    wait_for(lambda: send(daemon, "user@test.local")[0] == 250, timeout_s=20)
    assert the_mail(daemon, "user")["X-Greylist"].startswith("delayed ")
    assert [send(daemon, "user@test.local")[0] for _ in range(4)] == [250] * 4
    assert send(daemon, "other@test.local")[0] == 451
    assert send(daemon, "postmaster@test.local")[0] == 250
    assert daemon.stop() == 0
    daemon.start()
    assert send(daemon, "user@test.local")[0] == 250
    assert send(daemon, "user@test.local", sender="eve@example.org")[0] == 451
    assert not daemon.events("plugin_failure")


def test_greylist_makes_bounces_wait_but_not_callouts(make_daemon: Make) -> None:
    daemon = make_daemon(plugins={"40-greylist.toml": GREYLIST.format(more="")})
    client = daemon.smtp()
    client.ehlo()
    client.mail("")
    assert client.rcpt("user@test.local")[0] == 250
    code, text = client.docmd("DATA")
    assert (code, text[:5]) == (451, b"4.7.1")
    wait_for(lambda: send(daemon, "user@test.local", sender="")[0] == 250, timeout_s=20)
    assert the_mail(daemon, "user")["Subject"] == "x"


@pytest.mark.parametrize(("setting", "code"), [("pass", 250), ("defer", 451)])
def test_greylist_when_nothing_can_be_remembered(make_daemon: Make, setting: str, code: int) -> None:
    """The broker does not answer: what on_unavailable says, and no failure of the plugin."""
    more = f'on_unavailable = "{setting}"'
    daemon = make_daemon(plugins={"40-greylist.toml": GREYLIST.format(more=more)})
    assert send(daemon, "user@test.local")[0] == 451
    (broker,) = daemon.role("broker")
    stopped = Path(f"/proc/{broker}/stat")
    daemon_signal(broker, signal.SIGSTOP)
    try:
        wait_for(lambda: stopped.read_text().rpartition(")")[2].split()[0] == "T")
        reply = send(daemon, "other@test.local")
    finally:
        daemon_signal(broker, signal.SIGCONT)
    assert reply[0] == code
    if code == 451:
        assert reply[1].startswith("4.3.0")
    wait_for(lambda: "nothing can be remembered" in daemon.log_text())
    wait_for(lambda: send(daemon, "user@test.local")[0] == 250, timeout_s=30)
    assert not daemon.events("plugin_failure")


def daemon_signal(pid: int, number: int) -> None:
    """To one process of the daemon's, which may have been replaced meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# --- ratelimit -------------------------------------------------------------------------------------------

RATELIMIT = """
plugin = "ratelimit"
[settings]
limits = [
    "client recipients 3/400d",
    "client recipients unlimited for 127.0.9.0/24",
    "sender messages 1/400d",
    "sender messages unlimited for ann@example.org",
]
[grants]
reads = ["envelope"]
state = true
"""
"""Periods so long that no window ends during a test."""


def test_ratelimit_counts_over_all_workers(make_daemon: Make) -> None:
    """Sessions at the same time share the count to the last one; what is refused does not count."""
    daemon = make_daemon(
        server="workers = 2\n",
        config='[networks]\ntrusted = ["127.0.0.0/8"]\n',
        plugins={"45-ratelimit.toml": RATELIMIT},
    )
    with ThreadPoolExecutor(8) as crowd:
        replies = list(crowd.map(lambda n: send(daemon, f"user{n % 2}@test.local"), range(12)))
    assert sorted(code for code, _ in replies) == [250] * 3 + [451] * 9
    told = {text for code, text in replies if code == 451}
    assert told == {
        "4.7.1 too many recipients: 3 in 400 days are taken from one client, please try again later"
    }
    assert sum(len(daemon.mailbox(f"user{n}")) for n in (0, 1)) <= 3
    elsewhere = {"source": "127.0.9.1"}
    codes = [send(daemon, "user@test.local", sender="eve@example.org", **elsewhere)[0] for _ in range(2)]
    assert codes == [250, 451]
    assert [send(daemon, "user@test.local", **elsewhere)[0] for _ in range(2)] == [250, 250]
    assert not daemon.events("plugin_failure")


# --- clamav ----------------------------------------------------------------------------------------------

CLAMAV = """
plugin = "clamav"
[settings]
header = true
ignore = ["Heuristics.*"]
{more}
[grants]
reads = ["body"]
connect = {{ clamd = "{target}" }}
edit_headers = ["X-Virus-Scanned"]
{grants}
"""


def infected(content: bytes = EICAR) -> bytes:
    mail = EmailMessage()
    mail["Subject"] = "an invoice"
    mail["X-Virus-Scanned"] = "clean, believe me"
    mail.set_content("see below\n")
    mail.add_attachment(content, maintype="application", subtype="octet-stream", filename="invoice.com")
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))


def test_clamav_asks_a_real_clamd(make_daemon: Make, clamd: Clamd) -> None:
    """Found in a base64 attachment, ignored heuristics, too large for clamd, clamd away and back."""
    entry = CLAMAV.format(more="", target=clamd.target, grants="")
    daemon = make_daemon(plugins={"65-clamav.toml": entry})
    code, text = send(daemon, "user@test.local", mail=infected())
    assert (code, text) == (550, "5.7.1 this message is infected: Test.Eicar.UNOFFICIAL")
    assert send(daemon, "clean@test.local", mail=infected(b"harmless"))[0] == 250
    assert the_mail(daemon, "clean").get_all("X-Virus-Scanned") == [f"clamav at {hostname(daemon)}"]
    assert send(daemon, "phish@test.local", mail=infected(SUSPECT))[0] == 250
    assert send(daemon, "big@test.local", mail=infected(b"x" * 4_000_000))[0] == 250
    assert the_mail(daemon, "big").get_all("X-Virus-Scanned") == [f"not scanned at {hostname(daemon)}"]
    wait_for(lambda: "ignored: Heuristics.Test.Phrase" in daemon.log_text())
    clamd.stop()
    code, text = send(daemon, "user@test.local", mail=infected(b"harmless"))
    assert (code, text[:5]) == (451, "4.3.0")
    clamd.start()
    assert send(daemon, "user@test.local", mail=infected())[0] == 550
    assert send(daemon, "user@test.local", mail=infected(b"harmless"))[0] == 250
    assert the_mail(daemon, "user")["Subject"] == "an invoice"
    assert not daemon.events("plugin_failure")


def test_clamav_holds_what_it_finds_and_lets_pass_what_it_may(make_daemon: Make, clamd: Clamd) -> None:
    more = 'action = "quarantine"\non_unavailable = "pass"'
    entry = CLAMAV.format(more=more, target=clamd.target, grants="quarantine = true")
    daemon = make_daemon(plugins={"65-clamav.toml": entry})
    assert send(daemon, "user@test.local", mail=infected())[0] == 250
    assert "clamav found Test.Eicar.UNOFFICIAL" in daemon.forkd("queue", "list").stdout
    clamd.stop()
    assert send(daemon, "other@test.local", mail=infected())[0] == 250
    assert the_mail(daemon, "other")["X-Virus-Scanned"] == f"not scanned at {hostname(daemon)}"
    assert not daemon.mailbox("user")


def hostname(daemon: Daemon) -> str:
    return daemon.smtp().ehlo()[1].decode().split()[0]


# --- all of them -----------------------------------------------------------------------------------------


def test_the_samples_switched_on_work_together(make_daemon: Make, names: NameServer, clamd: Clamd) -> None:
    """What an admin does first: enabled = true. Refused by the first that has a reason, taken in the end."""
    names.add("7.2.0.192.zen.spamhaus.org", "A", "127.0.0.4")
    entries = {
        path.name: path.read_text().replace("enabled = false", "enabled = true")
        for path in SAMPLES.glob("*.toml")
        if path.name[3:-5] in ("dnsbl", "greylist", "ratelimit", "clamav")
    }
    assert len(entries) == 4
    entries["65-clamav.toml"] = entries["65-clamav.toml"].replace("unix:/run/clamav/clamd.ctl", clamd.target)
    entries["40-greylist.toml"] = entries["40-greylist.toml"].replace('delay = "5m"', 'delay = "1s"')
    daemon = make_daemon(
        config=f'{PROXIES}[dns]\nservers = ["{names.address}"]\n', plugins=entries, **BEHIND_A_PROXY
    )
    listed = ask(from_address(daemon, "192.0.2.7"))
    assert listed == "550 5.7.1 192.0.2.7 is listed, see https://check.spamhaus.org/\r\n"
    assert ask(from_address(daemon, "192.0.2.8")).startswith("451 4.7.1 greylisted")

    def again() -> Talker | None:
        client = from_address(daemon, "192.0.2.8")
        return client if ask(client).startswith("250") else None

    client = wait_for(again, timeout_s=20)
    assert client.say("DATA").startswith("354")
    virus = infected().decode() + "."
    assert client.say(virus).startswith("550 5.7.1 this message is infected")
    assert ask(client).startswith("250")
    assert client.say("DATA").startswith("354")
    assert client.say("Subject: hello\r\n\r\nx\r\n.").startswith("250")
    assert the_mail(daemon, "user")["Subject"] == "hello"
    assert not daemon.events("plugin_failure")
