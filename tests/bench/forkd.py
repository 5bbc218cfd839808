"""How is forkd run for each workload? As an admin would, on its defaults but for what is named."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.bench.servers import HERE, Server

CHECKOUT: Final = HERE.parent.parent
PLUGINS: Final = ("check_sender", "check_recipient", "check_body")
TRUSTED: Final = "127.0.0.1"
"""The one host that D's configuration trusts."""
REUSE: Final = 1000
"""Sessions a sandbox may serve in the column "reuse": so many that its making does not show."""


class Forkd(Server):
    """Workload A: accept and discard, nothing is written.

    plugins   names of folders in plugins/
    group     "" or the group that all of them share
    limits    lines of [limits] in each plugin's entry
    """

    name = "forkd"
    at = "accept"
    plugins: tuple[str, ...] = ()
    group = ""
    limits = ""
    more = ""
    environment: Final = {"PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1"}

    def launch(self) -> None:
        config = self.folder / "forkd.toml"
        config.write_text(self.config())
        if self.plugins:
            (self.folder / "plugins.d").mkdir()
        for number, plugin in enumerate(self.plugins, start=1):
            path = self.folder / "plugins.d" / f"{number}0-{plugin}.toml"
            path.write_text(self.entry(plugin))
        self.running.start(
            sys.executable, "-m", "forkd", "run", "--config", config, environment=self.environment
        )

    def config(self) -> str:
        """forkd.toml. Root starts it as an admin would: each role drops to an ordinary user."""
        users = ""
        if os.geteuid() == 0:
            user = "forkd" if _exists("forkd") else "nobody"
            users = "".join(f'{key} = "{user}"\n' for key in ("user", "queue_user", "admin_user"))
        return f"""\
[server]
hostname = "test.local"
{users}
[listener.default]
address = "127.0.0.1:{self.port}"

[domain."test.local"]
transport = "drop"

[transport.drop]
kind = "discard"
at = "{self.at}"
{self.more}"""

    def entry(self, plugin: str) -> str:
        """plugins.d/NN-plugin.toml."""
        lines = [f'plugin = "{HERE / "plugins" / plugin}"']
        if self.group:
            lines.append(f'group = "{self.group}"')
        if plugin == "check_body":
            lines += ["[grants]", 'reads = ["body"]']
        return "\n".join([*lines, "[limits]", self.limits, ""])

    def counted(self) -> int | None:
        event = b"event=message " if self.at == "accept" else b"status=delivered"
        return (self.folder / "log").read_bytes().count(event)

    def left(self) -> int | None:
        return sum(1 for path in (self.folder / "var" / "spool").glob("new/*/*") if path.is_file())

    @classmethod
    def version(cls) -> str:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"], capture_output=True, check=False
        )
        commit = done.stdout.decode().strip() if done.returncode == 0 else "no commit"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"forkd {importlib.metadata.version('forkd')} ({commit})"
        return f"forkd ({commit})"


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


class ForkdDurable(Forkd):
    """Workload B: spooled, synced, then dropped by qmgr."""

    name = "forkd, spool + discard"
    at = "queue"


class ForkdUntraced(ForkdDurable):
    """Workload O: B, and nothing is kept for `forkd explain`."""

    name = "forkd, no trace"
    more = '\n[trace]\nkeep = "0s"\n'


class ForkdUncounted(ForkdDurable):
    """Workload O: B, and nothing is counted for /metrics."""

    name = "forkd, no metrics"
    more = '\n[metrics]\nlisten = ""\n'


class ForkdUnprobed(ForkdDurable):
    """Workload O: B without the probe behind /readyz."""

    name = "forkd, no probe"
    more = "\n[probe]\nenabled = false\n"


class ForkdUnseen(ForkdDurable):
    """Workload O: B without all three."""

    name = "forkd, none of them"
    more = ForkdUntraced.more + ForkdUncounted.more + ForkdUnprobed.more


class ForkdChecks(ForkdDurable):
    """Workload C: B with three plugins, each with a fresh sandbox for every session."""

    name = "forkd, 3 plugins, 3 fresh sandboxes"
    plugins = PLUGINS


class ForkdGroup(ForkdChecks):
    """Workload C: the three plugins share one fresh sandbox for every session."""

    name = "forkd, 3 plugins, one group"
    group = "checks"


class ForkdReuse(ForkdGroup):
    """Workload C: the group, and a sandbox serves one session after the other."""

    name = "forkd, one group, reuse"
    limits = f"reuse = {REUSE}"


class ForkdFaults(ForkdChecks):
    """Workload D: C with a deadline short enough to wait for, and offenders that are nobody's friends."""

    name = "forkd, 3 plugins"
    deadline_s = 1.0
    limits = 'timeout = "1s"\ncpu = "10s"\nmemory = "64MiB"'
    more = f'\n[networks]\ntrusted = ["{TRUSTED}/32"]\n'


class ForkdIdle(Forkd):
    """Workload E: A, with room for all idle connections in whichever worker the kernel gives them to."""

    name = "forkd"
    more = "\n[limits]\nsessions = 100_000\n"


def worker_title(pid: int) -> bool:
    """Is this process one of forkd's workers, by its title?"""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"forkd: worker")
    except OSError:
        return False
