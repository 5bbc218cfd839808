"""forkd config check, forkd config show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from forkd.exits import Exit
from tests.cli.conftest import ROOT, Forkd
from tests.support.config_files import DOMAIN, write


def test_check_is_quiet_about_a_right_file(forkd: Forkd, tmp_path: Path):
    """operations.md: exit status for CI; one line says what it is."""
    write(tmp_path, forkd_toml=DOMAIN, plugins_d="").parent.joinpath("plugins_d").unlink()
    done = forkd("config", "check", "forkd.toml")
    assert (done.returncode, done.stdout) == (0, "forkd.toml: fine; 1 listener, 1 domain, 0 plugins\n")


def test_check_shows_line_rule_and_help(forkd: Forkd, tmp_path: Path):
    """The whole message, as it stands on the screen."""
    write(tmp_path, forkd_toml=DOMAIN + '[timeouts]\ncomand = "5m"\nidle_session = 5\n')
    done = forkd("config", "check", "forkd.toml")
    assert done.returncode == Exit.CONFIG == 78
    assert done.stdout == ""
    assert done.stderr == (
        "error: forkd.toml:3: [timeouts] comand: no such key\n"
        '    3 | comand = "5m"\n'
        "      | ^^^^^^\n"
        '      = help: did you mean "command"?\n'
        "\n"
        "error: forkd.toml:4: [timeouts] idle_session = 5: a duration needs a unit\n"
        "    4 | idle_session = 5\n"
        "      | ^^^^^^^^^^^^\n"
        '      = help: write "5s"\n'
        "\n"
        "2 problems\n"
    )


def test_check_speaks_json(forkd: Forkd, tmp_path: Path):
    """The same for programs; the status does not change."""
    write(tmp_path, forkd_toml="[server]\nx = 1\n" + DOMAIN)
    done = forkd("config", "check", "--json", "forkd.toml")
    answer = json.loads(done.stdout)
    assert done.returncode == Exit.CONFIG
    assert answer["ok"] is False
    assert [(one["file"], one["line"], one["key"]) for one in answer["problems"]] == [("forkd.toml", 2, "x")]
    write(tmp_path, forkd_toml=DOMAIN)
    assert json.loads(forkd("config", "check", "--json", "forkd.toml").stdout)["ok"] is True


def test_check_warns_of_what_is_legal(forkd: Forkd, tmp_path: Path):
    """A key that everybody can read is no reason not to start, and one to be told."""
    write(tmp_path, forkd_toml=DOMAIN + '[certificate."mx.example.org"]\nchain = "c.pem"\n')
    (tmp_path / "c.pem").write_text("")
    (tmp_path / "c.pem").chmod(0o644)
    done = forkd("config", "check", "forkd.toml")
    assert done.returncode == 0
    assert 'note: certificate."mx.example.org".chain: everybody on this machine may read c.pem' in done.stderr
    notes = json.loads(forkd("config", "check", "--json", "forkd.toml").stdout)["notes"]
    assert any("may read c.pem" in note for note in notes)


def test_check_says_what_only_plugins_check(forkd: Forkd, tmp_path: Path):
    """It runs no plugin: a bad rule is found by `forkd run`."""
    entry = 'plugin = "filter"\n[settings]\nreplace = ["no rule"]\n'
    grants = '[grants]\nreads = ["body"]\nedit_body = true\nedit_headers = ["X-Filtered"]\n'
    write(tmp_path, forkd_toml=DOMAIN, **{"plugins.d__70-filter_toml": entry + grants})
    done = forkd("config", "check", "forkd.toml")
    assert done.returncode == 0
    assert "note: filter: what only the plugin itself can check" in done.stderr


def test_check_looks_at_who_may_write_plugins(forkd: Forkd, tmp_path: Path):
    """As `forkd run` does: one line, with what to do."""
    files = {
        "mine__plugin_toml": 'name = "mine"\nversion = "1"\napi = 1\nhooks = ["mail"]\n',
        "mine__mine_py": "",
    }
    write(tmp_path, forkd_toml=DOMAIN, **files, **{"plugins.d__10-mine_toml": 'plugin = "../mine"\n'})
    (tmp_path / "mine/mine.py").chmod(0o666)
    done = forkd("config", "check", "forkd.toml")
    assert done.returncode == Exit.CONFIG
    assert done.stderr == "forkd: plugin 'mine': everybody may write mine/mine.py: chmod -R go-w mine\n"
    (tmp_path / "mine/mine.py").chmod(0o644)
    assert forkd("config", "check", "forkd.toml").returncode == 0


def test_check_looks_at_the_files_of_tls_and_auth(forkd: Forkd, tmp_path: Path):
    """Before the daemon finds out."""
    tls = '[certificate."mx.example.org"]\nchain = "no.pem"\n[auth]\nbackend = "users"\n'
    write(tmp_path, forkd_toml=DOMAIN + tls)
    done = forkd("config", "check", "forkd.toml")
    assert done.returncode == Exit.CONFIG
    assert 'chain = "' in done.stderr
    assert 'no.pem": there is no such file' in done.stderr
    assert "= help: `forkd user add NAME` makes it" in done.stderr


def test_no_color_is_respected(forkd: Forkd, tmp_path: Path):
    """https://no-color.org: not one escape sequence, on a terminal either."""
    write(tmp_path, forkd_toml="[server]\nx = 1\n" + DOMAIN)
    command = "python -m forkd config check forkd.toml".replace("python", sys.executable)
    arguments = ["script", "-qec", command, "/dev/null"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}

    def seen(**more: str) -> str:
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        return done.stdout

    assert "\x1b[" in seen()
    assert "\x1b[" not in seen(NO_COLOR="1")


def test_check_takes_the_file_as_option_too(forkd: Forkd, tmp_path: Path):
    """--config is known to every command; twice is one too many."""
    write(tmp_path, forkd_toml=DOMAIN, b_toml=DOMAIN)
    assert forkd("config", "check", "--config", "forkd.toml").returncode == 0
    assert forkd("config", "check", "--config", "forkd.toml", "b.toml").returncode == Exit.USAGE


def test_show_effective_is_toml_of_everything(forkd: Forkd):
    """operations.md: `config show --effective`, defaults and plugins included."""
    shown = tomllib.loads(forkd("config", "show", "--effective").stdout)
    assert shown["timeouts"]["command"] == "5m"
    assert {"tls", "auth", "names"} < set(shown)
    assert shown["listener"]["default"]["tls"] == "auto"
    assert shown["plugin"]["mark"]["limits"]["fresh"] == "session"
    assert set(shown["plugin"]) == {"block_senders", "mark"}


def test_show_alone_prints_what_the_file_changes(forkd: Forkd, tmp_path: Path):
    """A short answer to: what did we change here?"""
    write(tmp_path, forkd_toml=DOMAIN + "[limits]\nerrors = 7\n")
    shown = tomllib.loads(forkd("config", "show", "forkd.toml").stdout)
    assert shown["limits"] == {"errors": 7}
    assert "timeouts" not in shown


def test_show_effective_speaks_json(forkd: Forkd):
    """The same values."""
    toml = tomllib.loads(forkd("config", "show", "--effective").stdout)
    assert json.loads(forkd("config", "show", "--effective", "--json").stdout) == toml
