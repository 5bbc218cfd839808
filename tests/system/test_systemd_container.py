"""The whole unit under a real systemd as PID 1: what an admin installs, on a machine of its own (box.py)."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.sandbox import cgroups
from tests.support.box import UNITS, Box, lack
from tests.support.people import installation
from tests.support.pki import Authority
from tests.support.uids import UID_BASE
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CONFIG = "/etc/forkd/forkd.toml"
LISTENERS = "".join(
    f'[listener.{name}]\naddress = "{host}:25"\n' for name, host in (("mx4", "0.0.0.0"), ("mx6", "[::]"))
)


def configured(listeners: str = LISTENERS) -> str:
    return (
        f'[server]\nhostname = "mx.test"\ndata_dir = "/var/lib/forkd"\n{listeners}\n'
        f'[sandbox]\nuid_base = {UID_BASE}\n[log]\nformat = "json"\n[domain."test.local"]\n'
    )


def seeds(**units: str) -> dict[str, str]:
    """Files of a machine that has forkd, its units, and drop-ins of forkd.service by name."""
    systemd = installation()[0] / "systemd"
    program = "PYTHONPATH=/opt/forkd PYTHONDONTWRITEBYTECODE=1 exec /opt/python/bin/python -m forkd"
    return {
        f"{UNITS}/forkd.service": (systemd / "forkd.service").read_text(),
        f"{UNITS}/forkd.socket": (systemd / "forkd.socket").read_text(),
        "/etc/sysusers.d/forkd.conf": (systemd / "forkd.sysusers").read_text(),
        "/etc/tmpfiles.d/forkd.conf": (systemd / "forkd.tmpfiles").read_text(),
        "/usr/local/bin/forkd": f'#!/bin/sh\n{program} "$@"\n',
        CONFIG: configured(),
        "/etc/forkd/plugins.d/10-block_senders.toml": (
            'plugin = "block_senders"\n[settings]\nsenders = ["blocked@example.org"]\n'
        ),
    } | {f"{UNITS}/forkd.service.d/{name}.conf": f"[Service]\n{text}" for name, text in units.items()}


class Machine:
    """A box with forkd on it; a test starts from the unit as it is shipped, stopped."""

    def __init__(self, box: Box) -> None:
        self.box = box
        for command in (
            ("systemd-sysusers",),
            ("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/forkd.conf"),
        ):
            done = box.run(*command)
            assert done.returncode == 0, done

    def systemctl(self, *words: str) -> None:
        done = self.box.run("systemctl", *words)
        assert done.returncode == 0, (done.stderr, self.box.journal("forkd"))

    def drop_in(self, text: str) -> None:
        path = self.box.path(f"{UNITS}/forkd.service.d/test.conf")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[Service]\n{text}\n")
        self.systemctl("daemon-reload")

    def pristine(self) -> None:
        self.systemctl("stop", "forkd.socket", "forkd.service")
        self.box.path(CONFIG).write_text(configured())
        self.drop_in("")
        self.box.run("systemctl", "reset-failed")

    @property
    def main_pid(self) -> str:
        return self.box.shown("forkd", "MainPID")["MainPID"]

    def events(self, kind: str) -> list[dict]:
        rows = self.box.journal("forkd").splitlines()
        found = [json.loads(row) for row in rows if row.startswith("{")]
        return [event for event in found if event["event"] == kind]

    def forkd(self, *words: str) -> str:
        done = self.box.run("forkd", *words, "--config", CONFIG)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def knocking(self, seconds: float, clients: int) -> list[str]:
        program = "/opt/forkd/tests/support/knocking.py"
        return self.box.command(
            "/opt/python/bin/python", program, "127.0.0.1", "25", str(seconds), str(clients)
        )

    def send(self) -> None:
        done = subprocess.run(self.knocking(0.1, 1), capture_output=True, text=True, check=True, timeout=120)
        account = json.loads(done.stdout)
        assert account["accepted"], (account, self.box.journal("forkd"))

    def titles(self) -> list[str]:
        """Of the processes in the service's cgroup."""
        done = self.box.run("systemctl", "status", "forkd", "--no-pager", "-l", "-n", "0")
        return done.stdout.splitlines()

    def mails(self) -> list[str]:
        folder = self.box.path("/var/lib/forkd/mail/test.local/knock/new")
        return [path.read_text() for path in folder.glob("*")]


@pytest.fixture(scope="module")
def box() -> Iterator[Machine]:
    if reason := lack():
        pytest.skip(reason)
    with Box(seeds()) as made:
        yield Machine(made)


@pytest.fixture
def machine(box: Machine) -> Machine:
    box.pristine()
    return box


