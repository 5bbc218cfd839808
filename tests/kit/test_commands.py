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
from forkd.rpc.records import crash_folder
from tests.kit.conftest import WritePlugin
from tests.kit.test_replay import CODE, READS, recorded
from tests.support import venvs

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


@pytest.mark.parametrize(
    "hooks",
    [(), HOOKS, *(pytest.param((hook,), marks=pytest.mark.slow) for hook in HOOKS if hook != "disconnect")],
)
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


@pytest.mark.parametrize("command", ["check", "test"])
def test_calls_that_are_refused_while_it_is_loaded_are_named(
    run: Run, write_plugin: WritePlugin, command: str
):
    """With the line, by both commands."""
    write_plugin("import ctypes\nprint('here')\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\n", name="deadly")
    done = run("forkd", "plugin", command, "deadly")
    assert done.returncode == (Exit.FAILED if command == "check" else Exit.PLUGIN)
    said = done.stdout + done.stderr
    assert "killed while it was loaded: SIGSYS" in said
    assert "ptrace(PTRACE_TRACEME, 0): killed while it was loaded, deadly.py:3 in <module>" in said
    assert "\n  it printed:\n    here\n" in said


def test_a_plugin_with_an_interpreter_of_its_own(run: Run, place: Path):
    """As `python` of its entry: what is installed there is there, by each command."""
    python = venvs.make(place / "venv")
    venvs.install(python, "thing", "1.2", thing_py="VERSION = '1.2'\n")
    own = ("--python", "venv/bin/python")
    made = run("forkd", "plugin", "new", "fresh", *own)
    assert f'python = "{python}"' in made.stdout
    assert "forkd plugin check fresh --python venv/bin/python" in made.stdout
    module = place / "fresh" / "fresh.py"
    module.write_text(module.read_text().replace("from forkd.sdk", "import thing\nfrom forkd.sdk", 1))
    for command in ("check", "test"):
        without = run("forkd", "plugin", command, "fresh")
        assert "No module named 'thing'" in without.stdout + without.stderr
        done = run("forkd", "plugin", command, "fresh", *own)
        assert done.returncode == 0, done.stdout + done.stderr
        wrong = run("forkd", "plugin", command, "fresh", "--python", "/bin/true")
        assert wrong.returncode != 0
        assert "nothing says that this is Python" in wrong.stdout + wrong.stderr


# --- replay ---------------------------------------------------------------------------------------------


@pytest.fixture
def record(place: Path, write_plugin: WritePlugin) -> str:
    """The id of a record of a plugin that is configured in the folder, and fails still."""
    write_plugin(CODE.replace("BODY", "1 / 0"), hooks=("mail", "message"), more=READS)
    crashes = crash_folder(place / "var")
    crashes.mkdir(parents=True)
    (place / "plugins.d").mkdir()
    (place / "plugins.d" / "50-sample.toml").write_text(
        'plugin = "../sample"\n[grants]\nreads = ["headers"]\n'
    )
    (place / "forkd.toml").write_text('[domain."test.local"]\n')
    return recorded(crashes, cause="exception", detail="Traceback:\n  File x\nZeroDivisionError").stem


def test_replay_shows_what_failed_and_nothing_of_forkds_own(run: Run, record: str):
    """Lines are lines; what we ourselves are refused while a traceback is printed is no finding."""
    again = run("forkd", "plugin", "replay", record, "--config", "forkd.toml")
    assert again.returncode == Exit.FAILED
    lines = [line.split() for line in again.stdout.splitlines()]
    assert ["it", "failed", "by", "exception:", "Traceback:"] in lines
    assert ["ZeroDivisionError:", "division", "by", "zero"] in lines
    assert "\\n" not in again.stdout
    assert "refused" not in again.stdout
    assert again.stdout.endswith("the same failure\n")
    said = json.loads(run("forkd", "plugin", "replay", record, "--config", "forkd.toml", "--json").stdout)
    assert said["refused"] == []


def test_replay_says_which_configuration_was_probably_meant(run: Run, record: str):
    """As the commands that look for a running daemon do."""
    for wanted, says in ((record, "is not configured"), ("0123456789ABCDEE", "there is no record")):
        again = run("forkd", "plugin", "replay", wanted)
        assert again.returncode == Exit.FAILED
        assert says in again.stderr
        assert "to use it: --config forkd.toml" in again.stderr


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
