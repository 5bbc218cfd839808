"""Real mail servers as senders: Postfix and Exim, each with a configuration and a spool of its own.

They take mail on a loopback port of theirs and relay all of it to one address. Both need root, since both
drop to users of their own; Exim's package and Postfix' exclude each other, so Exim is unpacked, not
installed (tools/setup.sh test).
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import children, free_port, kill_left
from tests.support.waiting import wait_for

ROOT = Path(__file__).parent.parent.parent
UNPACKED = ROOT / ".venv" / "debian"
"""Where tools/setup.sh unpacks Debian packages that cannot be installed."""


@dataclasses.dataclass
class Sender:
    """A running mail server.

    port    where it takes mail for any domain
    folder  its configuration, spool and logs
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def wait_ready(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.log_text()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                    return probe.recv(3) == b"220"
            except OSError:
                return False

        wait_for(answers, timeout_s=30)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self) -> None:
        """End it and what it started."""
        left = children(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        kill_left(left)
        shutil.rmtree(self.folder, ignore_errors=True)


def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a mail server that drops to a user of its own")


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")


def _ready(sender: Sender) -> Sender:
    try:
        sender.wait_ready()
    except BaseException:
        sender.stop()
        raise
    return sender


def start_postfix(folder: Path, *, relay_to: int, settings: str = "") -> Sender:
    """Postfix with its own queue; everything it takes goes to 127.0.0.1:relay_to."""
    _needs_root()
    if shutil.which("postconf") is None:
        pytest.skip("postfix is not installed: apt-get install postfix")
    etc, queue, data = folder / "etc", folder / "queue", folder / "data"
    for path in (etc, queue, data):
        path.mkdir(parents=True)
    folder.chmod(0o755)
    shutil.chown(data, "postfix")
    port = free_port()
    log = folder / "postfix.log"
    libraries = subprocess.run(
        ["postconf", "-dh", "daemon_directory"], capture_output=True, text=True, check=True
    )
    (etc / "main.cf").write_text(f"""compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
mail_owner = postfix
setgid_group = postdrop
daemon_directory = {libraries.stdout.strip()}
maillog_file = {log}
maillog_file_prefixes = {folder}
myhostname = sender.example
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{relay_to}
smtp_host_lookup = native
smtp_dns_support_level = disabled
in_flow_delay = 0
minimal_backoff_time = 5s
queue_run_delay = 5s
maximal_backoff_time = 10s
{settings}
""")
    (etc / "master.cf").write_text(f"""127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 5 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
""")
    # The script around Postfix makes the folders of its queue, then becomes its master.
    return _ready(Sender(folder, port, _spawn(["postfix", "-c", str(etc), "start-fg"], log), log))


def find_exim() -> str:
    """Exim's program: installed, or unpacked by tools/setup.sh."""
    for candidate in (UNPACKED / "exim4" / "usr" / "sbin" / "exim4", Path("/usr/sbin/exim4")):
        if candidate.exists():
            return str(candidate)
    pytest.skip("exim is not here: `make test` as root unpacks Debian's exim4-daemon-light")


def start_exim(folder: Path, *, relay_to: int, transport: str = "") -> Sender:
    """Exim with its own spool; everything it takes goes to 127.0.0.1:relay_to, at once."""
    _needs_root()
    program = find_exim()
    try:
        pwd.getpwnam("Debian-exim")
    except KeyError:
        pytest.skip("the user Debian-exim does not exist: `make test` as root makes it")
    for path in (folder / "spool", folder / "log"):
        path.mkdir(parents=True)
        shutil.chown(path, "Debian-exim")
    folder.chmod(0o755)
    port = free_port()
    config = folder / "exim.conf"
    config.write_text(f"""primary_hostname = sender.example
exim_path = {program}
deliver_drop_privilege = true
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/exim.pid
local_interfaces = <; [127.0.0.1]:{port}
daemon_smtp_ports = {port}
acl_smtp_rcpt = all
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
queue_run_max = 2
remote_max_parallel = 4
never_users = root
tls_advertise_hosts =
smtputf8_advertise_hosts = *
keep_environment =
log_selector = +tls_cipher +received_recipients +smtp_confirmation
begin acl
all:
  accept
begin routers
onward:
  driver = manualroute
  transport = onward
  route_list = * 127.0.0.1::{relay_to}
  self = send
  host_find_failed = defer
begin transports
onward:
  driver = smtp
  hosts_try_fastopen =
{transport}
begin retry
* * F,1h,5s
""")
    log = folder / "log" / "mainlog"
    command = [program, "-C", str(config), "-bdf", "-q5s"]
    return _ready(Sender(folder, port, _spawn(command, folder / "exim.out"), log))