def test_the_unit_serves_behind_its_walls(machine: Machine):
    """With all that the unit forbids, forkd's own walls stand too, and mail arrives."""
    machine.systemctl("start", "forkd")
    machine.send()
    wait_for(machine.mails, timeout_s=30)
    shown = machine.box.shown("forkd", "ActiveState", "SubState", "StatusText", "NRestarts")
    status = shown.pop("StatusText")
    assert shown == {"ActiveState": "active", "SubState": "running", "NRestarts": "0"}
    assert status.startswith("running: ")
    (tested,) = [event for event in machine.events("service") if event["act"] == "self_tested"][-1:]
    wanted = {
        "seccomp",
        "no_new_privs",
        "rlimits",
        "files",
        "landlock",
        "network",
        "namespaces",
        "uid",
        "roles",
    }
    assert wanted <= set(tested["enforced"])
    titles = "\n".join(machine.titles())
    for title in ("forkd: master [running]", "forkd: worker ", "forkd: qmgr ", "forkd: zygote block_senders"):
        assert title in titles
    machine.systemctl("stop", "forkd")
    assert machine.box.shown("forkd", "Result")["Result"] == "success"


def test_a_plugin_has_a_cgroup_below_the_services(machine: Machine):
    """Delegate=: one folder for each plugin, with its processes and limits.

    Where neither controller is here, it is made for its cgroup.kill, where there is no PID namespace."""
    machine.box.path(CONFIG).write_text(
        configured().replace("[sandbox]\n", '[sandbox]\nnamespaces = "off"\n')
    )
    machine.systemctl("start", "forkd")
    path = machine.box.shown("forkd", "ControlGroup")["ControlGroup"]
    top = machine.box.path(f"/sys/fs/cgroup{path}")
    (folder,) = top.glob("forkd-*/plugin-block_senders-*")
    assert (folder / "cgroup.procs").read_text().split()
    have = set((top / "cgroup.controllers").read_text().split()) & set(cgroups.CONTROLLERS)
    if not have:
        pytest.skip("cgroup controllers: this machine has pids and memory in version 1 alone, if at all")
    for name in have:
        assert (folder / f"{name}.max").read_text() != "max\n"


def test_a_restart_refuses_nobody(machine: Machine):
    """forkd.socket holds the address: a new version comes by `systemctl restart`, under load."""
    machine.systemctl("start", "forkd.socket", "forkd.service")
    had = len(machine.mails())
    first = machine.main_pid
    with subprocess.Popen(machine.knocking(12, 8), stdout=subprocess.PIPE, text=True) as clients:
        for _ in range(3):
            seen = len(machine.mails())
            wait_for(lambda seen=seen: len(machine.mails()) > seen + 20, timeout_s=60)
            machine.systemctl("restart", "forkd")
        account = json.loads(clients.communicate(timeout=120)[0])
    assert machine.main_pid != first
    assert (account["refused"], account["dropped"]) == (0, [])
    assert len(account["accepted"]) > 60
    wait_for(lambda: len(machine.mails()) - had == len(account["accepted"]), timeout_s=60)
    assert all(event.get("inherited") for event in machine.events("listening")[-2:])


def test_the_first_connection_starts_it(machine: Machine):
    """Socket activation: nobody had started the service, and the one who connects is served."""
    machine.systemctl("start", "forkd.socket")
    assert machine.box.shown("forkd", "ActiveState")["ActiveState"] == "inactive"
    machine.send()
    assert machine.box.shown("forkd", "ActiveState")["ActiveState"] == "active"


def test_what_is_on_one_side_alone_is_said(machine: Machine):
    """At start, and by `forkd status`: with the line that would mend it."""
    submission = '[listener.more]\naddress = "127.0.0.1:2525"\n'
    machine.box.path(CONFIG).write_text(configured(LISTENERS.partition("[listener.mx6]")[0] + submission))
    machine.systemctl("start", "forkd.socket", "forkd.service")
    status = " ".join(machine.forkd("status").split())
    assert "smtp of systemd holds [::]:25, which no [listener] of forkd.toml has" in status
    assert "[listener.more] 127.0.0.1:2525 did not come from systemd" in status
    assert "Add ListenStream=127.0.0.1:2525 to the socket unit" in status


