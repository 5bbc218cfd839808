"""forkd config import-qmail: what it writes is a configuration, and says what it leaves out."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from forkd.cli.import_qmail import places
from forkd.config.load import load
from forkd.exits import Exit
from tests.cli.conftest import Forkd
from tests.support.cdb import cdb

FILES: dict[str, str | bytes] = {
    "me": "mx.example.org\n",
    "rcpthosts": "example.org\r\n.example.org\n",
    "morercpthosts.cdb": cdb("more.example"),
    "databytes": "10000000\n",
    "maxrecipients": "200\n",
    "maxhops": "120\n",
    "smtpgreeting": 'mx.example.org "hello"\nno spam\n',
    "relayclients": "127.:\n192.168.1.:\n",
    "timeoutsmtpd": "1200\n",
    "tarpitcount": "20\n",
    "badmailfrom": '@spam.example\n*@*.bulk.example\n"ab"@example.com\n!x@y.bulk.example\n',
    "badmailfrom.cdb": cdb("odd*name@example.com", "!x@example.com"),
    "goodrcptto": "postmaster@*\n",
    "badrcptto": "@old.example.org\n",
    "greetdelay": "5\n",
    "mine.txt": "\n",
}


@pytest.fixture
def control(tmp_path: Path) -> Path:
    folder = tmp_path / "control"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_the_same_as_reading_the_folder(forkd: Forkd, control: Path, tmp_path: Path):
    """What is written means what qmail_control means, and needs the folder no more."""
    done = forkd("config", "import-qmail", "control", "-o", "forkd.toml", "--queue-program", "/bin/true")
    assert (done.returncode, done.stdout) == (0, "")
    assert "written: forkd.toml\nwritten: plugins.d/05-qmail_lists.toml\n" in done.stderr
    live = tmp_path / "live.toml"
    live.write_text(
        '[server]\nqmail_control = "control"\n[plugins]\ndir = "none"\n'
        '[transport.local]\nkind = "qmail-queue"\nargv = ["/bin/true"]\n'
    )
    (tmp_path / "none").mkdir()
    one, other = load(tmp_path / "forkd.toml").config, load(live).config
    for table in ("listener", "domain", "networks", "limits", "timeouts", "queue", "transport"):
        assert getattr(one, table) == getattr(other, table), table
    assert (one.server.hostname, one.server.greeting) == (other.server.hostname, other.server.greeting)
    for file in control.iterdir():
        file.unlink()
    checked = forkd("config", "check", "forkd.toml")
    assert checked.returncode == 0, checked.stderr
    assert "3 domains, 1 plugin (qmail_lists)" in checked.stdout


def test_each_line_tells_its_file_and_what_is_left_out_is_listed(forkd: Forkd, control: Path):
    """TOML on standard output, fit for a pipe; what has no counterpart on the other one, with what does."""
    done = forkd("config", "import-qmail", str(control))
    rows = done.stdout.splitlines()
    assert 'message_size = "10000000B"              # databytes' in rows
    assert (
        '[domain."more.example"]                 # morercpthosts.cdb; not in locals, nor in virtualdomains'
        in rows
    )
    settings = tomllib.loads(done.stdout)
    assert settings["server"] == {"hostname": "mx.example.org", "greeting": '"hello" ESMTP\nno spam'}
    assert "  greetdelay  [listener.NAME] greeting_delay\n" in done.stderr
    assert "  mine.txt    no control file that forkd knows\n" in done.stderr
    assert "databytes" not in done.stderr
    answer = json.loads(forkd("config", "import-qmail", str(control), "--json").stdout)
    assert sorted(answer["others"]) == ["greetdelay", "mine.txt"]
    assert answer["files"]["forkd.toml"] in done.stdout


def test_lists_keep_their_meaning(forkd: Forkd, control: Path, tmp_path: Path):
    """A key of a .cdb is no pattern; quotes and wildcards come through TOML."""
    forkd("config", "import-qmail", str(control), "-o", "forkd.toml")
    settings = tomllib.loads((tmp_path / "plugins.d" / "05-qmail_lists.toml").read_text())["settings"]
    assert settings == {
        "senders": [
            r"odd\*name@example.com",
            r"\!x@example.com",
            "@spam.example",
            "*@*.bulk.example",
            '"ab"@example.com',
            "!x@y.bulk.example",
        ],
        "recipients": ["@old.example.org"],
        "exempt": ["postmaster@*"],
    }


def test_without_a_queue_program_nobody_relays(forkd: Forkd, control: Path, tmp_path: Path):
    """Maildirs are no way to the world; the result is a configuration all the same."""
    done = forkd("config", "import-qmail", str(control), "-o", "forkd.toml")
    assert "note: no qmail-queue found" in done.stderr
    assert load(tmp_path / "forkd.toml").config.networks.relay == ()


def test_nothing_is_overwritten_unasked(forkd: Forkd, control: Path, tmp_path: Path):
    """A configuration that runs is worth more than a new one; and half of a pair is not written."""
    (tmp_path / "plugins.d").mkdir()
    lists = tmp_path / "plugins.d" / "05-qmail_lists.toml"
    lists.write_text("# mine\n")
    done = forkd("config", "import-qmail", str(control), "-o", "forkd.toml")
    assert done.returncode == Exit.USAGE
    assert (
        "plugins.d/05-qmail_lists.toml is there already\n  help: name another file, or say --force\n"
        in done.stderr
    )
    assert not (tmp_path / "forkd.toml").exists()
    assert forkd("config", "import-qmail", str(control), "-o", "forkd.toml", "--force").returncode == 0
    assert lists.read_text() != "# mine\n"


def test_what_is_wrong_is_shown_with_its_line(forkd: Forkd, control: Path):
    """As every other error in a configuration."""
    (control / "rcpthosts").write_text("example.org\n*.example.org\n")
    done = forkd("config", "import-qmail", "control", "-o", "forkd.toml")
    assert done.returncode == Exit.CONFIG
    assert done.stderr == (
        "error: control/rcpthosts:2: this is a domain, as in example.org, "
        "or .example.org for all of its sub-domains\n"
        "    2 | *.example.org\n"
        "      | ^^^^^^^^^^^^^\n"
        "      = help: write .example.org\n"
        "\n"
        "1 problem\n"
    )
    assert forkd("config", "import-qmail", "nowhere").returncode == Exit.USAGE


def test_a_line_that_the_daemon_would_not_start_with_is_not_written(
    forkd: Forkd, control: Path, tmp_path: Path
):
    """A list with a line that means nothing: named here, with its number."""
    (control / "badmailfrom").write_text("@spam.example\nbulk.example\n")
    done = forkd("config", "import-qmail", "control", "-o", "forkd.toml")
    assert done.returncode == Exit.CONFIG
    assert "error: control/badmailfrom:2: no @: write @bulk.example for a domain" in done.stderr
    assert not (tmp_path / "forkd.toml").exists()


def test_without_a_queue_program_what_changes_for_mail_is_said(forkd: Forkd, control: Path):
    """As a backup MX it would keep mail that belongs elsewhere, and who relayed does no more."""
    (control / "locals").write_text("example.org\n")
    for arguments in (("--json",), ()):
        done = forkd("config", "import-qmail", "control", *arguments)
        text = "\n".join(json.loads(done.stdout)["notes"]) if arguments else done.stderr
        assert "*.example.org, more.example: in rcpthosts, morercpthosts.cdb, and neither in locals" in text
        assert "relayclients: its 2 networks are written as comments" in text
    done = forkd("config", "import-qmail", "control", "--queue-program", "/bin/true")
    assert "Maildirs" not in done.stderr


def test_the_queue_program_beside_the_control_files_is_theirs(forkd: Forkd, control: Path, tmp_path: Path):
    """Of two mail systems on one machine each has its own."""
    program = tmp_path / "bin" / "qmail-queue"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "control").symlink_to(control)
    for folder in ("control", "elsewhere/control"):
        settings = tomllib.loads(forkd("config", "import-qmail", folder).stdout)
        assert settings["transport"]["local"]["argv"] == [str(program)]


@pytest.mark.parametrize(
    ("folder", "first"),
    [
        ("/var/qmail/control", "/var/qmail/bin/qmail-queue"),
        ("/etc/qmail", "/var/qmail/bin/qmail-queue"),
        ("/etc/indimail/control", "/usr/sbin/qmail-queue"),
        ("/var/indimail/control", "/var/indimail/bin/qmail-queue"),
    ],
)
def test_where_the_queue_program_is_looked_for(folder: str, first: str):
    """Beside the folder, then where that mail system has it, then the other's."""
    looked = places(Path(folder))
    assert next(path for path in looked if not path.startswith("/etc/")) == first
    assert {"/var/qmail/bin/qmail-queue", "/usr/sbin/qmail-queue", "/var/indimail/bin/qmail-queue"} <= set(
        looked
    )
