"""forkd plugin try-so, and what other commands say of compiled plugins, as an admin types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forkd.exits import Exit
from tests.indimail.compiling import compiled, entry, row

ROOT = Path(__file__).parent.parent.parent


def forkd(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forkd", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "COLUMNS": "200"},
    )


def test_all_accepted_is_0(tmp_path: Path):
    """Each call, its value, what the client gets, and what it cost."""
    file = compiled("template")
    done = forkd(
        tmp_path,
        "plugin",
        "try-so",
        file,
        "--sender",
        "a@b.c",
        "--recipient",
        "x@y.z",
        "--recipient",
        "z@y.z",
    )
    assert done.returncode == Exit.OK, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["[0]", str(file)]
    assert [row[:4] for row in rows if row and row[0].endswith("_func")] == [
        ["mail_func", "<a@b.c>", "0", "goes"],
        ["rcpt_func", "<x@y.z>", "0", "goes"],
        ["rcpt_func", "<z@y.z>", "0", "goes"],
        ["data_func", "0", "goes", "on"],
    ]
    assert done.stdout.splitlines()[-1] == "accepted"


def test_a_refusal_is_1_and_json_has_it_all(tmp_path: Path):
    """With --json for scripts; several files and folders are asked in their order."""
    done = forkd(
        tmp_path,
        *("plugin", "try-so", compiled("template"), row(None, 0, 1), "--json", "--remote-ip", "198.51.100.7"),
        *("--sender", "1@b.c"),
    )
    assert done.returncode == Exit.FAILED, done.stderr
    told = json.loads(done.stdout)
    (call,) = told["calls"]
    assert (call["function"], call["returned"]) == ("mail_func", [0, 0, 0, 1])
    assert call["reply"] == "550 5.7.1 I am number 1"
    assert call["text"] == "returned 1, and its text is '550 5.7.1 I am number 1\\r\\n'"
    assert told["refused"] and told["ok"] and len(told["files"]) == 4
    assert call["cpu_ms"] > 0 and call["memory"] > 1 << 20


HARMFUL = {
    "crash": (("faults", "--sender", "segv@b.c"), "crash: SIGSEGV"),
    "hang": (("faults", "--sender", "sleep@b.c", "--timeout", "0.3"), "deadline: no answer within 0.3 s"),
    "unusable": (("unusable", "-DHOW=3"), "has no function plugin_init()"),
}


@pytest.mark.parametrize(
    "how", ["crash", *(pytest.param(how, marks=pytest.mark.slow) for how in ("hang", "unusable"))]
)
def test_a_crash_a_hang_and_what_cannot_be_loaded_are_more_than_1(tmp_path: Path, how: str):
    """Said in words, and by the exit status; never a hanging command."""
    (name, *more), said = HARMFUL[how]
    defines = [word for word in more if word.startswith("-D")]
    options = [word for word in more if word not in defines]
    done = forkd(tmp_path, "plugin", "try-so", compiled(name, *defines), *options)
    assert done.returncode == Exit.PLUGIN >= 2
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [("--sender", "no address@"), ("--env", "A B=1"), ("/nowhere.so",)])
def test_what_is_wrong_on_the_command_line_is_2(tmp_path: Path, wrong: tuple[str, ...]):
    """Not to be taken for a refusal."""
    done = forkd(tmp_path, "plugin", "try-so", compiled("template"), *wrong)
    assert done.returncode == Exit.USAGE and done.stderr


def test_list_show_and_config_show_know_it(tmp_path: Path):
    """A plugin without a manifest has a place in each of them."""
    (tmp_path / "forkd.toml").write_text('[domain."test.local"]\n')
    (tmp_path / "plugins.d").mkdir()
    text = entry(compiled("template"), 'environment = { MORE = "1" }')
    (tmp_path / "plugins.d" / "10-mine.toml").write_text(text)
    config = ("--config", tmp_path / "forkd.toml")
    (first, *_) = json.loads(forkd(tmp_path, "plugin", "list", "--json", *config).stdout)
    assert (first["plugin"], first["from"], first["on"]) == ("mine", "indimail", True)
    shown = forkd(tmp_path, "plugin", "show", "mine", *config)
    assert shown.returncode == 0, shown.stderr
    assert str(compiled("template")) in shown.stdout and "MORE=1" in shown.stdout
    in_force = forkd(tmp_path, "config", "show", "--effective", *config).stdout
    assert f'code = ["{compiled("template")}"]' in in_force and 'kind = "indimail"' in in_force
