"""OpenSMTPD: C, privilege separated, an event loop a role; filters are long-lived and shared by all."""

from __future__ import annotations

from pathlib import Path

from tests.bench.peers import cache, mounts
from tests.bench.servers import Server, files, python

CONFIG = """\
{filter}
listen on 127.0.0.1 port {port} {use}
smtp max-message-size 50M
smtp limit max-rcpt 1000
smtp limit max-mails 1000000
action "out" relay host smtp://127.0.0.1:1
match from any for any action "out"
"""


class OpenSmtpd(Server):
    """Workload A: a queue that keeps nothing. Its deliveries are paused."""

    name = "OpenSMTPD, null queue"
    most_sessions = 5  # its listen backlog; with more, connections are lost (seen by smtp-source)
    idle_limit = 10_000
    queue = "null"
    filtered = False

    def launch(self) -> None:
        daemon = cache.debian("usr", "sbin", "smtpd")
        folder = self.folder
        helper = folder / "filter.py"
        helper.write_text((cache.PROGRAMS / "opensmtpd_filter.py").read_text())
        for name in ("spool", "empty"):
            (folder / name).mkdir()
            (folder / name).chmod(0o711)
        line = f'filter "checks" proc-exec "{python()} -I -S {helper}"' if self.filtered else ""
        use = 'filter "checks"' if self.filtered else ""
        (folder / "smtpd.conf").write_text(CONFIG.format(filter=line, port=self.port, use=use))
        # Names of clients from /etc/hosts only.
        (folder / "resolv.conf").write_text("lookup file\n")
        root = cache.debian_root()
        words: list[str | Path] = [daemon, "-d", "-P", "mta", "-B", f"queue={self.queue}"]
        words += ["-f", folder / "smtpd.conf"]
        binds = [
            *mounts.users(folder, ("opensmtpd", "opensmtpq")),
            (folder / "resolv.conf", "/etc/resolv.conf"),
            (folder / "spool", "/var/spool/smtpd"),
            (folder / "empty", "/var/lib/opensmtpd/empty"),
        ]
        self.running.start(
            *mounts.command(words, binds=binds, empty=("/run", "/var/lib", "/var/spool")),
            environment={"LD_LIBRARY_PATH": str(root / "usr" / "lib" / "x86_64-linux-gnu")},
        )

    def counted(self) -> int | None:
        return None if self.queue == "null" else files(self.folder / "spool" / "queue", "message")

    @classmethod
    def version(cls) -> str:
        found = cache.debian_version("opensmtpd")
        return f"OpenSMTPD {found}" if found else ""


class OpenSmtpdDisk(OpenSmtpd):
    """Workload B: its queue on disk. No sync of it is seen before its 250."""

    name = "OpenSMTPD, queue"
    queue = "fs"


class OpenSmtpdFilter(OpenSmtpdDisk):
    """Workload C: one filter process makes the three checks."""

    name = "OpenSMTPD, filter, queue"
    filtered = True
