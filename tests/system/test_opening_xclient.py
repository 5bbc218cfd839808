"""XCLIENT: a trusted host says who its client is, and the session begins anew as that client's."""

from __future__ import annotations

import email
import os

import pytest

from tests.support.daemon import swaks
from tests.support.pki import Authority
from tests.support.talker import Talker
from tests.support.waiting import wait_for

from .conftest import Make
from .test_auth import prepare

MAY = '[networks]\nxclient = ["127.0.0.1/32"]\n'


def test_every_attribute_swaks_can_send_is_obeyed(make_daemon: Make):
    """NAME, ADDR, PORT, PROTO, HELO, LOGIN, DESTADDR, DESTPORT: the mail is that client's, in the Received
    field and in the log; in two commands too."""
    daemon = make_daemon(config=MAY)
    everything = (
        "--xclient-name mail.client.example --xclient-addr 192.0.2.7 --xclient-port 4711"
        " --xclient-proto ESMTP --xclient-helo helo.client.example --xclient-login anna"
        " --xclient-destaddr 198.51.100.1 --xclient-destport 25"
    )
    two = "--xclient-name mail.client.example --xclient-delim --xclient-addr 192.0.2.7"
    free = "--xclient 'NAME=mail.client.example ADDR=192.0.2.7'"
    ipv6 = "--xclient-addr IPV6:2001:db8::7 --xclient-name mail.client.example"
    for sent, (user, arguments, client) in enumerate(
        (
            ("all", everything, "192.0.2.7"),
            ("two", two, "192.0.2.7"),
            ("free", free, "192.0.2.7"),
            ("six", ipv6, "2001:db8::7"),
        ),
        start=1,
    ):
        done = swaks(daemon, f"{arguments} --from a@example.org --to {user}@test.local --helo real.example")
        assert done.returncode == 0, done.stdout
        (path,) = wait_for(lambda user=user: daemon.mailbox(user), timeout_s=20)
        received = " ".join(email.message_from_bytes(path.read_bytes())["Received"].split())
        shown = f"IPv6:{client}" if ":" in client else client
        assert f"from real.example (mail.client.example [{shown}])" in received
        assert daemon.told("message", sent)[-1]["client"].startswith(f"{client}:")
    assert daemon.events("message")[0]["client"] == "192.0.2.7:4711"


def test_xclient_is_announced_to_those_who_may_and_refused_to_others(make_daemon: Make):
    """networks.xclient, empty by default; 550 5.7.0 as Postfix."""
    daemon = make_daemon(config=MAY)
    may, other = Talker(daemon), Talker(daemon, source="127.0.0.2")
    assert "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT" in may.say("EHLO c.example")
    assert "XCLIENT" not in other.say("EHLO c.example")
    assert other.say("XCLIENT ADDR=192.0.2.7").startswith("550 5.7.0")


def test_the_session_begins_anew(make_daemon: Make):
    """XCLIENT_README: 220 again, EHLO is needed again; not within a transaction (503); who may is decided
    by the connection, so it may be said again as another client."""
    daemon = make_daemon(config=MAY)
    client = Talker(daemon)
    assert client.say("EHLO c.example").startswith("250")
    assert client.say("XCLIENT NAME=mail.client.example ADDR=192.0.2.7").startswith("220 ")
    assert client.say("MAIL FROM:<a@example.org>").startswith("503")
    assert client.say("EHLO c.example").startswith("250")
    assert client.say("MAIL FROM:<a@example.org>").startswith("250")
    assert client.say("XCLIENT ADDR=192.0.2.8").startswith("503")
    assert client.say("RSET").startswith("250")
    assert client.say("XCLIENT ADDR=192.0.2.8").startswith("220 ")
    assert client.say("XCLIENT ADDR=not.an.address").startswith("501")
    assert client.say("QUIT").startswith("221")
    session = wait_for(lambda: daemon.events("session"))[0]
    assert session["client"].startswith("192.0.2.8:")


def test_limits_and_rights_are_those_of_the_client_told_of(make_daemon: Make):
    """The proxy is trusted and may relay; its client has the limits and the rights of its own address."""
    config = (
        '[networks]\nxclient = ["127.0.0.1/32"]\nrelay = ["127.0.0.1/32", "192.0.2.9/32"]\n'
        '[queue]\nrelay_transport = "local"\n[limits]\nsessions_per_client = 1\n[names]\nresolve = false\n'
    )
    daemon = make_daemon(config=config)
    one, two, three = (Talker(daemon) for _ in range(3))
    assert one.say("XCLIENT ADDR=192.0.2.7").startswith("220 ")
    assert two.say("XCLIENT ADDR=192.0.2.7").startswith("421 4.7.0")
    assert three.say("XCLIENT ADDR=192.0.2.9").startswith("220 ")
    for client, code in ((one, "550 5.7.1"), (three, "250")):
        client.say("EHLO c.example")
        client.say("MAIL FROM:<a@example.org>")
        assert client.say("RCPT TO:<b@elsewhere.example>").startswith(code)
    # Where the address is told again, the one before is free.
    one.say("RSET")
    assert one.say("XCLIENT ADDR=192.0.2.8").startswith("220 ")
    four = Talker(daemon)
    assert four.say("XCLIENT ADDR=192.0.2.7").startswith("220 ")


