"""forkd queue where no forkd runs, and export: both read the spool's files."""

from __future__ import annotations

import contextlib
import json
import mailbox
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forkd.cli.failure import CommandFailed
from forkd.cli.queue_export import append_to_mbox
from forkd.exits import Exit
from forkd.queue import state, stored
from forkd.queue.envelope import Edit
from forkd.queue.outcome import Outcome
from forkd.queue.spool import Spool
from forkd.queue.state import Attempt
from tests.cli.conftest import ROOT, Forkd
from tests.support.fake_control import FakeControl, ok
from tests.support.spooling import MAIL, a_spool, queued

TRACE = "Received: from x ([192.0.2.1])\n\tby mx (forkd) with ESMTP id X;\n\tdate\n"
LF_MAIL = MAIL.replace(b"\r\n", b"\n")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "var/spool", durable=False)


def tried(spool: Spool, queue_id: str, outcome: Outcome, next_try_at: float) -> None:
    line = Attempt(at=time.time(), next_try_at=next_try_at, outcomes=(outcome,))
    state.append(f"{spool.new}/{queue_id}", line, state.State(), durable=False)


def files(spool: Spool) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted(Path(spool.new).iterdir())]


# --- no forkd ---------------------------------------------------------------------------------------


def test_the_queue_can_be_looked_at_without_a_daemon(forkd: Forkd, spool: Spool) -> None:
    """With a word about it, the same choices, states as the files have them; nothing is changed."""
    fresh = queued(spool, "a@one.test", received_at=time.time())
    waits = queued(spool, "b@two.test", received_at=time.time() - 7200)
    tried(spool, waits, Outcome(0, "deferred", "4.4.1", "421 busy", reply="421 busy"), time.time() + 600)
    held = queued(spool, "c@three.test", received_at=time.time(), hold="looks bad")
    before = files(spool)
    done = forkd("queue", "list", "--json")
    answer = json.loads(done.stdout)
    assert {entry["id"]: (entry["state"], entry["reason"]) for entry in answer["entries"]} == {
        fresh: ("active", ""),
        waits: ("deferred", "421 busy"),
        held: ("hold", "looks bad"),
    }
    assert (answer["offline"], answer["count"], answer["more"]) == (True, 3, False)
    assert "note: no forkd runs here; read from the files in " in done.stderr
    assert [
        line.split()[0] for line in forkd("queue", "list", "--older-than", "1h").stdout.splitlines()[1:]
    ] == [waits]
    shown = forkd("queue", "show", waits).stdout
    assert "b@two.test" in shown and "421 busy" in shown and "192.0.2.1" not in shown
    counted = forkd("queue", "stat")
    assert counted.stdout.startswith("3 messages, ")
    assert "no forkd runs here" in counted.stderr
    assert files(spool) == before


def test_many_messages_are_paged_without_a_daemon(forkd: Forkd, spool: Spool) -> None:
    """More than one page takes; none is missing."""
    ids = [queued(spool) for _ in range(1200)]
    answer = json.loads(forkd("queue", "list", "--json", "--limit", "5000").stdout)
    assert [entry["id"] for entry in answer["entries"]] == ids
    assert json.loads(forkd("queue", "stat", "--json").stdout)["messages"] == 1200
    limited = json.loads(forkd("queue", "list", "--json", "--limit", "7").stdout)
    assert ([entry["id"] for entry in limited["entries"]], limited["more"]) == (ids[:7], True)


@pytest.mark.parametrize("act", ["flush", "hold", "release", "remove"])
def test_nothing_is_done_without_a_daemon(forkd: Forkd, spool: Spool, act: str) -> None:
    """Whoever starts between two looks would deliver what is being changed."""
    queue_id, before = queued(spool), files(spool)
    for what in ([queue_id], ["--all"], ["--sender", "*"]):
        done = forkd("queue", act, *what, *(["--yes"] if act == "remove" else []))
        assert done.returncode == Exit.NO_DAEMON
        assert "no forkd runs here" in done.stderr
    assert [name for name, _ in before] == [queue_id]
    assert files(spool) == before


