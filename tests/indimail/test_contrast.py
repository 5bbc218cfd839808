"""What IndiMail's qmail-smtpd does to whoever runs plugins, and what the same plugins do here.

| the original                                                | here, through the real daemon                |
|-------------------------------------------------------------|----------------------------------------------|
| MAIL A, MAIL B (refused), RCPT, DATA: queued with sender B  | a refused sender is never one; A stays       |
| a refused DATA leaves a process and three descriptors       | nothing is left                              |
| SIGSEGV or exit() in a plugin: the session ends, no reply   | 421, and the log says whose fault it was     |
| a plugin that sleeps: the session hangs as long             | 421 at its deadline                          |
| *mesg not set: memory of the process goes to the client     | a text of ours; a crash at worst, and 421    |
| a text without line end: the client waits for ever          | the line end is added                        |
| "250 ..." with a refusal: told as success                   | refused with 550                             |
| "421 ...": the session goes on                              | it is closed                                 |
| ten numbered plugins: an endless loop as a session begins   | asked in order, as many as there are         |
| a plugin that cannot be loaded: 220, then 451 with its path | forkd does not start, the client hears none  |
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from forkd.exits import Exit
from forkd.sdk.fakes import FakeDns
from forkd.sdk.testing import assert_denied, load_plugin
from tests.indimail.compiling import compiled, entry, folder, row
from tests.support.daemon import Daemon
from tests.support.talker import Talker
from tests.support.waiting import wait_for
from tests.system.conftest import Make

ROOT = Path(__file__).parent.parent.parent
LIMITS = '[limits]\ntimeout = "1s"\nmessage_timeout = "1s"\n'


def plugins(**entries: str) -> dict[str, str]:
    """In alphabetical order."""
    return {f"{order:02}-{name}.toml": text for order, (name, text) in enumerate(entries.items(), start=10)}


EXPORTER = """
name = "exporter"
version = "1"
api = 1
hooks = ["mail"]
[wants.powers]
export = { names = ["SPFRESULT"], reason = "for those after it" }
"""
EXPORTS = """
from forkd.sdk import Plugin, export

def plugin_init(settings):
    return Plugin(mail=lambda session, sender: export("SPFRESULT", "softfail"))
"""
RELAYING = '[scope]\nnetworks = ["127.0.0.2"]\n'

CONFIG = """
[networks]
relay = ["127.0.0.2"]
[queue]
relay_transport = "local"
[listener.strict]
address = "127.0.0.1:0"
[domain."test.local"]
[domain."early.local"]
[domain."late.local"]
"""


@pytest.fixture(scope="module")
def exporter() -> Path:
    place = folder() / f"exporter-{os.getpid()}"
    place.mkdir(exist_ok=True)
    (place / "plugin.toml").write_text(EXPORTER)
    (place / "exporter.py").write_text(EXPORTS)
    return place


@pytest.fixture
def all_of_them(share_daemon: Make, exporter: Path) -> Daemon:
    """One daemon with plugins for all tests; what would disturb others is asked for some clients only."""
    return share_daemon(
        config=CONFIG,
        plugins=plugins(
            a=f'plugin = "{exporter}"\n[grants]\nexport = ["SPFRESULT"]\n{RELAYING}',
            b=entry(compiled("echo"), f'environment = {{ DNSBLLIST = "list" }}\n{RELAYING}'),
            c=entry(compiled("sender"), 'refusal = "session"\n[scope]\nlisteners = ["strict"]\n'),
            early=entry(compiled("echo"), 'data_at = "command"\n[scope]\ndomains = ["early.local"]\n'),
            faults=entry(compiled("faults"), LIMITS),
            late=entry(compiled("echo"), '[scope]\ndomains = ["late.local"]\n'),
            row=entry(row(*range(11))),
            sender=entry(compiled("sender"), '[scope]\nlisteners = ["default"]\n'),
        ),
    )


def deliver(client: Talker, sender: str, recipient: str, domain: str = "test.local") -> str:
    """One mail in a session that has said EHLO; the last reply."""
    for line in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}@{domain}>", "DATA"):
        reply = client.say(line)
        if reply[0] not in "23":
            return reply
    return client.say("Subject: x\r\n\r\nhello\r\n.")


def test_a_refused_sender_never_becomes_the_sender(all_of_them: Daemon):
    """The original queues the mail with the sender that its plugin refused."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    assert client.say("MAIL FROM:<first@c.example>").startswith("250")
    assert client.say("MAIL FROM:<permanent@c.example>")[0] == "5"
    assert client.say("RCPT TO:<bypass@test.local>").startswith("250")
    client.say("DATA")
    assert client.say("Subject: x\r\n\r\nhello\r\n.").startswith("250")
    (mail,) = wait_for(lambda: all_of_them.mailbox("bypass"))
    assert "Return-Path: <first@c.example>" in mail.read_text()
    # And where no sender was accepted before, there is none.
    assert client.say("MAIL FROM:<permanent@c.example>").startswith("550 5.7.1 not from you")
    assert client.say("RCPT TO:<bypass@test.local>").startswith("503")


