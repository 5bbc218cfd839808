"""How is Postfix run beside an installed one? Own configuration, queue, port; /etc/postfix stays as it is."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.bench.peers.cache import PROGRAMS
from tests.bench.peers.sink import postfix_version
from tests.bench.servers import Missing, Server, files, program, python

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
daemon_directory = {daemons}
command_directory = {commands}
myhostname = test.local
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
relay_domains = test.local
relay_transport = discard:
default_transport = discard:
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtputf8_enable = no
message_size_limit = 52428800
# Else it delays its own clients by a second once the queue is busy.
in_flow_delay = 0
milter_default_action = tempfail
"""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - {processes} smtpd {options}
policy     unix  -       n       n       -       0       spawn
  user=nobody argv={python} -I -S {folder}/policy.py
pickup     unix  n       -       n       60      1       pickup
cleanup    unix  n       -       n       -       0       cleanup
qmgr       unix  n       -       n       300     1       qmgr
rewrite    unix  -       -       n       -       -       trivial-rewrite
bounce     unix  -       -       n       -       0       bounce
defer      unix  -       -       n       -       0       bounce
trace      unix  -       -       n       -       0       bounce
verify     unix  -       -       n       -       1       verify
flush      unix  n       -       n       1000?   0       flush
proxymap   unix  -       -       n       -       -       proxymap
proxywrite unix  -       -       n       -       1       proxymap
smtp       unix  -       -       n       -       -       smtp
error      unix  -       -       n       -       -       error
retry      unix  -       -       n       -       -       error
discard    unix  -       -       n       -       -       discard
anvil      unix  -       -       n       -       1       anvil
scache     unix  -       -       n       -       1       scache
postlog    unix-dgram n  -       n       -       1       postlogd
"""


class Postfix(Server):
    """Workload A: its access map action DISCARD, nothing is queued."""

    name = "Postfix, DISCARD"
    options = "-o { smtpd_recipient_restrictions = check_recipient_access static:DISCARD }"
    processes = 250
    idle_limit = 1000  # a process each

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environment: dict[str, str] = {"MAIL_CONFIG": str(folder / "etc")}

    def launch(self) -> None:
        postfix = program("postfix")
        if os.geteuid() != 0:
            raise Missing("Postfix is started by root only")
        asked: list[str | Path] = [program("postconf"), "-dh", "daemon_directory", "command_directory"]
        daemons, commands = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        if not Path(daemons, "master").exists():
            raise Missing("there is no master in Postfix' daemon_directory")
        values = {
            "folder": self.folder,
            "port": self.port,
            "daemons": daemons,
            "commands": commands,
            "python": python(),
            "processes": self.processes,
            "options": self.options.replace("FOLDER", str(self.folder)),
        }
        for name in ("etc", "spool", "data"):
            (self.folder / name).mkdir()
        subprocess.run(["chown", "postfix", self.folder / "data"], check=True)
        (self.folder / "etc" / "main.cf").write_text(MAIN_CF.format(**values))
        (self.folder / "etc" / "master.cf").write_text(MASTER_CF.format(**values))
        for script in ("milter.py", "policy.py"):
            copy = self.folder / script
            copy.write_text((PROGRAMS / script).read_text())
            copy.chmod(0o644)
        # Makes the queue's folders, in our queue_directory.
        subprocess.run(
            [postfix, "-c", self.folder / "etc", "check"],
            capture_output=True,
            check=True,
            cwd=self.folder,
        )
        self.beside()
        # -d: in the foreground, no change of its session; so it stays in the tree of processes.
        self.running.start(
            Path(daemons, "master"), "-c", self.folder / "etc", "-d", environment=self.environment
        )

    def beside(self) -> None:
        """Start what it talks to."""

    def left(self) -> int | None:
        queues = ("incoming", "active", "deferred", "maildrop", "hold")
        found = (path for queue in queues for path in (self.folder / "spool" / queue).rglob("*"))
        return sum(1 for path in found if path.is_file())

    @classmethod
    def version(cls) -> str:
        return postfix_version()


class PostfixQueue(Postfix):
    """Workload B: queue file synced before 250, delivery by its discard transport."""

    name = "Postfix, queue + discard"
    options = ""


class PostfixHold(Postfix):
    """Workload B: queue file synced before 250, and kept."""

    name = "Postfix, queue, hold"
    options = "-o { smtpd_recipient_restrictions = check_recipient_access static:HOLD }"

    def counted(self) -> int | None:
        return files(self.folder / "spool" / "hold", "*")

    def left(self) -> int | None:
        return None


class PostfixIdle(Postfix):
    """Workload E: as many smtpd processes as connections are to be held, and some for real mail."""

    processes = 1100


class PostfixChecks(Postfix):
    """Workload C: B with a milter (sender, body) and a policy service (recipient)."""

    name = "Postfix, milter + policy, queue"
    options = (
        "-o smtpd_milters=unix:FOLDER/milter.sock "
        "-o { smtpd_recipient_restrictions = check_policy_service unix:private/policy, permit }"
    )

    def beside(self) -> None:
        self.running.start(python(), "-I", "-S", self.folder / "milter.py", self.folder / "milter.sock")
        for _ in range(200):
            if (self.folder / "milter.sock").exists():
                break
            time.sleep(0.02)
