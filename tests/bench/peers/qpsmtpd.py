"""qpsmtpd-prefork: Perl, a pool of children of which each serves one connection at a time."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Final

from tests.bench.peers import cache, mounts
from tests.bench.process import Running, free_port
from tests.bench.servers import Server, files, program, python

CHECKS: Final = ("bench_mail", "bench_rcpt", "bench_data")


class Qpsmtpd(Server):
    """Workload A. 15 children at most and 100 connections each, as shipped; no limit for one client.

    It asks for every client's name, and Net::DNS reads /etc/resolv.conf only: it sees ours, of which the
    server knows no name at all and says so at once. That server's own CPU time is not counted.
    """

    name = "qpsmtpd-prefork"
    idle_limit = 15
    plugins: tuple[str, ...] = ("bench_rcpt_ok", "bench_discard")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names = Running(folder / "log.names")

    def launch(self) -> None:
        daemon = cache.debian("usr", "bin", "qpsmtpd-prefork")
        folder, root = self.folder, cache.debian_root()
        nobody = pwd.getpwnam("nobody")
        for name in ("config", "plugins", "spool", "maildir"):
            (folder / name).mkdir()
        for name in ("spool", "maildir"):
            os.chown(folder / name, nobody.pw_uid, nobody.pw_gid)
        (folder / "spool").chmod(0o700)
        names = free_port()
        self.names.start(python(), "-I", "-S", cache.PROGRAMS / "no_names.py", str(names))
        (folder / "resolv.conf").write_text(f"nameserver 127.0.0.1\noptions port:{names}\n")
        for plugin in (cache.PROGRAMS / "qpsmtpd").iterdir():
            (folder / "plugins" / plugin.name).write_text(plugin.read_text())
        # Seen at a path of ours, for it drops to a user who may not enter somebody's home.
        seen = folder / "debian"
        config = {
            "plugins": "\n".join(self.plugins).replace("FOLDER", str(folder)) + "\n",
            "plugin_dirs": f"{folder}/plugins\n{seen}/usr/share/qpsmtpd/plugins\n",
            "spool_dir": f"{folder}/spool\n",
            "loglevel": "0\n",
            "me": "test.local\n",
        }
        for name, text in config.items():
            (folder / "config" / name).write_text(text)
        words: list[str | Path] = [program("perl"), "-T", f"-I{seen}/usr/share/perl5"]
        words += [f"-I{seen / path.relative_to(root)}" for path in root.glob("usr/lib/*/perl5/*")]
        words += [seen / daemon.relative_to(root), "--listen-address", "127.0.0.1"]
        words += ["--port", str(self.port), "--user", "nobody", "--max-from-ip", "0"]
        # It makes a session of its own, which a leader of one cannot.
        self.running.start(
            *mounts.command(words, binds=[(root, str(seen)), (folder / "resolv.conf", "/etc/resolv.conf")]),
            environment={"QPSMTPD_CONFIG": str(folder / "config")},
            new_session=False,
        )

    def stop(self) -> list[int]:
        killed = super().stop()
        self.names.stop()
        return killed

    @classmethod
    def version(cls) -> str:
        found = cache.debian_version("qpsmtpd")
        return f"qpsmtpd {found}" if found else ""


class QpsmtpdMaildir(Qpsmtpd):
    """Workload B: its Maildir plugin, which syncs nothing."""

    name = "qpsmtpd, maildir (no sync)"
    plugins: tuple[str, ...] = ("bench_rcpt_ok", "queue/maildir FOLDER/maildir")

    def counted(self) -> int | None:
        return files(self.folder / "maildir" / "new", "*")


class QpsmtpdChecks(QpsmtpdMaildir):
    """Workload C."""

    name = "qpsmtpd, 3 plugins, maildir (no sync)"
    plugins: tuple[str, ...] = (*CHECKS, "queue/maildir FOLDER/maildir")
