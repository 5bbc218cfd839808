"""The log: one line per event whatever it holds, and never a wait (operations.md, Logs)."""

from __future__ import annotations

import ast
import json
import os
import re
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from forkd import log, logacts, logjournal, logline


@pytest.fixture
def pipe():
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    yield read_end, write_end
    log.setup(fd=2, level="error")
    os.close(read_end)
    os.close(write_end)


def lines(read_end: int) -> list[bytes]:
    data = b""
    while True:
        try:
            data += os.read(read_end, 1 << 20)
        except BlockingIOError:
            return data.splitlines()


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_hostile_text_stays_one_line_of_visible_characters(pipe, form):
    """A plugin's or client's text cannot forge a line or move a terminal's cursor."""
    log.setup(form, fd=pipe[1])
    text = 'a\r\nlevel=error forged "\\ \x1b[2J \x9b \u2028 \u202e \ud800 \0 é'
    log.plugin_output(plugin="p", text=text)
    (line,) = lines(pipe[0])
    assert all(byte >= 0x20 and byte != 0x7F for byte in line)
    shown = line.decode()
    assert not any(bad in shown for bad in "\x9b\u2028\u202e")
    assert "é" in shown


def test_json_lines_are_json(pipe):
    """Every line of the JSON form parses, hostile text included."""
    log.setup("json", fd=pipe[1])
    log.plugin_output(plugin="p", text="\x85\u2028\ud800 \0")
    log.session_end(session="s", client="c", reason="quit", seconds=0.5)
    first, second = (json.loads(line) for line in lines(pipe[0]))
    assert first["event"] == "plugin_output"
    assert second["seconds"] == 0.5


def test_fields_without_a_value_are_left_out(pipe):
    """A line says what is known, not what is not."""
    log.setup("logfmt", fd=pipe[1])
    log.session_end(session="s1", client="192.0.2.1:25", reason="quit", seconds=0.25)
    (line,) = lines(pipe[0])
    assert line.endswith(b"level=info event=session session=s1 client=192.0.2.1:25 reason=quit seconds=0.250")


def test_the_level_decides(pipe):
    """Lines below [log] level are not written."""
    log.setup("logfmt", "warning", fd=pipe[1])
    log.session_end(session="s", client="c", reason="quit", seconds=0)
    log.overload(what="w")
    assert len(lines(pipe[0])) == 1


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_long_line_is_cut_to_what_a_pipe_takes_whole(pipe, form):
    """Lines of several processes in one pipe never mix: at most PIPE_BUF octets each (pipe(7))."""
    log.setup(form, fd=pipe[1])
    log.message(
        session="s", client="c", sender="x" * 9000, reply="é" * 9000, seconds=1,
        recipients=["r" * 5000] * 5, plugins=["p" * 500] * 500,
    )  # fmt: skip
    (line,) = lines(pipe[0])
    assert len(line) < log.MAX_LINE_BYTES
    assert b"event" in line


def test_a_reader_that_does_not_read_costs_lines_never_time(pipe):
    """A full pipe: lines are kept up to the limit, then dropped and counted; no call waits."""
    sink = log.Sink(pipe[1], limit=10_000)
    for number in range(3000):
        sink.write(b"%0100d\n" % number)
    assert sink.dropped
    read = lines(pipe[0])
    while not sink.flush():
        read += lines(pipe[0])
    read += lines(pipe[0])
    note = [line for line in read if b"dropped_lines=" in line]
    assert len(note) == 1
    dropped = int(note[0].rpartition(b"=")[2])
    assert len(read) - 1 + dropped == 3000
    numbers = [int(line) for line in read if b"=" not in line]
    assert numbers == sorted(numbers)
    sink.close()


def test_observers_know_what_was_dropped_while_nobody_reads(pipe):
    """The log cannot say it then: by them metrics do, each line once."""
    log.setup(fd=pipe[1])
    log.identify("worker.3")
    told: list[dict[str, object]] = []
    log.observe(lambda event, fields: told.append(fields) if event == "log_dropped" else None)
    try:
        written = 0
        for _ in range(2):  # 1 MiB is kept, beside what the pipe holds
            for _ in range(2000):
                log.overload(what="x" * 1000)
                written += 1
            assert not log.flush()
        assert len(told) == 2
        read = []
        while not log.flush():
            read += lines(pipe[0])
        read += lines(pipe[0])
    finally:
        log.observe()
        log.identify("")
    assert len([line for line in read if b"event=overload" in line]) == written - sum(
        int(each["lines"]) for each in told
    )
    assert {each["process"] for each in told} == {"worker.3"}


