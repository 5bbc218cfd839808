"""Plugins with interpreters and libraries of their own, and with files that change: the real daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from forkd.exits import Exit
from tests.support import venvs
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import Make

PLUGIN = """
import sys
import thing
from forkd.sdk import Plugin, deny

def plugin_init(settings):
    def mail(session, sender):
        if sender.local == "{name}":
            ran = [name for name in ("pth_ran", "sitecustomize", "site") if name in sys.modules]
            return deny("5.7.1", f"thing {{thing.VERSION}} ran={{ran}}")
    return Plugin(mail=mail)
"""

PLAIN = "from forkd.sdk import Plugin\ndef plugin_init(s):\n    return Plugin(mail=lambda *_: None)\n"


def manifest(name: str, more: str = "") -> str:
    return f'name = "{name}"\nversion = "1.0"\napi = 1\nhooks = ["mail"]\n{more}\n'


def add_plugin(daemon: Daemon, name: str, *, text: str = "", more: str = "", entry: str = "") -> Path:
    folder = daemon.folder / name
    folder.mkdir()
    (folder / "plugin.toml").write_text(manifest(name, more))
    (folder / f"{name}.py").write_text(text or PLUGIN.format(name=name))
    entries = daemon.folder / "plugins.d"
    entries.mkdir(exist_ok=True)
    (entries / f"10-{name}.toml").write_text(f'plugin = "../{name}"\n{entry}\n')
    return folder


def mail(daemon: Daemon, local: str) -> tuple[int, str]:
    client = daemon.smtp()
    client.ehlo()
    code, text = client.mail(f"{local}@example.org")
    client.close()
    return code, text.decode()


def refusal(daemon: Daemon, status: int) -> str:
    """What a start that fails tells the admin, in one line."""
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(60) == status, daemon.log_text()
    (told,) = [line for line in daemon.events("service") if line["act"] == "failed"]
    return str(told["detail"])


@pytest.mark.both_modes
def test_two_versions_of_one_library_at_once(make_daemon: Make):
    """plugins.md: the zygote is exec'd by the plugin's interpreter; nothing of forkd is installed there."""
    daemon = make_daemon(start=False)
    for name, version in (("a", "1.0"), ("b", "2.0")):
        python = venvs.make(daemon.folder / f"venv_{name}")
        code = f"VERSION = {version!r}\n"
        venvs.install(python, "thing", version, thing__init___py=code, thing_py=code)
        (venvs.site(python) / "evil.pth").write_text("import pth_ran\n")
        for module in ("pth_ran.py", "sitecustomize.py"):
            (venvs.site(python) / module).write_text("print('I ran')\n")
        add_plugin(
            daemon,
            name,
            more=f'requires = ["thing>={version}"]',
            entry=f'python = "../venv_{name}/bin/python"',
        )
    daemon.start()
    assert mail(daemon, "a") == (550, "5.7.1 thing 1.0 ran=[]")
    assert mail(daemon, "b") == (550, "5.7.1 thing 2.0 ran=[]")
    loaded = {event["plugin"]: event for event in daemon.told("plugin_loaded", 2)}
    assert {name: (event["version"], len(event["sha256"])) for name, event in loaded.items()} == {
        "a": ("1.0", 64),
        "b": ("1.0", 64),
    }
    assert "I ran" not in daemon.log_text()


@pytest.mark.both_modes
def test_a_package_of_a_virtual_environment_is_a_plugin(make_daemon: Make):
    """plugins.md: an entry point in group forkd.plugins; its module is not imported by master."""
    daemon = make_daemon(start=False)
    python = venvs.make(daemon.folder / "venv")
    venvs.install(
        python,
        "greeter",
        "3.1",
        entry_points="greeter = greeter",
        thing_py="VERSION = 'own'\n",
        greeter____init___py="raise SystemExit('imported')\n",
        greeter__greeter_py=PLUGIN.format(name="greeter"),
        greeter__plugin_toml=manifest("greeter"),
    )
    entries = daemon.folder / "plugins.d"
    entries.mkdir()
    (entries / "10-greeter.toml").write_text('package = "greeter"\npython = "../venv/bin/python"\n')
    daemon.start()
    assert mail(daemon, "greeter") == (550, "5.7.1 thing own ran=[]")


def test_without_requires_no_library_is_to_be_had(make_daemon: Make):
    """forkd's own packages are a plugin's only where its manifest says so."""
    daemon = make_daemon(start=False)
    add_plugin(daemon, "a", text="import idna\n" + PLAIN)
    assert "ModuleNotFoundError: No module named 'idna'" in refusal(daemon, Exit.PLUGIN)
    (daemon.folder / "a" / "plugin.toml").write_text(manifest("a", 'requires = ["idna>=3"]'))
    daemon.start()


def test_an_interpreter_that_is_too_old_says_so(make_daemon: Make):
    """By the handshake: what its name and its files do not tell."""
    daemon = make_daemon(start=False)
    old = daemon.folder / "old-python"
    real = Path(sys.executable).resolve()
    old.write_text(
        f"#!{real}\nimport runpy, sys\nsys.version_info = (3, 9, 2)\n"
        "sys.argv = sys.argv[next(n for n, a in enumerate(sys.argv) if a.endswith('boot.py')):]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    old.chmod(0o755)
    add_plugin(daemon, "a", entry='python = "../old-python"', text="x = 1\n")
    told = refusal(daemon, Exit.PLUGIN)
    assert "is Python 3.9, and a plugin's interpreter is 3.11 or newer" in told


def test_what_is_no_python_says_nothing_and_is_named(make_daemon: Make):
    """Whatever program it is that is called python, the admin hears which."""
    daemon = make_daemon(start=False)
    shutil.copy("/bin/true", daemon.folder / "python3")
    add_plugin(daemon, "a", entry='python = "../python3"', text="x = 1\n")
    told = refusal(daemon, Exit.PLUGIN)
    assert "plugin 'a' did not start: " in told
    assert "/python3 said nothing to forkd: is it a Python of version 3.11" in told


def test_a_version_that_newly_wants_the_network_does_not_start(make_daemon: Make):
    """plugins.md: a want that is not granted stops start-up with one clear line."""
    daemon = make_daemon(start=False)
    folder = add_plugin(daemon, "a", text=PLAIN)
    daemon.start()
    assert mail(daemon, "x")[0] == 250
    daemon.stop()
    wants = '[wants.capabilities]\ndns = { suffixes = ["zen.example"], reason = "asks a list" }\n'
    (folder / "plugin.toml").write_text(manifest("a", wants))
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(60) == Exit.CONFIG
    told = "the plugin a wants to look up names below zen.example, which is not granted; its reason: "
    assert told + '"asks a list"' in daemon.log_text()
    with (daemon.folder / "plugins.d" / "10-a.toml").open("a") as entry:
        entry.write('[grants]\ndns = ["zen.example"]\n')
    assert daemon.forkd("config", "check", "forkd.toml").returncode == 0


@pytest.mark.slow
@pytest.mark.both_modes
def test_changed_files_are_not_loaded_before_a_restart(make_daemon: Make):
    """A half-written plugin must not take the place of one that crashed; its on_failure answers."""
    daemon = make_daemon(start=False, config='[breaker]\npause = "1s"\n')
    folder = add_plugin(daemon, "a", text=PLAIN, entry='on_failure = "defer"')
    daemon.start()
    module = folder / "a.py"
    before = module.read_text()
    module.write_text(before + "\nraise SystemExit('half writ")
    os.kill(daemon.role("zygote a")[0], signal.SIGKILL)
    wait_for(lambda: [e for e in daemon.events("process") if e["act"] == "not_started"], timeout_s=20)
    assert wait_for(lambda: mail(daemon, "x")[0] == 451, timeout_s=20)
    assert mail(daemon, "x")[0] == 451
    told = [
        e["reason"] for e in daemon.events("process") if e["act"] == "not_started" and e["level"] == "error"
    ]
    assert told == [f"{Path('a')} changed on disk since forkd started; takes effect at the next restart"]
    module.write_text(before)
    wait_for(lambda: daemon.role("zygote a"), timeout_s=60)
    assert wait_for(lambda: mail(daemon, "x")[0] == 250, timeout_s=20)


@pytest.mark.both_modes
def test_files_that_others_can_write_do_not_start(make_daemon: Make):
    """Who writes a plugin's files has its grants."""
    daemon = make_daemon(start=False)
    folder = add_plugin(daemon, "a", text=PLAIN)
    (folder / "a.py").chmod(0o666)
    told = refusal(daemon, Exit.CONFIG)
    assert told == "plugin 'a' is not started: everybody may write a/a.py: chmod -R go-w a"
    (folder / "a.py").chmod(0o644)
    daemon.start()


def test_status_shows_what_was_loaded(make_daemon: Make):
    """The hash of the files that are in force."""
    daemon = make_daemon(
        plugins={"90-mark.toml": 'plugin = "mark"\n[grants]\nedit_headers = ["X-Forkd-Plugin"]\n'}
    )
    (loaded,) = daemon.told("plugin_loaded")
    status = json.loads(daemon.forkd("status", "--json", "--config", "forkd.toml").stdout)
    (zygote,) = [one for one in status["processes"] if one["name"] == "mark"]
    assert zygote["info"] == {"sha256 mark": loaded["sha256"]}
    rows = json.loads(daemon.forkd("plugin", "list", "--json", "--config", "forkd.toml").stdout)
    (row,) = [row for row in rows if row["on"]]
    assert (row["plugin"], row["state"], row["failures"], row["breaker"]) == ("mark", "running", 0, "closed")
    shown = json.loads(daemon.forkd("plugin", "show", "mark", "--json", "--config", "forkd.toml").stdout)
    assert (shown["running"]["pid"], shown["running"]["changed"]) == (zygote["pid"], False)
