"""Help, usage, versions, and failures before anything is asked of a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import forkd as package
from forkd.cli.commands import COMMANDS
from forkd.exits import EXITS, NO_RESTART, Exit
from tests.cli.conftest import ROOT, Forkd
from tests.support.config_files import write


def test_help_names_every_command(forkd: Forkd):
    """The first thing a newcomer types."""
    done = forkd("--help")
    assert done.returncode == 0
    assert all(f"\n  {name}" in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", [["run"], ["config", "check"], ["queue", "list"], ["stop"], ["status"]])
def test_every_command_has_help(forkd: Forkd, command: list[str]):
    """-h works wherever --help does."""
    done = forkd(*command, "-h")
    assert (done.returncode, "--config" in done.stdout) == (0, True)


def test_version_speaks_json(forkd: Forkd):
    """--json on everything that prints."""
    assert json.loads(forkd("version", "--json").stdout)["forkd"] == package.__version__
    assert forkd("version").stdout.startswith(f"forkd {package.__version__}")


def test_a_wrong_command_is_a_usage_error(forkd: Forkd):
    """2, as every program."""
    assert forkd("statsu").returncode == Exit.USAGE


def test_run_refuses_a_wrong_configuration(forkd: Forkd, tmp_path: Path):
    """Nothing is started, opened or written; systemd does not try again (78)."""
    write(tmp_path, forkd_toml="[server]\nx = 1\n")
    done = forkd("run", "--config", "forkd.toml")
    assert done.returncode == Exit.CONFIG
    assert "forkd.toml:2: [server] x: no such key" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["forkd.toml"]


def test_a_missing_configuration_is_a_problem_not_a_default(forkd: Forkd):
    """A file that was named and is not there must not mean: run on defaults."""
    done = forkd("run", "--config", "nope.toml")
    assert done.returncode == Exit.CONFIG
    assert "nope.toml: cannot be read: no such file or directory" in done.stderr


def test_completion_is_there(forkd: Forkd):
    """operations.md: shell completion."""
    done = forkd(_FORKD_COMPLETE="bash_complete", COMP_WORDS="forkd st", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,status", "plain,stop"]


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path: Path):
    """`forkd config show --effective | head -3`, also with `set -o pipefail`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "forkd", "config", "show", "--effective"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, stdout=write_end, stderr=subprocess.PIPE, env=environment, check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_exit_status_has_its_meaning():
    """operations.md: exit codes in one table."""
    assert set(EXITS) == set(Exit)
    assert set(EXITS) > NO_RESTART


def test_the_unit_does_not_restart_what_would_end_the_same_way():
    """RestartPreventExitStatus= and NO_RESTART are two readers of one list."""
    unit = Path(__file__).parent.parent.parent / "systemd" / "forkd.service"
    rows = [row for row in unit.read_text().splitlines() if row.startswith("RestartPreventExitStatus=")]
    assert {int(word) for row in rows for word in row.partition("=")[2].split()} == set(NO_RESTART)