def test_only_the_command_is_refused_and_the_session_goes_on(all_of_them: Daemon):
    """As in the original, whatever its manual says."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    for _ in range(3):
        assert deliver(client, "temporary@c.example", "goes_on").startswith("451 4.7.1 come again\r\n")
    assert deliver(client, "fine@c.example", "goes_on").startswith("250")


TEXTS = {
    "nocrlf": "550 5.7.1 no line end\r\n",
    "success": "550 5.7.1 Refused by a check of this server\r\n",
    "null": "550 5.7.1 Refused by a check of this server\r\n",
    "inject": "550 5.7.1 Refused by a check of this server\r\n",
    "long": "550 5.7.1 Refused by a check of this server\r\n",
}


def test_the_client_gets_one_whole_reply_and_no_memory_of_ours(all_of_them: Daemon):
    """No text, one without end, a success: each is one refusal with a line end; the next command works."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    for local, reply in TEXTS.items():
        assert client.say(f"MAIL FROM:<{local}@c.example>") == reply
    assert client.say("NOOP").startswith("250")


def test_421_closes(all_of_them: Daemon):
    """The original goes on after it."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    assert client.say("MAIL FROM:<close@c.example>").startswith("421 4.7.0 go away\r\n")
    assert client.read() == ""


@pytest.mark.parametrize(
    "how",
    ["segv", "sleep", *(pytest.param(how, marks=pytest.mark.slow) for how in ("abort", "exit0", "blocked"))],
)
def test_harm_costs_its_own_session_and_no_other(all_of_them: Daemon, how: str):
    """Crash, exit and a sleep of 40 s: 421 to that client; a session beside it does not notice."""
    beside = Talker(all_of_them)
    beside.say("EHLO c.example")
    beside.say("MAIL FROM:<beside@c.example>")
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    started = time.monotonic()
    reply = client.say(f"MAIL FROM:<{how}@c.example>")
    assert reply.startswith("421 4.3.0 ") and "faults" not in reply and ".so" not in reply
    assert client.read() == ""
    assert time.monotonic() - started < 10, "its deadline is one second"
    assert beside.say(f"RCPT TO:<beside-{how}@test.local>").startswith("250")
    beside.say("DATA")
    assert beside.say("Subject: x\r\n\r\nhello\r\n.").startswith("250")
    assert wait_for(lambda: all_of_them.mailbox(f"beside-{how}"))
    told = wait_for(lambda: [e for e in all_of_them.events("plugin_failure") if e["plugin"] == "faults"])
    assert all(event["hook"] == "mail" for event in told)


@pytest.mark.parametrize("how", ["segv", pytest.param("sleep", marks=pytest.mark.slow)])
def test_harm_at_the_end_of_data_keeps_no_mail(all_of_them: Daemon, how: str):
    """421 to the last dot: the client knows that nothing was taken, and comes again."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    assert deliver(client, "fine@c.example", f"data-{how}").startswith("421 4.3.0 ")
    assert client.read() == ""
    assert not all_of_them.mailbox(f"data-{how}")


def test_refused_data_leaves_nothing_behind(all_of_them: Daemon):
    """The original keeps a blocked queue program and three descriptors for each until the session ends."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    workers = all_of_them.role("worker")

    def refused() -> None:
        reply = deliver(client, "fine@c.example", "pass", "late.local")
        assert reply.startswith("550 5.7.1 data ")

    def held() -> int:
        return sum(len([*Path(f"/proc/{pid}/fd").iterdir()]) for pid in workers)

    refused()  # the session has all its sandboxes then
    before, processes = held(), len(all_of_them.pids())
    for _ in range(20):
        refused()
    # Spare sandboxes come and go: four descriptors each, two for a plugin and worker.
    wait_for(lambda: held() < before + 20 and len(all_of_them.pids()) < processes + 10)
    assert not all_of_them.mailbox("pass", "late.local")
    assert not [*(all_of_them.var / "spool" / "tmp").rglob("*.*")]


def test_more_than_ten_plugins(all_of_them: Daemon):
    """The original loops for ever where 0 to 9 are all there."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    for number in (0, 9, 10):
        assert client.say(f"MAIL FROM:<{number}@c.example>") == f"550 5.7.1 I am number {number}\r\n"
    assert client.say("MAIL FROM:<11@c.example>").startswith("250")


