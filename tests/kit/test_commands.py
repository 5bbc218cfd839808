"""forkd plugin new | test | bench, as an author types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forkd.config.schema import HOOKS
from forkd.exits import Exit
from tests.kit.conftest import WritePlugin

ROOT = Path(__file__).parent.parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]
STOCK = ("attachments", "block_senders", "headers", "mark", "recipients")


@pytest.fixture
def run(place: Path) -> Run:
    """Run a module's command in the empty folder."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "COLUMNS": "200"},
        )

    return command


# --- new ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hooks", [(), *((hook,) for hook in HOOKS if hook != "disconnect"), HOOKS])
def test_new_plugin_passes_its_own_tests_and_lint_at_once(run: Run, hooks: tuple[str, ...]):
    """Tests, linter and formatter with their defaults and with ours, check, and a real sandbox."""
    made = run("forkd", "plugin", "new", "fresh", *(word for hook in hooks for word in ("--hook", hook)))
    assert made.returncode == 0, made.stderr
    ours = ("--config", str(ROOT / "pyproject.toml"))
    for command in (
        ("pytest", "-q", "-p", "no:cacheprovider", "fresh"),
        *(("ruff", "check", "--no-cache", *more, "fresh") for more in (("--isolated",), ours)),
        *(("ruff", "format", "--no-cache", "--check", *more, "fresh") for more in (("--isolated",), ours)),
        ("forkd", "plugin", "check", "fresh"),
    ):
        done = run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    tested = run("forkd", "plugin", "test", "--json", "-s", "listed=listed.example", "fresh")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    said = json.loads(tested.stdout)
    called = {call["hook"] for session in said["sessions"] for call in session["calls"]}
    assert called == set(hooks or ("mail",))
    noted = said["loading"] + [noted for session in said["sessions"] for noted in session["refused"]]
    assert not [one for one in noted if not one["harmless"]]


def test_new_says_how_it_is_switched_on(run: Run, place: Path):
    """The lines of plugins.d that forkd itself takes."""
    made = json.loads(run("forkd", "plugin", "new", "fresh", "--hook", "data", "--json").stdout)
    (place / "plugins.d").mkdir()
    (place / "plugins.d" / "50-fresh.toml").write_text(made["entry"])
    (place / "forkd.toml").write_text('[domain."test.local"]\n')
    checked = run("forkd", "config", "check", "forkd.toml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "fresh" in checked.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("Fresh",), Exit.USAGE, "a small letter"),
        (("a-b",), Exit.USAGE, "a small letter"),
        (("../x",), Exit.USAGE, "a small letter"),
        (("json",), Exit.USAGE, "a module of Python has this name"),
        (("class",), Exit.USAGE, "a module of Python has this name"),
        (("fresh", "--hook", "disconnect"), Exit.USAGE, "choose another hook too"),
        (("fresh", "--hook", "quit"), Exit.USAGE, "quit"),
        (("fresh", "--in", "nowhere"), Exit.USAGE, "nowhere"),
        (("there",), Exit.FAILED, "there is there already"),
    ],
)
def test_new_refuses_what_cannot_be(
    run: Run, place: Path, arguments: tuple[str, ...], status: Exit, says: str
):
    """And writes nothing."""
    (place / "there").mkdir()
    made = run("forkd", "plugin", "new", *arguments)
    assert made.returncode == status
    assert says in made.stderr
    assert [path.name for path in place.rglob("*")] == ["there"]


# --- test -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STOCK)
def test_stock_plugins_pass(run: Run, name: str):
    """Over all built-in sessions, with nothing refused."""
    tested = run("forkd", "plugin", "test", name, "--json")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    said = json.loads(tested.stdout)
    assert not [one for session in said["sessions"] for one in session["refused"] if not one["harmless"]]
    names = {session["name"] for session in said["sessions"]}
    assert {"plain", "attachment", "null sender", "many recipients", "SMTPUTF8", "8-bit"} <= names


def test_test_shows_edits_and_costs(run: Run):
    """What the message becomes, and numbers that are none of nothing."""
    said = json.loads(run("forkd", "plugin", "test", "mark", "--json").stdout)
    call = said["sessions"][0]["calls"][0]
    assert call["changes"][0].startswith("+ X-Forkd-Plugin: mark; session=")
    assert (call["reply"], call["refused"]) == ("250 queued", False)
    assert call["wall_ms"] > 0
    assert call["cpu_ms"] > 0
    assert call["faults"] > 0
    assert call["memory"] > 1 << 20


def test_test_shows_a_refusal_as_the_client_sees_it(run: Run, place: Path):
    """Of a mail of one's own; settings are given as an admin gives them."""
    (place / "mail.eml").write_text("Subject: x\n\nhello\n")
    tested = run(
        *("forkd", "plugin", "test", "block_senders", "--eml", "mail.eml"),
        *("--settings", 'senders=["client.example", "other.example"]', "--json"),
    )
    said = json.loads(tested.stdout)
    assert [session["name"] for session in said["sessions"]] == ["mail.eml"]
    call = said["sessions"][0]["calls"][0]
    assert call["reply"] == "550 5.7.1 mail from this sender is not accepted here"
    assert tested.returncode == 0