def test_lines_wait_for_each_other_where_a_loop_flushes(pipe):
    """What need not leave at once waits until flush(), PIPE_BUF octets at most; the loop is told once."""
    told: list[int] = []
    sink = log.Sink(pipe[1])
    sink.hold(lambda: told.append(1))
    for number in range(3):
        sink.write(b"%d\n" % number, at_once=False)
    assert (lines(pipe[0]), told) == ([], [1])
    assert sink.flush()
    assert os.read(pipe[0], 4096) == b"0\n1\n2\n"
    for number in range(100):
        sink.write(b"%0100d\n" % number, at_once=False)
    assert len(told) == 2
    while_waiting = lines(pipe[0])
    assert 100 - 4096 // 101 <= len(while_waiting) < 100
    sink.close()
    assert [int(line) for line in while_waiting + lines(pipe[0])] == list(range(100))


def test_what_is_wanted_at_once_takes_those_before_it_along(pipe):
    """Lines keep their order; a warning waits for nobody."""
    log.setup("logfmt", fd=pipe[1])
    log.hold(lambda: None)
    log.session_end(session="s", client="c", reason="quit", seconds=0)
    assert lines(pipe[0]) == []
    log.overload(what="w")
    assert [b"event=session" in line for line in lines(pipe[0])] == [True, False]


def test_the_given_descriptor_stays_blocking(pipe):
    """Other processes write to the same stderr: its flags are theirs."""
    sink = log.Sink(pipe[1])
    assert os.get_blocking(pipe[1])
    sink.close()


def test_a_journal_stream_is_written_without_waiting():
    """Under systemd stderr is a stream socket, which cannot be opened anew."""
    ours, theirs = socket.socketpair()
    sink = log.Sink(theirs.fileno())
    for _ in range(20_000):
        sink.write(b"x" * 100 + b"\n")
    assert sink.dropped
    assert theirs.getblocking()
    assert ours.recv(101) == b"x" * 100 + b"\n"
    sink.close()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("ours", [True, False])
def test_the_journal_is_told_the_priority_of_each_line(ours: bool):
    """sd-daemon(3); where stderr is not the journal's stream any more (2>file), a line is as it was."""
    script = (
        "import os, sys; status = os.fstat(2); "
        f"os.environ['JOURNAL_STREAM'] = f'{{status.st_dev}}:{{status.st_ino + {0 if ours else 1}}}'; "
        "from forkd import log; log.setup(level='debug'); log.debug('x'); log.readiness(ready=True); "
        "log.overload(what='w'); log.bug(where='here', error=ValueError('b'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = [line.partition("time=")[0] for line in done.stderr.splitlines()]
    assert found == (["<7>", "<6>", "<4>", "<3>"] if ours else [""] * 4)


@pytest.fixture
def journal(tmp_path: Path):
    """Who reads where journald does; the log goes there."""
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(str(tmp_path / "journal"))
    reader.setblocking(False)
    with logjournal.connect(str(tmp_path / "journal")) as way:
        log.setup("journal", "debug", way.fileno())
    yield reader
    log.setup(fd=2, level="error")
    reader.close()


def record(reader: socket.socket) -> list[str]:
    return reader.recv(1 << 18).decode().splitlines()


def test_the_journal_gets_each_event_with_its_fields(journal):
    """systemd.io/JOURNAL_NATIVE_PROTOCOL: what a reader asks for by name, and the line to look at."""
    log.bug(where="a place", error=ValueError("b"))
    found = record(journal)
    assert found[0].startswith('MESSAGE=event=bug where="a place" error=')
    assert {"PRIORITY=3", "SYSLOG_IDENTIFIER=forkd", "FORKD_EVENT=bug", "FORKD_WHERE=a place"} <= set(found)
    assert not any(line.startswith(("FORKD_TIME", "FORKD_LEVEL")) for line in found)


def test_no_text_makes_a_field_in_the_journal(journal):
    """A plugin's or client's text cannot forge PRIORITY, nor _PID, nor a second event."""
    log.plugin_output(plugin="p", text='x\nPRIORITY=0\n\nMESSAGE=forged\x1b[2J\0 \ud800 "é"\\')
    found = record(journal)
    assert [line.partition("=")[0] for line in found].count("PRIORITY") == 1
    assert 'FORKD_TEXT=x\\nPRIORITY=0\\n\\nMESSAGE=forged\\x1b[2J\\x00 \\ud800 "é"\\' in found
    with pytest.raises(BlockingIOError):
        record(journal)


def test_an_event_for_the_journal_is_one_datagram(journal):
    """However long its fields, and also where lines wait for each other."""
    log.hold(lambda: None)
    for session in ("s1", "s2"):
        log.session_end(session=session, client="c" * 10**6, reason="quit", seconds=0.5)
        found = record(journal)
        assert f"FORKD_SESSION={session}" in found
        assert sum(map(len, found)) <= logline.MAX_RECORD_BYTES


def test_a_journal_that_is_away_gets_all_when_it_is_back(journal, tmp_path: Path):
    """Stopped, it takes what its socket holds; started anew, it has another one of the same name."""
    for n in range(2000):
        log.plugin_output(plugin="p", text=str(n))
    assert not log.flush()
    journal.close()
    log.plugin_output(plugin="p", text="nobody is there")
    assert not log.flush()
    (tmp_path / "journal").unlink()
    found = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(tmp_path / "journal"))
        done = False
        while not done:
            done = log.flush()
            while select.select([reader], [], [], 0)[0]:
                found += [line for line in record(reader) if line.startswith("FORKD_TEXT=")]
    assert found[-2:] == ["FORKD_TEXT=1999", "FORKD_TEXT=nobody is there"]


