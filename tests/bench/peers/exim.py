"""Exim: C, a process for each connection."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.peers import cache, mounts
from tests.bench.servers import Server, files

CONFIG = """\
primary_hostname = test.local
spool_directory = {folder}/spool
log_file_path = {folder}/logs/%slog
log_selector = -all
pid_file_path = {folder}/exim.pid
local_interfaces = <; [127.0.0.1]:{port}
daemon_smtp_ports = {port}
keep_environment = LD_LIBRARY_PATH
acl_smtp_rcpt = everybody
acl_smtp_data = end_of_data
# Names of clients are not looked up, by anybody here.
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 1200
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 4096
message_size_limit = 50M
queue_only = true
split_spool_directory = true
never_users = root
tls_advertise_hosts =
begin acl
everybody:
  accept
end_of_data:
  {verdict}
begin routers
hole:
  driver = redirect
  data = :blackhole:
begin transports
begin retry
"""


class Exim(Server):
    """Workload A: its ACL action discard. At QUIT it waits for the client to close, up to 200 ms."""

    name = "Exim, discard"
    idle_limit = 1000  # a process each; its smtp_accept_max is 1200 here
    verdict = "discard"

    def launch(self) -> None:
        daemon = cache.debian("usr", "sbin", "exim4")
        (self.folder / "exim.conf").write_text(
            CONFIG.format(folder=self.folder, port=self.port, verdict=self.verdict)
        )
        binds = mounts.users(self.folder, ("Debian-exim",))
        lines = (line.split(":") for line in (self.folder / "passwd").read_text().splitlines())
        owner, group = next((int(line[2]), int(line[3])) for line in lines if line[0] == "Debian-exim")
        for name in ("spool", "logs"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, owner, group)
        words: list[str | Path] = [daemon, "-C", self.folder / "exim.conf", "-bdf"]
        root = cache.debian_root()
        self.running.start(
            *mounts.command(words, binds=binds),
            environment={"LD_LIBRARY_PATH": str(root / "usr" / "lib" / "x86_64-linux-gnu")},
        )

    @classmethod
    def version(cls) -> str:
        found = cache.debian_version("exim4-daemon-light")
        return f"Exim {found}" if found else ""


class EximQueue(Exim):
    """Workload B: queued only; data and header files are synced."""

    name = "Exim, queue"
    verdict = "accept"

    def counted(self) -> int | None:
        return files(self.folder / "spool" / "input", "*-H")
