"""When and where plugins run, as the admin says, seen from the wire: fresh, reuse, group, scope, times, and
how the places for sandboxes are shared out."""

from __future__ import annotations

import re
import smtplib
import time
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import Make

ONE_WORKER = "workers = 1\n"
NOBODY_TRUSTED = "[networks]\ntrusted = []\n"


def entry(plugin: str = "probe", more: str = "", grants: str = "", **limits: str) -> str:
    lines = "\n".join(f"{name} = {value}" for name, value in limits.items())
    return f'plugin = "../{plugin}"\n{more}\n[grants]\n{grants}\n[limits]\nspare = 0\n{lines}\n'


PROBE_GRANTS = 'export = ["PROBE"]'


def probe(more: str = "", **limits: str) -> dict[str, str]:
    return {"10-probe.toml": entry("probe", more, PROBE_GRANTS, **limits)}


def client_of(daemon: Daemon, source: str = "127.0.0.1", helo: str = "c.example") -> smtplib.SMTP:
    client = smtplib.SMTP(local_hostname=helo, timeout=30, source_address=(source, 0))
    daemon.clients.append(client)
    assert client.connect("127.0.0.1", daemon.port)[0] == 220
    client.ehlo()
    return client


def tell(client: smtplib.SMTP) -> tuple[int, int, str]:
    """Process, sessions met, all of it."""
    code, text = client.mail("tell@example.org")
    assert code == 550, (code, text)
    said = " ".join(text.decode().replace("5.7.1 ", "").split())
    found = re.search(r"pid=(\d+) met=(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2]), said


def deliver(
    client: smtplib.SMTP, sender: str = "a@example.org", to: str = "user@test.local"
) -> tuple[int, bytes]:
    """The reply to the command that was refused, or to the end of data."""
    client.rset()
    for reply in (client.mail(sender), client.rcpt("user@test.local")):
        if reply[0] != 250:
            return reply
    try:
        return client.data(b"Subject: x\r\n\r\nhello\r\n")
    except smtplib.SMTPDataError as refusal:
        return refusal.smtp_code, refusal.smtp_error if isinstance(refusal.smtp_error, bytes) else b""


def failures(daemon: Daemon) -> list[dict[str, Any]]:
    return daemon.events("plugin_failure")


# --- fresh, reuse, group ---------------------------------------------------------------------------------


def test_fresh_call_keeps_nothing_and_holds_nothing(make_daemon: Make) -> None:
    """limits.fresh = "call": each call has a process of its own, and between calls there is none."""
    daemon = make_daemon(copy=("probe",), plugins=probe(fresh='"call"'))
    before = len(daemon.pids())
    client = client_of(daemon)
    first, met, said = tell(client)
    assert (met, "notes=['sender']" in said) == (0, True)
    assert "facts=('c.example', '', 'c.example')" in said, "facts and exports are told again"
    second, *_ = tell(client)
    assert second != first
    wait_for(lambda: len(daemon.pids()) == before)
    assert deliver(client)[0] == 250
    assert client.mail("crash@example.org")[0] == 421
    assert deliver(client_of(daemon))[0] == 250


def test_reuse_serves_so_many_sessions_and_forgets_each(make_daemon: Make) -> None:
    """limits.reuse = 3: one process for three sessions, whose facts and notes do not meet; then a new one."""
    daemon = make_daemon(server=ONE_WORKER, copy=("probe",), plugins=probe(reuse="3"))
    seen = []
    for number in range(4):
        client = client_of(daemon, helo=f"c{number}.example")
        pid, met, said = tell(client)
        seen.append((pid, met))
        assert "notes=['helo', 'sender']" in said
        assert f"facts=('c{number}.example', '', 'c{number}.example')" in said
        client.quit()
        wait_for(lambda n=number: len(daemon.events("session")) == n + 1)
    pids, mets = zip(*seen, strict=True)
    assert mets == (1, 2, 3, 1), "the plugin's own memory is what reuse gives up"
    assert len(set(pids[:3])) == 1
    assert pids[3] != pids[0]


def test_a_crash_in_a_reused_process_costs_its_session_only(make_daemon: Make) -> None:
    daemon = make_daemon(server=ONE_WORKER, copy=("probe",), plugins=probe(reuse="1000"))
    idle = client_of(daemon)
    pid, *_ = tell(idle)
    assert client_of(daemon).mail("crash@example.org")[0] == 421
    assert [f["cause"] for f in daemon.told("plugin_failure")] == ["crash"]
    assert deliver(client_of(daemon))[0] == 250
    assert tell(idle)[0] == pid


def grouped() -> dict[str, str]:
    return {
        "10-probe.toml": entry("probe", 'group = "both"', PROBE_GRANTS),
        "20-second.toml": entry("second", 'group = "both"', 'reads = ["envelope"]'),
    }


def test_a_group_is_one_process_with_the_grants_and_the_failures_of_all(make_daemon: Make) -> None:
    """group: members in order, each after the one before; the log names who spoke."""
    daemon = make_daemon(server=ONE_WORKER, copy=("probe", "second"), plugins=grouped())
    before = len(daemon.pids())
    client = client_of(daemon)
    code, text = client.mail("exported@example.org")
    assert code == 550
    assert b"[('PROBE', 'c.example')]" in text, "the second sees what the first exported"
    assert len(daemon.pids()) == before + 1
    client.mail("seen@example.org")
    replies = [client.rcpt(f"{to}@test.local")[1] for to in ("where", "pid")]
    assert len({re.findall(rb"pid=(\d+)", reply)[0] for reply in replies}) == 1
    assert client.rcpt("user@test.local")[0] == 250
    code, text = client.docmd("DATA")
    assert (code, b"saw seen@example.org" in text) == (550, True), "the second's grant is the group's"
    assert client.mail("crash@example.org")[0] == 421
    assert [(f["plugin"], f["cause"]) for f in daemon.told("plugin_failure")] == [("both", "crash")]
    told = " ".join(str(event.get("plugins")) for event in daemon.events())
    assert "both.second" in told, daemon.log_text()


# --- scope -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scope_by_network_listener_and_domain(make_daemon: Make) -> None:
    """Asked for matching clients at all hooks; for matching recipients at rcpt, and at no earlier hook."""
    scopes = {"networks": '["127.0.7.0/24"]', "domains": '["OTHER.local"]', "listeners": '["second"]'}
    for name, value in scopes.items():
        daemon = make_daemon(
            config='[domain."test.local"]\n[domain."other.local"]\n[listener.second]\n'
            'address = "127.0.0.1:0"\n',
            copy=("probe",),
            plugins={
                "10-probe.toml": f'plugin = "../probe"\n[grants]\n{PROBE_GRANTS}\n[scope]\n{name} = {value}\n'
            },
        )
        by_name = {e["listener"]: int(e["address"].rpartition(":")[2]) for e in daemon.events("listening")}
        daemon.port = by_name["default"]
        client = client_of(daemon)
        assert client.mail("tell@example.org")[0] == 250, name
        assert client.rcpt("where@test.local")[0] == 250, name
        if name == "domains":
            assert client.rcpt("where@other.local")[0] == 550
            assert deliver(client)[0] == 250
            continue
        client.close()  # a stop would wait for its transaction
        if name == "listeners":
            daemon.port = by_name["second"]
        assert client_of(daemon, "127.0.7.1").mail("tell@example.org")[0] == 550, name
        daemon.stop()


# --- times -----------------------------------------------------------------------------------------------


SHORT = {"session_time": '"500ms"', "timeout": '"400ms"', "message_timeout": '"400ms"'}


@pytest.mark.slow
def test_session_time_is_for_all_calls_of_a_session(make_daemon: Make) -> None:
    """limits.session_time: many calls within limits.timeout cannot hold a session for ever."""
    daemon = make_daemon(copy=("probe",), plugins=probe(**SHORT))
    client = client_of(daemon)
    codes = []
    for _ in range(10):
        codes.append(client.mail("sleep-200@example.org")[0])
        if codes[-1] != 250:
            break
        client.rset()
    assert codes[-1] == 421
    assert len(codes) <= 4
    assert daemon.told("plugin_failure")[-1]["cause"] == "deadline"
    assert deliver(client_of(daemon))[0] == 250


@pytest.mark.slow
def test_message_budget_is_for_all_plugins_at_a_message(make_daemon: Make) -> None:
    """sandbox.message_budget: who is not asked by then is overload, 451 4.3.2, and no failure."""
    plugins = {
        "10-probe.toml": entry("probe", grants=PROBE_GRANTS),
        "20-second.toml": entry("second", grants='reads = ["envelope"]'),
    }
    daemon = make_daemon(
        config='[sandbox]\nmessage_budget = "1s"\n', copy=("probe", "second"), plugins=plugins
    )
    code, text = deliver(client_of(daemon), "last@example.org")
    assert (code, b"second was asked" in text) == (550, True)
    code, text = deliver(client_of(daemon), "sleep-1500@example.org")
    assert (code, text[:5]) == (451, b"4.3.2")
    assert not failures(daemon)
    assert daemon.events("overload")[-1]["what"] == "plugin probe"
    assert deliver(client_of(daemon))[0] == 250


# --- sandboxes: who gets one ----------------------------------------------------------------------------


@pytest.fixture
def crowded(make_daemon: Make) -> Daemon:
    """16 places in one worker: a network holds two; nobody waits long."""
    return make_daemon(
        server=ONE_WORKER,
        config=f'{NOBODY_TRUSTED}[sandbox]\noverload_wait = "700ms"\n',
        copy=("probe",),
        plugins=probe(sandboxes="16"),
    )


def still_there(client: smtplib.SMTP) -> bool:
    """Whether the session lives; one that gave way has 421 4.3.2 as its last reply."""
    try:
        code, text = client.noop()
    except smtplib.SMTPServerDisconnected:
        return False
    assert (code, text[:5]) in ((250, b"2.0.0"), (421, b"4.3.2")), (code, text)
    return code == 250


def test_a_network_that_holds_many_idle_pays_for_it_alone(crowded: Daemon) -> None:
    """Its third session makes its own longest idle one give way, and no other network's."""
    others = [client_of(crowded, f"127.0.{net}.1") for net in range(20, 24)]
    flood = [client_of(crowded, f"127.0.9.{host}") for host in range(1, 6)]
    assert [still_there(client) for client in flood] == [False, False, False, True, True]
    assert all(map(still_there, others))
    assert not failures(crowded)


def test_when_all_places_are_held_the_longest_idle_gives_way(crowded: Daemon) -> None:
    """421 4.3.2 to it, whatever network it is of; the newcomer is served. Strangers have three quarters."""
    held = [client_of(crowded, f"127.0.{30 + n // 2}.{n + 1}") for n in range(12)]
    newcomer = client_of(crowded, "127.0.60.1")
    assert deliver(newcomer)[0] == 250
    assert [still_there(client) for client in held] == [False] + [True] * 11


def test_who_is_in_the_middle_of_mail_gives_way_last(crowded: Daemon) -> None:
    """Longest idle of all, but between MAIL and the end of data."""
    held = [client_of(crowded, f"127.0.{30 + n // 2}.{n + 1}") for n in range(12)]
    assert held[0].mail("a@example.org")[0] == 250
    held[1].ehlo()
    later = time.monotonic() + 0.01  # a loop's clock has milliseconds: within one, all are idle alike
    while time.monotonic() < later:
        held[2].ehlo()
    for client in held[3:]:
        client.ehlo()
    assert deliver(client_of(crowded, "127.0.60.1"))[0] == 250
    assert [still_there(client) for client in held] == [True, False] + [True] * 10


def test_a_crowd_of_strangers_keeps_no_known_network_out(crowded: Daemon) -> None:
    """However many networks they are: a quarter of the places is for those whose last session ended well."""
    with smtplib.SMTP(local_hostname="c", timeout=30, source_address=("127.0.60.1", 0)) as first:
        first.connect("127.0.0.1", crowded.port)
        first.ehlo()
        assert deliver(first)[0] == 250
    assert crowded.told("session", 1)
    busy = [client_of(crowded, f"127.0.{30 + n // 2}.{n + 1}") for n in range(12)]
    for client in busy:
        client.putcmd("MAIL FROM:<sleep-2500@example.org>")
    assert deliver(client_of(crowded, "127.0.60.2"))[0] == 250
    stranger = smtplib.SMTP(local_hostname="c", timeout=30, source_address=("127.0.61.1", 0))
    crowded.clients.append(stranger)
    stranger.connect("127.0.0.1", crowded.port)
    assert stranger.ehlo()[0] == 451
    assert [client.getreply()[0] for client in busy] == [250] * 12
    assert not failures(crowded)


def test_what_does_not_fit_is_overload_and_no_failure(crowded: Daemon) -> None:
    """Two calls in flight are the network's share: the third waits overload_wait and has 451 4.3.2."""
    busy = [client_of(crowded, f"127.0.9.{n}") for n in (1, 2)]
    for client in busy:
        client.putcmd("MAIL FROM:<sleep-2500@example.org>")
    third = smtplib.SMTP(local_hostname="c", timeout=30, source_address=("127.0.9.3", 0))
    crowded.clients.append(third)
    third.connect("127.0.0.1", crowded.port)
    code, text = third.ehlo()
    assert (code, text[:5]) == (451, b"4.3.2")
    assert deliver(client_of(crowded, "127.0.10.1"))[0] == 250, "another network has its own share"
    assert [client.getreply()[0] for client in busy] == [250, 250]
    assert not failures(crowded)
    assert crowded.events("overload")


def test_a_client_that_crashes_a_scanner_again_and_again_hurts_itself(crowded: Daemon) -> None:
    """Nobody can switch a check off for others."""
    for _ in range(40):
        assert client_of(crowded, "127.0.9.1").mail("crash@example.org")[0] == 421
    client = client_of(crowded, "127.0.10.1")
    assert tell(client)[1] == 1
    assert deliver(client)[0] == 250
    assert {f["cause"] for f in failures(crowded)} == {"crash"}
