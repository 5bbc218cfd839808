"""Haraka: Node, plugins in the process that serves everybody; one process or a cluster."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from tests.bench.peers import cache, mounts
from tests.bench.servers import CPUS, Server, files, program

CHECKS: Final = ("bench_mail", "bench_rcpt", "bench_data")


class Haraka(Server):
    """Workload A, one process. Names of clients come from /etc/hosts: no DNS is asked on the loopback.

    plugins   of ours, in peers/programs/haraka
    keep      its outbound queue keeps the message (file synced); else queue/discard drops it
    """

    name = "Haraka, 1 process"
    nodes = 0
    plugins: tuple[str, ...] = ("bench_accept",)
    keep = False

    def launch(self) -> None:
        package = cache.npm("haraka")
        for name in ("config", "plugins", "queue"):
            (self.folder / name).mkdir()
        config = {
            "smtp.ini": f"listen=127.0.0.1:{self.port}\nnodes={self.nodes}\n",
            "log.ini": "[main]\nlevel=error\n",
            "host_list": "test.local\n",
            "me": "test.local\n",
            "outbound.ini": "[main]\ndisabled=true\n",
            "plugins": "\n".join([*self.plugins, "bench_relay" if self.keep else "queue/discard", ""]),
        }
        for name, text in config.items():
            (self.folder / "config" / name).write_text(text)
        for name in ("connection.ini", "outbound.bounce_message"):
            shutil.copy(package / "config" / name, self.folder / "config")
        for plugin in (cache.PROGRAMS / "haraka").glob("*.js"):
            shutil.copy(plugin, self.folder / "plugins")
        words: list[str | Path] = [program("node"), package / "bin" / "haraka", "-c", self.folder]
        if os.geteuid() == 0:  # also for the addresses that idle connections come from
            hosts = self.folder / "hosts"
            hosts.write_text("".join(f"127.0.0.{number} localhost\n" for number in range(1, 10)))
            words = [*mounts.command(words, binds=[(hosts, "/etc/hosts")])]
        environment = {"YES_REALLY_DO_DISCARD": "1", "HOME": str(self.folder)}
        self.running.start(*words, environment=environment)

    def counted(self) -> int | None:
        return files(self.folder / "queue", "[0-9]*") if self.keep else None

    @classmethod
    def version(cls) -> str:
        found = cache.npm_version("haraka")
        return f"Haraka {found}" if found else ""


class HarakaNodes(Haraka):
    """Workload A, as many nodes as there are CPUs."""

    name = f"Haraka, {CPUS} nodes"
    nodes = CPUS


class HarakaQueue(Haraka):
    """Workload B: its outbound queue, with deliveries switched off."""

    name = "Haraka, outbound queue"
    plugins = ()
    keep = True


class HarakaChecks(Haraka):
    """Workload C without a disk: what three plugins cost it at the least."""

    name = "Haraka, 3 plugins, discards"
    plugins = CHECKS


class HarakaChecksQueue(Haraka):
    """Workload C, durable."""

    name = "Haraka, 3 plugins, outbound queue"
    plugins = CHECKS
    keep = True


class HarakaChecksNodes(HarakaChecks):
    """Workload D and memory: the three plugins in a cluster."""

    name = f"Haraka, 3 plugins, {CPUS} nodes"
    nodes = CPUS
