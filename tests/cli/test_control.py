"""What commands say when the daemon answers, refuses, hangs, or is not there."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd.exits import Exit
from tests.cli.conftest import ROOT, Forkd
from tests.support.config_files import write
from tests.support.fake_control import FakeControl, ok, queued

STATUS = {
    "version": "0.1.0",
    "state": "running",
    "pid": 1,
    "started_at": 0.0,
    "hostname": "mail.example.org",
    "listeners": {"default": "127.0.0.1:2525"},
    "durability": "fsync",
    "processes": [
        {"role": "worker", "slot": 0, "pid": 10, "state": "running", "started_at": 1.0, "restarts": 2,
         "name": "", "sessions": 3, "transactions": 1, "counters": {"messages": 7}, "info": {}},
        {"role": "zygote", "slot": 0, "pid": 11, "state": "backoff", "started_at": 1.0, "restarts": 9,
         "name": "mark", "sessions": 0, "transactions": 0, "counters": {}, "info": {},
         "last_end": "SIGKILL: its loop stands still\x1b[31m", "last_end_at": 1.0},
    ],
    "sandbox": {"seccomp": "enforced", "network": "absent"},
    "notes": ["running as root"],
}  # fmt: skip


def entry(at: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"ID{at:04}", "sender": "", "recipients": ["a@example.org"], "more_recipients": 2, "size": 5120,
        "received_at": 0.0, "attempts": 3, "next_try_at": 0.0, "reason": "no route\x1b[31m",
        "state": "active", "detail": "", **more,
    }  # fmt: skip


def queue(request: dict[str, Any]) -> bytes:
    """250 messages, in pages as qmgr gives them."""
    if request["act"] == "show":
        return ok(queued(entries=[entry(1, detail='{"trace": 1}')], count=1))
    if request["act"] != "list":
        return ok(queued(count=min(2, len(request.get("ids", ()))) or 250))
    ids = [at for at in range(250) if f"ID{at:04}" > request["after"]][:100]
    entries = [entry(at) for at in ids]
    more = bool(ids) and ids[-1] < 249
    return ok(queued(entries=entries, count=250, seen=len(ids), more=more, after=entries[-1]["id"]))


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[FakeControl]:
    """A daemon that runs in ./var."""
    with FakeControl(tmp_path / "var", lambda r: queue(r) if r["request"] == "queue" else ok(STATUS)) as fake:
        yield fake


# --- no daemon --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["status"], ["stop"], ["queue", "list"], ["sandbox", "status"]])
def test_without_a_daemon_it_says_where_it_looked_and_how_to_name_another(
    forkd: Forkd, tmp_path: Path, command: list[str]
):
    """Status 3, as `not running` elsewhere."""
    done = forkd(*command)
    assert (done.returncode, done.stdout) == (Exit.NO_DAEMON, "")
    assert f"no forkd runs here: there is no folder {tmp_path}/var" in done.stderr
    assert "--config FILE or --data-dir DIR" in done.stderr


def test_without_a_daemon_json_is_still_json(forkd: Forkd):
    """Whoever parses the output can parse the failure."""
    done = forkd("status", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"]) == (Exit.NO_DAEMON, False)
    assert "no forkd runs here" in answer["error"]


def test_a_configuration_that_lies_there_is_offered(forkd: Forkd, tmp_path: Path):
    """The likeliest reason: the daemon was started with it, and it names another data_dir."""
    write(tmp_path, forkd_toml="")
    assert "did you mean --config forkd.toml?" in forkd("status").stderr
    assert "start it by `forkd run --config forkd.toml`" in forkd("status", "--config", "forkd.toml").stderr


def test_a_left_over_socket_is_told_from_a_running_daemon(forkd: Forkd, tmp_path: Path):
    """After kill -9 the file may be there, and nobody behind it."""
    (tmp_path / "var/run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "var/run/control.sock"))
    done = forkd("status")
    assert (done.returncode, "nobody listens on it" in done.stderr) == (Exit.NO_DAEMON, True)


@pytest.mark.parametrize("option", ["--data-dir", "--config"])
def test_another_daemon_is_found_by_folder_or_configuration(forkd: Forkd, tmp_path: Path, option: str):
    """Even when the configuration was spoilt after the start, and its folder's path is a long one."""
    deep = tmp_path / ("d" * 120)
    write(tmp_path, forkd_toml=f'[server]\ndata_dir = "{deep.name}"\nspoilt = true\n')
    named = {"--data-dir": deep.name, "--config": "forkd.toml"}[option]
    # The fake's own bind is subject to the 107 bytes of a socket's address: it goes a shorter way.
    link = tmp_path / "l"
    deep.mkdir()
    link.symlink_to(deep)
    short = Path(os.path.relpath(link))
    with FakeControl(short if len(str(short)) < len(str(link)) else link, lambda _: ok(STATUS)):
        done = forkd("status", option, named)
    assert done.returncode == 0, done.stderr