def test_a_wrong_configuration_is_not_started_for_ever(machine: Machine):
    """Clients that wait in the socket would start it again and again: TriggerLimitBurst= ends that."""
    machine.box.path(CONFIG).write_text(configured() + "[nonsense]\n")
    machine.systemctl("start", "forkd.socket")
    client = subprocess.Popen(machine.knocking(0.1, 1), stdout=subprocess.PIPE, text=True)
    wait_for(
        lambda: machine.box.shown("forkd.socket", "ActiveState")["ActiveState"] == "failed", timeout_s=90
    )
    assert machine.box.shown("forkd.socket", "Result")["Result"] == "trigger-limit-hit"
    client.communicate(timeout=60)
    assert 2 < machine.box.journal("forkd").count("[nonsense]") < 50


def test_a_drain_outlasts_systemds_patience(machine: Machine):
    """STOPPING=1 starts TimeoutStopSec too; master asks for more time while its loop goes round."""
    machine.drop_in("TimeoutStopSec=2")
    machine.systemctl("start", "forkd")
    talk = (
        "import smtplib,sys\n"
        "c = smtplib.SMTP('127.0.0.1', 25, 'c.example', timeout=60); c.ehlo(); c.mail('a@example.org')\n"
        "print('in', flush=True); sys.stdin.readline()\n"
        "print(c.rcpt('knock@test.local')[0], c.data('Subject: drained\\r\\n\\r\\nx\\r\\n')[0], flush=True)\n"
    )
    command = machine.box.command("/opt/python/bin/python", "-c", talk)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin
        assert client.stdout
        assert client.stdout.readline() == "in\n"
        machine.systemctl("kill", "--signal=QUIT", "--kill-who=main", "forkd")
        began = time.monotonic()
        state = wait_for(lambda: machine.box.shown("forkd", "SubState")["SubState"].startswith("stop"))
        # The limit passes, and a little more: that it does is the test's subject.
        threading.Event().wait(5)
        assert state
        assert machine.box.shown("forkd", "ActiveState")["ActiveState"] == "deactivating"
        assert time.monotonic() - began > 4
        print("go", file=client.stdin, flush=True)
        assert client.stdout.readline() == "250 250\n"
    wait_for(lambda: machine.box.shown("forkd", "ActiveState")["ActiveState"] == "inactive", timeout_s=30)
    assert machine.box.shown("forkd", "Result")["Result"] == "success"


def test_systemd_ends_a_master_that_stands_still(machine: Machine):
    """WatchdogSec=: killed, started anew, and mail is taken again."""
    machine.drop_in("WatchdogSec=2\nLimitCORE=0")
    machine.systemctl("start", "forkd")
    first = machine.main_pid
    assert machine.box.run("kill", "-STOP", first).returncode == 0
    wait_for(lambda: machine.main_pid not in (first, "0"), timeout_s=60)
    wait_for(lambda: machine.box.shown("forkd", "SubState")["SubState"] == "running", timeout_s=60)
    assert machine.box.shown("forkd", "NRestarts")["NRestarts"] == "1"
    machine.send()


def test_a_worker_that_stands_still_is_masters_to_replace(machine: Machine):
    """No client and no plugin can make systemd end the service."""
    config = configured().replace("[server]\n", '[server]\nheartbeat = "2s"\nworkers = 1\n')
    machine.box.path(CONFIG).write_text(config)
    machine.drop_in("WatchdogSec=2")
    machine.systemctl("start", "forkd")
    first = machine.main_pid
    before = worker(machine)
    assert machine.box.run("kill", "-STOP", before).returncode == 0
    wait_for(lambda: worker(machine) not in ("", before), timeout_s=60)
    machine.send()
    assert (machine.main_pid, machine.box.shown("forkd", "NRestarts")["NRestarts"]) == (first, "0")


def worker(machine: Machine) -> str:
    """Its pid, as the box has it; empty: there is none."""
    rows = (row.partition('"forkd: worker')[0] for row in machine.titles() if '"forkd: worker' in row)
    return next((row.strip(" ├└─|-") for row in rows), "")


def test_a_key_comes_as_a_credential(machine: Machine, tmp_path: Path):
    """LoadCredential=: the file is root's alone, and lies where only the service sees it."""
    pair = Authority(tmp_path).pair("mx.test")
    folder = machine.box.path("/etc/forkd")
    (folder / "chain.pem").write_bytes(Path(pair.chain).read_bytes())
    secret = machine.box.path("/srv/mx.key")
    secret.parent.mkdir(exist_ok=True)
    secret.write_bytes(Path(pair.key).read_bytes())
    secret.chmod(0o600)
    machine.drop_in("LoadCredential=mx.key:/srv/mx.key")
    table = '[certificate."mx.test"]\nchain = "chain.pem"\nkey = "/run/credentials/forkd.service/mx.key"\n'
    machine.box.path(CONFIG).write_text(configured() + table)
    machine.systemctl("start", "forkd")
    talk = (
        "import smtplib, ssl\n"
        "c = smtplib.SMTP('127.0.0.1', 25, 'c.example', timeout=60)\n"
        "print(c.starttls(context=ssl._create_unverified_context())[0])\n"
    )
    assert machine.box.run("/opt/python/bin/python", "-c", talk).stdout == "220\n"