def test_an_address_that_the_proxy_does_not_know_is_nobodys(make_daemon: Make):
    """[UNAVAILABLE]: neither trusted nor allowed to relay, though the proxy is both."""
    config = (
        '[networks]\nxclient = ["127.0.0.1/32"]\nrelay = ["127.0.0.1/32"]\n'
        '[queue]\nrelay_transport = "local"\n[names]\nresolve = false\n'
    )
    daemon = make_daemon(config=config)
    done = swaks(
        daemon, "--xclient-addr '[UNAVAILABLE]' --xclient-name '[TEMPUNAVAIL]' --to b@elsewhere.example"
    )
    assert "550 5.7.1" in done.stdout


def test_the_connect_hook_is_asked_about_the_client_told_of(make_daemon: Make):
    """Plugins see each client in a sandbox that has not seen another one, and may refuse him."""
    daemon = make_daemon(config=MAY, plugins={"05-meet.toml": 'plugin = "../meet"\n'}, copy=("meet",))
    client = Talker(daemon)
    assert client.say("XCLIENT NAME=good.example ADDR=192.0.2.7").startswith("220 ")
    assert client.say("XCLIENT NAME=bad.example ADDR=192.0.2.8 LOGIN=eve").startswith(
        "554 5.7.1 No, eve on 192.0.2.8"
    )
    assert client.say("EHLO c.example").startswith("503")
    assert client.say("QUIT").startswith("221")


def test_swaks_may_leave_it_where_it_is_not_offered(make_daemon: Make):
    """--xclient-optional, --xclient-optional-strict against a daemon that offers nothing to this client."""
    daemon = make_daemon()
    mail = "--from a@example.org --to user@test.local --xclient-addr 192.0.2.7"
    assert swaks(daemon, f"{mail} --xclient-optional").returncode == 0
    assert swaks(daemon, f"{mail} --xclient-optional-strict").returncode == 0
    assert swaks(daemon, mail).returncode != 0


def test_an_attribute_that_is_not_announced_is_refused(make_daemon: Make):
    """--xclient-no-verify sends it all the same: 501, and nothing of the command is believed; the session
    goes on as it was (--xclient-optional)."""
    daemon = make_daemon(config=MAY)
    mail = "--from a@example.org --to user@test.local --xclient-no-verify"
    forged = "--xclient-reverse-name mail.client.example --xclient-addr 192.0.2.7"
    refused = swaks(daemon, f"{mail} {forged}")
    assert refused.returncode != 0
    assert "501 5.5.4" in refused.stdout
    assert swaks(daemon, f"{mail} --xclient-optional {forged}").returncode == 0
    assert daemon.told("message")[0]["client"].startswith("127.0.0.1:")


@pytest.mark.slow
def test_a_login_lasts_until_the_next_xclient_or_tls(make_daemon: Make, who):
    """LOGIN is of its own command alone, as in Postfix, and what was said in the clear is forgotten under TLS
    (RFC 3207 4.2): it never comes back with a command that does not name it. The address stays."""
    mail = prepare(
        make_daemon(start=False), who.uid, more='[networks]\nxclient = ["127.0.0.1/32"]\ntrusted = []\n'
    )
    client = Talker(mail.daemon, listener="submission")

    def may_send() -> bool:
        assert client.say("EHLO c.example").startswith("250")
        said = client.say("MAIL FROM:<anna@test.local>")
        client.say("RSET")
        assert said.startswith(("250", "530 5.7.0"))
        return said.startswith("250")

    assert client.say("XCLIENT ADDR=192.0.2.7 LOGIN=anna").startswith("220 ")
    assert may_send()
    assert client.say("XCLIENT ADDR=192.0.2.8").startswith("220 ")
    assert not may_send()
    assert client.say("XCLIENT LOGIN=anna").startswith("220 ")
    assert may_send()
    client.start_tls()
    assert not may_send()
    assert client.say("XCLIENT NAME=mail.client.example").startswith("220 ")
    assert not may_send()
    assert client.say("XCLIENT LOGIN=anna").startswith("220 ")
    assert may_send()
    client.say("QUIT")
    assert mail.daemon.told("session")[0]["client"].startswith("192.0.2.8:")


@pytest.mark.parametrize("order", ["", "--xclient-before-starttls"])
def test_xclient_and_starttls_go_together(make_daemon: Make, who, order: str):
    """In either order: TLS stays where XCLIENT comes inside it."""
    daemon = make_daemon(config=MAY, start=False)
    daemon.config += Authority(daemon.folder).pair("mx.test.local").table("mx.test.local")
    daemon.write_config()
    for path in daemon.folder.iterdir():
        os.chown(path, who.uid, -1)
    daemon.start()
    done = swaks(daemon, f"--tls {order} --xclient-addr 192.0.2.7 --from a@example.org --to user@test.local")
    assert done.returncode == 0, done.stdout
    (path,) = wait_for(lambda: daemon.mailbox("user"), timeout_s=20)
    received = " ".join(email.message_from_bytes(path.read_bytes())["Received"].split())
    assert "[192.0.2.7]" in received
    assert "with ESMTPS" in received