# --- bad answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"ok": false, "error": "master does not read its channel"}\n', "master does not read its channel"),
        (b"", "closed the connection"),
        (b"220 mail.example.org ESMTP\n", "does not speak forkd's control protocol"),
        (b"[]\n", "does not speak forkd's control protocol"),
    ],
)
def test_a_refusal_or_nonsense_is_an_error_with_its_reason(
    forkd: Forkd, tmp_path: Path, answer: bytes, said: str
):
    """Status 1: understood, and could not be done."""
    with FakeControl(tmp_path / "var", lambda _: answer):
        done = forkd("status")
    assert (done.returncode, done.stdout) == (Exit.FAILED, "")
    assert said in done.stderr


def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(tmp_path: Path):
    """Its admin process may stand still: the connection is made by the kernel, and nobody reads."""
    from forkd.cli.control import request
    from forkd.cli.failure import CommandFailed

    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(tmp_path / "run/control.sock"))
        stuck.listen()
        with pytest.raises(CommandFailed, match="does not answer"):
            request(tmp_path, "status", timeout_s=0.05)


# --- what is printed --------------------------------------------------------------------------------


def test_status_is_one_screen(forkd: Forkd, answers: FakeControl):
    """operations.md: `forkd status`: one screen."""
    done = forkd("status")
    assert done.returncode == 0
    for word in (
        "127.0.0.1:2525",
        "mail.example.org",
        "messages 7",
        "zygote mark",
        "backoff",
        "running as root",
    ):
        assert word in done.stdout
    assert len(done.stdout.splitlines()) < 24


def test_status_tells_what_is_in_force_and_what_is_not(tmp_path: Path, forkd: Forkd):
    """The generation, how many workers may be, why the files are not what runs; who drains comes last."""
    worker = {"role": "worker", "restarts": 0, "started_at": 1.0, "counters": {"messages": 1}}
    told = STATUS | {
        "generation": 8, "generation_at": 1.0, "not_reloaded": "forkd.toml:3: no such key\nand more",
        "not_reloaded_at": 1.0, "pool": {"min": 1, "max": 4, "sessions": 100, "spare": 25},
        "ended": {"messages": 40, "plugin.mark.failed.limit": 2},
        "processes": [
            worker | {"slot": 0, "pid": 10, "state": "draining", "sessions": 2, "generation": 7},
            worker | {"slot": 1, "pid": 11, "state": "running", "sessions": 30, "generation": 8},
            worker | {"slot": 2, "pid": 12, "state": "running", "sessions": 1, "generation": 8},
        ],
    }  # fmt: skip
    with FakeControl(tmp_path / "var", lambda _: ok(told)):
        shown = forkd("status").stdout
    lines = shown.splitlines()
    assert "generation 8 is in force" in shown
    assert "forkd.toml:3: no such key …" in next(line for line in lines if line.startswith("NOT RELOADED"))
    assert "2 of 1 to 4; 169 of 200 sessions free, one more worker below 50" in shown
    assert "messages 43" in next(line for line in lines if line.startswith("since start"))
    assert "failed limit 2" in next(line for line in lines if line.startswith("plugin mark"))
    assert [line.split()[1] for line in lines[-3:]] == ["1", "2", "0"]
    assert "draining gen 7" in lines[-1] and "gen" not in lines[-2]


def test_status_speaks_json(forkd: Forkd, answers: FakeControl):
    """Everything the daemon said, unchanged."""
    assert json.loads(forkd("status", "--json").stdout) == STATUS