def test_the_dnsbl_plugin_lets_no_second_mail_of_a_listed_client_through():
    """The original's refuses the first one only."""
    names = {"7.2.0.192.bl.example": {"a": ["127.0.0.2"]}}
    dnsbl = load_plugin(ROOT / "plugins" / "dnsbl", settings={"zones": ["bl.example"]})
    client = dnsbl.session(client_ip="192.0.2.7", dns=FakeDns(names))
    client.connect()
    client.helo("c.example")
    for sender in ("first@c.example", "second@c.example", "third@c.example"):
        client.mail(sender)
        for recipient in ("a@test.local", "b@test.local"):
            assert_denied(client.rcpt(recipient), code=550)


# --- at the start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [1, *(pytest.param(how, marks=pytest.mark.slow) for how in (3, 4, 8))])
def test_a_broken_plugin_is_no_start_and_no_220(make_daemon: Make, how: int):
    """One clear line for the admin, and not a single greeting; the original greets, then shows its path."""
    broken = compiled("unusable", f"-DHOW={how}")
    daemon = make_daemon(start=False, plugins=plugins(broken=entry(broken)))
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(60) == Exit.PLUGIN, daemon.log_text()
    assert not daemon.events("connect") and not [e for e in daemon.events("service") if e["act"] == "ready"]
    (told,) = [event for event in daemon.events("service") if event["act"] == "failed"]
    assert str(broken) in told["detail"] and "\n" not in told["detail"]


@pytest.mark.slow
def test_a_file_that_changes_is_not_loaded_and_nobody_hears_why(make_daemon: Make):
    """What was tried at the start is what runs: another file is a failure, told to the admin alone."""
    file = folder() / f"changing-{os.getpid()}-{time.monotonic_ns()}.so"
    file.write_bytes(compiled("template").read_bytes())
    file.chmod(0o755)
    daemon = make_daemon(plugins=plugins(changing=entry(file)))
    client = Talker(daemon)
    client.say("EHLO c.example")
    assert client.say("MAIL FROM:<a@c.example>").startswith("250")
    # The same file still, whatever a backup or an admin does to its entry.
    file.chmod(0o555)
    os.link(file, file.with_suffix(".backup"))
    client = Talker(daemon)
    client.say("EHLO c.example")
    assert client.say("MAIL FROM:<a@c.example>").startswith("250")
    with file.open("r+b") as there:
        there.write(b"no shared object")
    client = Talker(daemon)
    client.say("EHLO c.example")
    reply = client.say("MAIL FROM:<a@c.example>")
    assert reply.startswith("421 4.3.0 ") and str(file) not in reply
    (told,) = daemon.told("plugin_failure")
    assert "changed on disk" in told["detail"]


# --- the admin's choices ----------------------------------------------------------------------------------


def test_refusal_session(all_of_them: Daemon):
    """`refusal = "session"`: the reply as the plugin has it, then the end, as the manual says."""
    client = Talker(all_of_them, listener="strict")
    client.say("EHLO c.example")
    assert client.say("MAIL FROM:<permanent@c.example>").startswith("550 5.7.1 not from you\r\n")
    assert client.read() == ""


def test_data_at_command(all_of_them: Daemon):
    """`data_at = "command"`: asked before 354, as in 2011; by default after the data."""
    client = Talker(all_of_them)
    client.say("EHLO c.example")
    for domain, command, end in (("early", "550 5.7.1 data ", ""), ("late", "354", "550 5.7.1 data ")):
        client.say("MAIL FROM:<a@c.example>")
        assert client.say(f"RCPT TO:<pass@{domain}.local>").startswith("250")
        assert client.say("DATA").startswith(command)
        if end:
            assert client.say("Subject: x\r\n\r\nhello\r\n.").startswith(end)
        client.say("RSET")


def test_facts_of_a_real_session(all_of_them: Daemon):
    """RELAYCLIENT for clients of networks.relay, SPFRESULT from a plugin before, what the admin sets."""
    client = Talker(all_of_them, source="127.0.0.2")
    client.say("EHLO c.example")
    facts = {
        "RELAYCLIENT": "(empty)",
        "SPFRESULT": "softfail",
        "DNSBLLIST": "list",
        "TCPREMOTEIP": "127.0.0.2",
    }
    for name, value in facts.items():
        reply = client.say(f"MAIL FROM:<env-{name.lower()}@c.example>")
        assert reply.startswith(f"550 5.7.1 {name}={value},{value} of ")


def test_reuse_is_refused_by_the_configuration(make_daemon: Make):
    """Statics must not outlive a session."""
    daemon = make_daemon(start=False, plugins=plugins(x=entry(compiled("echo"), "[limits]\nreuse = 2\n")))
    done = daemon.forkd("config", "check", "--config", "forkd.toml")
    assert done.returncode == Exit.CONFIG and "static memory" in done.stderr + done.stdout
