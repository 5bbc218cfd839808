"""Which configuration does a command mean? --config, FORKD_CONFIG, what is here, /etc/forkd, the defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forkd.cli.commands import main
from forkd.cli.which import Which, left_out, which
from forkd.exits import Exit
from tests.cli.conftest import Forkd
from tests.support.config_files import write
from tests.support.fake_control import FakeControl, queued


def answer(request: dict[str, Any]) -> bytes:
    result = queued() if request["request"] == "queue" else {"started_at": 0}
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """As /etc/forkd/forkd.toml."""
    file = tmp_path / "etc" / "forkd.toml"
    file.parent.mkdir()
    file.touch()
    return file


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_who_names_a_file_means_it(here: Path, system: Path):
    """--config, then the environment, whatever lies around."""
    environment = {"FORKD_CONFIG": "its.toml"}
    option = which(Path("mine.toml"), folder=here, environment=environment, system=system)
    assert option == Which(Path("mine.toml"), "--config")
    assert which(folder=here, environment=environment, system=system) == Which(
        here / "its.toml", "FORKD_CONFIG"
    )


def test_the_machines_own_is_meant_where_nothing_else_is(here: Path, system: Path):
    """`forkd status` on a server, in whatever folder the admin happens to be."""
    assert which(folder=here, environment={}, system=system).file == system
    assert which(folder=here, environment={}, system=here / "nothing") == Which(None)


def test_an_empty_name_is_the_defaults(here: Path, system: Path):
    """FORKD_CONFIG= : so `make run` does the same on every machine."""
    assert which(folder=here, environment={"FORKD_CONFIG": ""}, system=system).file is None


def test_who_works_in_a_folder_of_his_own_means_that(here: Path, system: Path):
    """A forkd was started there, or its configuration lies there: not the machine's."""
    (here / "forkd.toml").touch()
    assert which(folder=here, environment={}, system=system) == Which(None)
    (here / "forkd.toml").unlink()
    lock = here / "var" / "run" / "lock"
    lock.mkdir(parents=True)
    assert which(folder=here, environment={}, system=system).file == system, "that is / of any machine"
    lock.rmdir()
    lock.touch()
    assert which(folder=here, environment={}, system=system) == Which(None)


COMMANDS = (
    ["config", "check"],
    ["config", "show"],
    ["config", "where", "someone@test.local"],
    ["plugin", "list"],
    ["plugin", "show", "mark"],
    ["user", "list"],
    ["run"],
    ["status"],
    ["reload"],
    ["stop"],
    ["drain"],
    ["sessions"],
    ["kick", "HOFUBH6H4VPC93W1"],
    ["queue", "list"],
    ["explain", "HOFUBH6H4VPC93W1"],
    ["sandbox", "status"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_takes_the_file_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
):
    """One that is no TOML: each that reads it says so, with its name."""
    write(tmp_path, named_toml="no = [")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORKD_CONFIG", "named.toml")
    assert main(command) == Exit.CONFIG
    assert "named.toml:1" in capsys.readouterr().err


def test_a_daemon_is_found_by_the_environment(forkd: Forkd, tmp_path: Path):
    """`export FORKD_CONFIG=...` once, and no command needs an option."""
    write(tmp_path, its_toml='[server]\ndata_dir = "elsewhere"\n')
    none = forkd("status", FORKD_CONFIG="its.toml")
    assert (none.returncode, "FORKD_CONFIG names its.toml" in none.stderr) == (Exit.NO_DAEMON, True)
    with FakeControl(tmp_path / "elsewhere", answer):
        assert forkd("status", "--json", FORKD_CONFIG="its.toml").returncode == 0


def test_a_changed_data_dir_hides_no_daemon(forkd: Forkd, tmp_path: Path):
    """The socket is in the old one: nobody is sent to start a second daemon without a word about it."""
    write(tmp_path, forkd_toml='[server]\ndata_dir = "new"\n')
    with FakeControl(tmp_path / "old", answer):
        done = forkd("reload", "--config", "forkd.toml")
        assert done.returncode == Exit.NO_DAEMON
        assert "if its data_dir has just been changed, name the old one by --data-dir DIR" in done.stderr
        assert forkd("reload", "--config", "forkd.toml", "--data-dir", "old").returncode == 0


def test_a_group_takes_what_its_commands_take(forkd: Forkd, tmp_path: Path):
    """`forkd queue --data-dir D list`; behind the command's name it counts more."""
    with FakeControl(tmp_path / "other", answer):
        assert forkd("queue", "--data-dir", "other", "list").returncode == 0
        assert forkd("queue", "--data-dir", "nowhere", "list", "--data-dir", "other").returncode == 0
        write(tmp_path, its_toml='[server]\ndata_dir = "other"\n')
        assert forkd("queue", "--config", "its.toml", "list").returncode == 0
        assert forkd("queue", "--data-dir", "nowhere", "list", "-c", "its.toml").returncode == 0
        assert forkd("sandbox", "--data-dir", "other", "status").returncode == 0
    assert forkd("queue", "--data-dir", "nowhere", "list").returncode == Exit.NO_DAEMON


def test_a_file_here_is_told_of_and_not_read(forkd: Forkd, tmp_path: Path):
    """It may be anybody's, in a folder where all may write."""
    write(tmp_path, forkd_toml="no = [")
    done = forkd("config", "check", "--json")
    assert json.loads(done.stdout)["file"] is None


def test_whoever_has_a_file_here_hears_that_it_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """He most likely wants it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, forkd_toml="")
    assert left_out(Which(None)) == "./forkd.toml is not read; to use it: --config forkd.toml"
    assert left_out(Which(Path("forkd.toml"), "--config")) == ""