def test_test_takes_sessions_from_a_file(run: Run, place: Path, write_plugin: WritePlugin):
    """Facts, several mails, a login."""
    write_plugin(
        "from forkd.sdk import Plugin, deny, ok\n"
        "def plugin_init(settings):\n"
        "    return Plugin(\n"
        "        auth=lambda session, user, secret: ok() if secret == 'x' else None,\n"
        "        mail=lambda session, sender: deny('5.7.1', f'{session.client_ip} {session.user} {sender}'),"
        "    )\n",
        hooks=("auth", "mail"),
        more='[wants.powers]\nauth = "for the test"\n',
    )
    (place / "sessions.toml").write_text(
        '[[session]]\nclient_ip = "198.51.100.7"\nauth = { user = "joe", secret = "x" }\n'
        '[[session.mail]]\nsender = ""\n[[session.mail]]\nsender = "a@b.example"\nmessage = "x"\n'
    )
    said = json.loads(run("forkd", "plugin", "test", "sample", "--session", "sessions.toml", "--json").stdout)
    replies = [call["reply"] for call in said["sessions"][0]["calls"]]
    assert replies == ["235", "550 5.7.1 198.51.100.7 joe", "550 5.7.1 198.51.100.7 joe a@b.example"]


@pytest.mark.parametrize(
    ("body", "status", "failure"),
    [
        ("1 / 0", Exit.FAILED, "exception"),
        ("import ctypes; ctypes.string_at(0)", Exit.FAILED, "crash"),
        ("import ctypes; ctypes.CDLL(None).unshare(0x10000000)", Exit.FAILED, "syscall"),
        ("import time; time.sleep(60)", Exit.FAILED, "deadline"),
        ("open('/etc/passwd').close() if False else None", Exit.OK, ""),
    ],
)
def test_status_is_for_ci(
    *, run: Run, place: Path, write_plugin: WritePlugin, body: str, status: Exit, failure: str
):
    """0 only where every hook answered."""
    code = f"from forkd.sdk import Plugin\ndef mail(session, sender):\n    {body}\n"
    write_plugin(
        code + "def plugin_init(settings):\n    return Plugin(mail=mail)\n", more="[limits]\ntimeout = '1s'\n"
    )
    (place / "one.eml").write_text("Subject: x\n\n")
    tested = run("forkd", "plugin", "test", "sample", "--eml", "one.eml", "--json")
    assert tested.returncode == status, tested.stdout + tested.stderr
    assert json.loads(tested.stdout)["sessions"][0]["calls"][0]["failure"] == failure


def test_a_plugin_that_does_not_start_is_said_so(run: Run, write_plugin: WritePlugin):
    """With its traceback; a setting that plugin_init refuses with its text alone."""
    write_plugin("import nothing_of_this_name\n", name="broken")
    tested = run("forkd", "plugin", "test", "broken")
    assert tested.returncode == Exit.PLUGIN
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in tested.stderr
    write_plugin("def plugin_init(settings):\n    raise ValueError('setting x: no')\n", name="choosy")
    tested = run("forkd", "plugin", "test", "choosy")
    assert tested.returncode == Exit.PLUGIN
    assert tested.stderr.strip() == "forkd: plugin_init refuses its settings: setting x: no"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("nowhere",), Exit.USAGE, "no folder nowhere"),
        (("mark", "-s", "x=1"), Exit.USAGE, "no setting x"),
        (("mark", "-s", "x"), Exit.USAGE, "NAME=VALUE"),
        (("filter",), Exit.USAGE, "setting replace has no default: give it with -s replace="),
        (("filter", "-s", "replace=[1]"), Exit.USAGE, "'[1]' is no strings"),
        (("mark", "--connect", "a=b:1"), Exit.USAGE, "wants no connection to a"),
        (("mark", "--eml", "none.eml"), Exit.USAGE, "none.eml: no such file"),
        (("headers", "-s", "max_fields=-1"), Exit.CONFIG, "at least 0"),
    ],
)
def test_test_refuses_what_cannot_be(run: Run, arguments: tuple[str, ...], status: Exit, says: str):
    """One line that says what would be right."""
    tested = run("forkd", "plugin", "test", *arguments)
    assert tested.returncode == status, tested.stdout + tested.stderr
    assert says in tested.stderr
    assert "Traceback" not in tested.stderr


# --- bench ----------------------------------------------------------------------------------------------


def test_bench_measures_sandboxes_beside_their_floors(run: Run):
    """Numbers of everything; their size is for tests/bench."""
    measured = run("forkd", "plugin", "bench", "mark", "--seconds", "0.5", "--json")
    assert measured.returncode == 0, measured.stderr
    said = json.loads(measured.stdout)
    assert said["hooks"] == ["message"]
    for kind in ("fresh", "reused"):
        assert said[kind]["sessions"] > 0
        assert said[kind]["cpu_s"] > 0
        assert said[kind]["session"]["p99_s"] >= said[kind]["session"]["p50_s"] > 0
    assert said["floor"]["fork_cpu_s"] > 0
    assert said["floor"]["call"]["p50_s"] > 0
    assert said["fresh"]["faults"] > said["floor"]["fork_faults"] > 0
    shown = run("forkd", "plugin", "bench", "mark", "--seconds", "0.5")
    assert "bare fork + exit + wait" in shown.stdout