def test_the_journal_has_each_field(machine: Machine):
    """[log] format = "journal": from behind every role's walls, also when journald was started anew."""
    machine.box.path(CONFIG).write_text(configured().replace('"json"', '"journal"'))
    machine.systemctl("start", "forkd")
    seen = 0
    for _ in range(2):
        machine.send()
        rows = machine.box.run("journalctl", "-o", "json", "-q", "FORKD_EVENT=message").stdout.splitlines()
        assert len(rows) > seen, machine.box.journal("forkd")
        seen = len(rows)
        story = json.loads(rows[-1])
        assert (story["PRIORITY"], story["SYSLOG_IDENTIFIER"]) == ("6", "forkd")
        assert story["_SYSTEMD_UNIT"] == "forkd.service"
        session = machine.box.run(
            "journalctl", "-o", "cat", "-q", f"FORKD_SESSION={story['FORKD_SESSION']}"
        ).stdout
        assert "event=session " in session and "event=message " in session
        wait_for(
            lambda story=story: (
                machine.box.run(
                    "journalctl", "-q", "-o", "cat", "FORKD_EVENT=delivery", f"FORKD_ID={story['FORKD_ID']}"
                ).stdout
            ),
            timeout_s=60,
            what="qmgr's line",
        )
        machine.systemctl("restart", "systemd-journald")
    machine.box.path(CONFIG).write_text(configured())
    machine.systemctl("reload", "forkd")
    assert "log.format" in machine.box.journal("forkd"), "it says that this needs a restart"
    rows = machine.box.run("journalctl", "-q", "-o", "cat", "FORKD_ACT=reloaded").stdout
    assert "log.format" in rows


def test_a_reload_is_as_good_as_its_exit_status(machine: Machine):
    """ExecReload= waits. Done: the new configuration is in force. Failed: the old one is, and why is said."""
    machine.systemctl("start", "forkd")
    first = machine.main_pid
    greeting = configured().replace("[server]\n", '[server]\ngreeting = "changed"\n')
    machine.box.path(CONFIG).write_text(greeting)
    machine.systemctl("reload", "forkd")
    talk = "import socket; print(socket.create_connection(('127.0.0.1', 25), 60).recv(200).decode())"
    assert "changed" in machine.box.run("/opt/python/bin/python", "-c", talk).stdout
    moved = greeting.replace("/var/lib/forkd", "/var/lib/forkd/new")
    machine.box.path(CONFIG).write_text(moved)
    machine.systemctl("reload", "forkd")
    assert "server.data_dir" in machine.box.journal("forkd"), "it was asked, and says what it cannot do"
    machine.box.path(CONFIG).write_text(greeting + "[nonsense]\n")
    assert machine.box.run("systemctl", "reload", "forkd").returncode != 0
    assert "nonsense" in machine.box.journal("forkd")
    serious = machine.box.journal("forkd", "-p", "err")
    assert '"not_reloaded"' in serious and '"reloaded"' not in serious, "priorities are the log's levels"
    machine.send()
    shown = machine.box.shown("forkd", "MainPID", "SubState", "NRestarts")
    assert shown == {"MainPID": first, "SubState": "running", "NRestarts": "0"}


def test_a_start_outlasts_systemds_patience(machine: Machine):
    """A plugin that loads slowly, a qmgr with a large spool: within our limits, beyond TimeoutStartSec."""
    folder = machine.box.path("/etc/forkd")
    (folder / "slow").mkdir(mode=0o755)
    (folder / "slow/plugin.toml").write_text(MANIFEST)
    (folder / "slow/slow.py").write_text(MODULE)
    entry = folder / "plugins.d/50-slow.toml"
    entry.write_text('plugin = "../slow"\n')
    machine.drop_in("TimeoutStartSec=5")
    try:
        machine.systemctl("start", "forkd")
        assert machine.box.shown("forkd", "NRestarts")["NRestarts"] == "0"
    finally:
        entry.unlink()


MANIFEST = 'name = "slow"\nversion = "1"\napi = 1\nhooks = ["mail"]\n'
MODULE = (
    "import time\nfrom forkd.sdk import Plugin\ntime.sleep(8)\n\n\n"
    "def plugin_init(settings):\n    return Plugin(mail=lambda session, sender: None)\n"
)