def test_the_files_answer_while_qmgr_does_not(forkd: Forkd, tmp_path: Path, spool: Spool) -> None:
    """It is being restarted, say: admin tells, and an admin still sees what waits."""
    queue_id = queued(spool)
    away = b'{"ok": false, "error": "qmgr does not answer", "away": true}\n'
    with FakeControl(tmp_path / "var", lambda _: away):
        done = forkd("queue", "list")
        assert queue_id in done.stdout
        assert "note: qmgr does not answer; read from the files in " in done.stderr
        refused = forkd("queue", "hold", queue_id)
    assert (refused.returncode, "qmgr does not answer" in refused.stderr) == (Exit.FAILED, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
@pytest.mark.parametrize(
    "command", [["list"], ["stat"], ["export", "--all", "--mbox", "-"]], ids=lambda c: c[0]
)
def test_who_may_not_read_the_spool_is_told_who_may(tmp_path: Path, spool: Spool, command: list[str]) -> None:
    """Mail is nobody else's to read."""
    queued(spool)
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "var").chmod(0o711)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "forkd", "queue", *command],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == Exit.FAILED, done.stderr
    assert "cannot be read: Permission denied" in done.stderr
    assert "run this as root, or as the user that owns the spool" in done.stderr


# --- export -----------------------------------------------------------------------------------------


def test_an_export_is_what_would_be_delivered(forkd: Forkd, spool: Spool) -> None:
    """Trace and edits; as received; or the envelope alone."""
    edits = (Edit(op="add_header", name="X-Seen", value="1"), Edit(op="delete_header", name="To"))
    queue_id = queued(spool, "a@one.test", edits=edits, sender="s@x.org")
    assert forkd("queue", "export", queue_id).stdout == (
        TRACE + "X-Seen: 1\nSubject: hello\n\nfirst line\n.dot\nlast\n"
    )
    raw = subprocess.run(
        [sys.executable, "-m", "forkd", "queue", "export", "--raw", queue_id, "--data-dir",
         str(Path(spool.new).parent.parent.parent)],
        capture_output=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert raw.stdout == MAIL
    envelope = json.loads(forkd("queue", "export", "--envelope", queue_id).stdout)
    assert (envelope["id"], envelope["sender"]) == (queue_id, "s@x.org")
    assert envelope["recipients"] == [{"address": "a@one.test"}]


def test_many_become_files_of_their_own(forkd: Forkd, tmp_path: Path, spool: Spool) -> None:
    """Only the owner's to read, and nothing that was there is overwritten."""
    ids = [queued(spool, "a@one.test") for _ in range(3)]
    queued(spool, "b@two.test")
    done = forkd("queue", "export", "--domain", "one.test", "--to", "out/in")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "3 exported")
    found = sorted((tmp_path / "out/in").iterdir())
    assert [path.name for path in found] == [f"{queue_id}.eml" for queue_id in ids]
    assert {path.read_bytes() for path in found} == {TRACE.encode() + LF_MAIL}
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    again = forkd("queue", "export", ids[0], "--to", "out/in")
    assert (again.returncode, "File exists" in again.stderr) == (Exit.FAILED, True)
    envelopes = forkd("queue", "export", "--all", "--envelope", "--to", "out/envelopes", "--json")
    assert json.loads(envelopes.stdout) == {"ok": True, "exported": 4, "gone": 0}
    assert len(list((tmp_path / "out/envelopes").glob("*.json"))) == 4