def test_sandbox_status_names_each_layer(forkd: Forkd, answers: FakeControl):
    """sandbox.md: each layer is reported as enforced, absent or failed."""
    rows = [row.split() for row in forkd("sandbox", "status").stdout.splitlines()]
    assert ["seccomp", "enforced"] in [row[:2] for row in rows]
    assert ["network", "absent"] in [row[:2] for row in rows]
    assert json.loads(forkd("sandbox", "status", "--json").stdout)["layers"] == STATUS["sandbox"]


@pytest.mark.parametrize("command", [["status"], ["sandbox", "status"]])
def test_why_a_process_was_started_anew_is_told(forkd: Forkd, answers: FakeControl, command: list[str]):
    """Of whichever was; a plugin's author may have written it, and no terminal obeys it."""
    shown = forkd(*command).stdout
    assert " ago: SIGKILL: its loop stands still\\x1b[31m" in shown
    assert shown.count(" ago: ") == 1
    if command == ["status"]:
        assert "restarts of zygote mark" in shown and "9, the one before ended" in shown


def test_the_queue_is_listed_over_all_pages(forkd: Forkd, answers: FakeControl):
    """One record between our processes is small, a queue is not."""
    done = forkd("queue", "list", "--json", "--limit", "240")
    assert [one["id"] for one in json.loads(done.stdout)["entries"]] == [f"ID{at:04}" for at in range(240)]
    assert [request["after"] for request in answers.requests] == ["", "ID0099", "ID0199"]


def test_a_queue_table_has_one_row_per_message(forkd: Forkd, answers: FakeControl):
    """For eyes, and for grep."""
    done = forkd("queue", "list", "--limit", "3")
    assert len(done.stdout.splitlines()) == 4
    assert "a@example.org and 2 more" in done.stdout
    assert "3 of 250" in done.stderr


def test_what_strangers_wrote_cannot_reach_the_terminal(forkd: Forkd, answers: FakeControl):
    """A next hop's text, or an address, may hold escape sequences."""
    shown = forkd("queue", "list", "--limit", "1").stdout + forkd("queue", "show", "ID0001").stdout
    assert "\x1b" not in shown
    assert "no route\\x1b[31m" in shown


def test_remove_needs_to_know_what(forkd: Forkd, answers: FakeControl):
    """Never the whole queue by a forgotten argument."""
    assert forkd("queue", "remove").returncode == Exit.USAGE
    assert not answers.requests


def test_flush_without_ids_means_all(forkd: Forkd, answers: FakeControl):
    """The count is the daemon's."""
    assert forkd("queue", "flush").stdout == "250 messages to be tried now\n"
    assert forkd("queue", "flush", "A", "B").stdout == "2 messages to be tried now\n"


def test_messages_that_are_not_there_are_an_error(forkd: Forkd, answers: FakeControl):
    """A script that removes must know when there was nothing to remove."""
    done = forkd("queue", "remove", "A", "B", "C")
    assert done.returncode == Exit.FAILED
    assert "1 message not removed; 2 messages removed" in done.stderr


# --- terminals --------------------------------------------------------------------------------------


def on_terminal(folder: Path, *arguments: str, columns: int, **environment: str) -> str:
    """The command's output on a pseudo-terminal of this width."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "forkd", *arguments],
            cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm",
                 "COLUMNS": str(columns), **environment},
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while piece := screen.read(65_536):
                shown += piece
        except OSError:  # EIO: the other side is closed
            pass
        process.wait(30)
    return shown.decode()


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_fit_the_terminal(tmp_path: Path, answers: FakeControl, columns: int):
    """operations.md: tables that fit a terminal; what does not fit is folded, not cut."""
    for command in (["status"], ["queue", "list", "--limit", "2"], ["sandbox", "status"]):
        shown = on_terminal(tmp_path, *command, columns=columns, NO_COLOR="1")
        assert max(len(row) for row in shown.splitlines()) <= columns
    assert "enforced" in shown


def test_colours_are_for_terminals_that_want_them(tmp_path: Path, answers: FakeControl):
    """https://no-color.org: with NO_COLOR set, no escape sequence at all, in failures neither."""
    assert "\x1b[" in on_terminal(tmp_path, "status", columns=100)
    assert "\x1b" not in on_terminal(tmp_path, "status", columns=100, NO_COLOR="1")
    assert "\x1b[" in on_terminal(tmp_path, "status", "--data-dir", "no", columns=100)
    assert "\x1b" not in on_terminal(tmp_path, "status", "--data-dir", "no", columns=100, NO_COLOR="1")