def test_nothing_else_becomes_the_journals_by_a_change(pipe):
    """Where lines go is settled at the start: a reader of text gets text."""
    log.setup("logfmt", fd=pipe[1])
    log.change("journal", "debug")
    log.debug("x")
    (line,) = lines(pipe[0])
    assert b"event=debug" in line


def test_what_goes_to_the_journal_stays_that(journal):
    log.change("json", "warning")
    log.readiness(ready=True)
    log.overload(what="w")
    assert "FORKD_EVENT=overload" in record(journal)


def test_a_file_shared_with_others_is_not_overwritten(tmp_path: Path):
    """`forkd run 2>file`: our lines and what others print through the same description follow each other."""
    script = "import sys; from forkd import log; log.setup(); " + "".join(
        f"log.debug('x'); log.overload(what='{n}'); print('printed {n}', file=sys.stderr, flush=True); "
        for n in range(3)
    )
    with (tmp_path / "log").open("wb") as file:
        subprocess.run([sys.executable, "-c", script], stderr=file, check=True)
    kinds = [
        "printed" if line.startswith("printed") else "logged"
        for line in (tmp_path / "log").read_text().split("\n")[:-1]
    ]
    assert kinds == ["logged", "printed"] * 3


def test_a_reader_that_is_gone_is_no_error(pipe):
    """Whoever read the log died: the daemon goes on."""
    read_end, write_end = os.pipe()
    sink = log.Sink(write_end)
    os.close(read_end)
    sink.write(b"line\n")
    assert sink.flush()
    sink.close()
    os.close(write_end)


def test_a_fork_does_not_write_its_parents_lines(pipe):
    """What waits in the parent's buffer is written once."""
    sink_limit = 1 << 20
    log.setup("logfmt", fd=pipe[1])
    for _ in range(1000):
        log.overload(what="y" * 100)
    assert not log.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if log.flush() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sink_limit
    read = lines(pipe[0])
    while not log.flush():
        read += lines(pipe[0])
    assert len(read + lines(pipe[0])) == 1000


def test_a_bug_is_logged_with_the_end_of_its_traceback(pipe):
    """Our fault is logged once, with where it happened."""
    log.setup("json", fd=pipe[1])
    try:
        raise KeyError("gone")
    except KeyError as error:
        log.bug(where="here", error=error, session="s")
    (line,) = (json.loads(each) for each in lines(pipe[0]))
    assert line["error"] == "KeyError"
    assert "raise KeyError" in line["traceback"]


# --- acts ---------------------------------------------------------------------------------------------


ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("event", logacts.ACTS)
def test_each_act_has_its_meaning_and_somebody_who_logs_it(event: str):
    """One table, for rules and searches. That nothing else is logged mypy sees by the arguments' types."""
    kind, meanings = logacts.ACTS[event]
    assert set(get_args(kind)) == set(meanings)
    sources = [path for path in (ROOT / "forkd").rglob("*.py") if path.name != "logacts.py"]
    constants = {
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(meanings) <= constants


def test_what_documents_and_rules_say_of_acts_is_in_the_table():
    """An alert or a search for what nobody writes is silent for ever."""
    known = {act for _, meanings in logacts.ACTS.values() for act in meanings}
    places = ("*.md", "docs/*.md", "plugins/*.md", "forkd/*/*.md", "etc/prometheus/*.yml")
    texts = [page.read_text() for place in places for page in ROOT.glob(place)]
    said = [acts for text in texts for acts in re.findall(r'\bact=~?"?([a-z_|]+)', text)]
    named = {act for acts in said for act in acts.split("|")}
    assert named <= known
    assert {"died", "killed", "not_started"} <= named, "alert rules go by them"