@pytest.mark.parametrize("size", [0, 100_000], ids=["small", "large"])
def test_an_mbox_is_read_back_by_python(forkd: Forkd, tmp_path: Path, spool: Spool, size: int) -> None:
    """Lines that look like separators are quoted, in whatever piece they come; no line end is lost or won."""
    bodies = [
        b"Subject: one\r\n\r\nFrom here\r\n>From there\r\n" + b"x" * size + b"\r\n\r\nFrom the end\r\n",
        b"Subject: two\r\n\r\n" + b"y\r\nFrom me\r\n" * (size // 10) + b"no line end",
    ]
    for body in bodies:
        queued(spool, message=body, sender="s@x.org")
    assert forkd("queue", "export", "--all", "--mbox", "all.mbox").returncode == 0
    text = (tmp_path / "all.mbox").read_bytes()
    assert text.startswith(b"From s@x.org Tue Nov 14 22:13:20 2023\n")
    with contextlib.closing(mailbox.mbox(tmp_path / "all.mbox")) as box:
        found = [re.sub(rb"(?m)^>(>*From )", rb"\1", message.as_bytes()) for message in box]
    whole = [body.replace(b"\r\n", b"\n") for body in bodies]
    # A last line without an end gets one: an mbox has only lines.
    assert found == [TRACE.encode() + whole[0], TRACE.encode() + whole[1] + b"\n"]
    assert forkd("queue", "export", "--all", "--mbox", "-").stdout.encode() == text
    assert forkd("queue", "export", "--all", "--mbox", "all.mbox").returncode == Exit.FAILED


def test_one_message_goes_to_standard_output_and_no_two(forkd: Forkd, spool: Spool) -> None:
    """They could not be told apart."""
    assert forkd("queue", "export").returncode == Exit.USAGE
    for _ in range(2):
        queued(spool)
    done = forkd("queue", "export", "--all")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "2 messages fit; standard output takes one" in done.stderr


@pytest.mark.parametrize("queue_id", ["A" * 16, "../../../etc/passwd", "x"])
def test_what_is_not_there_is_not_exported(forkd: Forkd, tmp_path: Path, spool: Spool, queue_id: str) -> None:
    """And an id is no path."""
    queued(spool)
    done = forkd("queue", "export", queue_id)
    assert (done.returncode, done.stdout) == (Exit.FAILED, "")
    assert f"no message {queue_id} in the queue" in done.stderr
    assert forkd("queue", "export", queue_id, "--to", "out").returncode == Exit.FAILED


def test_a_damaged_message_is_not_exported_in_part(forkd: Forkd, tmp_path: Path, spool: Spool) -> None:
    """A large one is only known to be damaged at its end: its file goes again."""
    queue_id = queued(spool, message=b"Subject: x\r\n\r\n" + b"a" * 200_000 + b"\r\n")
    with Path(f"{spool.new}/{queue_id}").open("r+b") as file:
        file.seek(100)
        file.write(b"b")
    done = forkd("queue", "export", queue_id, "--to", "out")
    assert (done.returncode, "damaged" in done.stderr) == (Exit.FAILED, True)
    assert not list((tmp_path / "out").iterdir())


def test_what_goes_while_it_is_read_is_not_left_in_part(tmp_path: Path, spool: Spool) -> None:
    """In the middle of a long mbox: the others are in it, whole. Standard output takes nothing back."""
    queue_id = queued(spool, message=b"Subject: x\r\n\r\n" + b"a" * 200_000 + b"\r\n")
    message = stored.load(f"{spool.new}/{queue_id}", queue_id)
    Path(f"{spool.new}/{queue_id}").unlink()
    with (tmp_path / "mbox").open("w+b") as file:
        file.write(b"before\n")
        assert not append_to_mbox(file, message)
        file.write(b"after\n")
        file.seek(0)
        assert file.read() == b"before\nafter\n"
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb"),
        os.fdopen(writer, "wb") as pipe,
        pytest.raises(CommandFailed, match="while it"),
    ):
        append_to_mbox(pipe, message)


def test_two_outputs_do_not_mix(forkd: Forkd, spool: Spool) -> None:
    """Counts as JSON behind an mbox would belong to its last message."""
    queued(spool)
    done = forkd("queue", "export", "--all", "--mbox", "-", "--json")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")


def test_a_daemon_is_asked_which_messages_are_meant(forkd: Forkd, tmp_path: Path, spool: Spool) -> None:
    """It knows what is being tried; the messages themselves are read from the files."""
    chosen, other = queued(spool, "a@one.test"), queued(spool, "b@two.test")
    from tests.cli.test_queue import an_entry
    from tests.support.fake_control import queued as answered

    entries = [an_entry(chosen), an_entry("A" * 16)]
    with FakeControl(tmp_path / "var", lambda _: ok(answered(entries=entries, count=2, seen=2))) as control:
        done = forkd("queue", "export", "--state", "active", "--to", "out")
    assert (done.returncode, done.stderr) == (0, "1 exported, 1 had gone meanwhile\n")
    assert [path.stem for path in (tmp_path / "out").iterdir()] == [chosen]
    assert control.requests[0]["filter"] == {"states": ["active"]}
    assert other not in done.stdout
