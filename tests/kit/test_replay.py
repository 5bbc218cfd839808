"""forkd plugin replay: the recorded call again, under its limits, and whether it fails alike."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkd.kit import replay
from forkd.kit.configured import configured
from forkd.rpc import records
from forkd.rpc.records import CrashRecord
from tests.kit.conftest import WritePlugin

CODE = """
from forkd.sdk import Plugin, deny

def plugin_init(settings):
    def mail(session, sender):
        session.notes["sender"] = sender

    def message(session, envelope, message):
        BODY

    return Plugin(mail=mail, message=message)
"""
FRAMES = (
    b'{"n":1,"hook":"mail","new":true,"session":{"id":"S1"},"args":{"sender":{"local":"a","domain":"b"}}}',
    b'{"n":2,"hook":"message","args":{"size":14,"header_size":14}}',
)
READS = '[wants.reads]\nheaders = "for the test"\n'


def recorded(place: Path, *, cause: str, message: bytes = b"Subject: x\r\n\r\n", **more: Any) -> Path:
    """A record as a worker writes it."""
    file = place / "0123456789ABCDEF.json"
    record = CrashRecord(
        id="0123456789ABCDEF",
        at=1_795_000_000.0,
        plugin="sample",
        session="S1",
        hook="message",
        cause=cause,
        frames=tuple(msgspec.Raw(frame) for frame in FRAMES),
        message="0123456789ABCDEF.eml" if message else "",
        **more,
    )
    file.write_bytes(records.encode(record))
    if message:
        (place / record.message).write_bytes(message)
    return file


def again(folder: Path, file: Path) -> tuple[replay.Replayed, CrashRecord]:
    record, message = replay.read(file)
    with configured(folder) as given:
        run = replay.replay(given.plugin, given.config, record, message, data_dir=given.data_dir)
        return asyncio.run(run), record


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("1 / 0", "exception"),
        ("import ctypes; ctypes.string_at(0)", "crash"),
        ("import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)", "syscall"),
        ("import time; time.sleep(60)", "deadline"),
        ("while True: pass", "cpu"),
        ("import os; os.write(3, b'nonsense')", "protocol"),
        ("from forkd.sdk import discard; return discard()", "protocol"),
    ],
)
def test_the_same_failure_is_seen_again(place: Path, write_plugin: WritePlugin, body: str, cause: str):
    """Each kind, at the same call; short limits come from the record."""
    folder = write_plugin(CODE.replace("BODY", body), hooks=("mail", "message"), more=READS)
    late = cause == "deadline"
    limits = {
        "message_timeout": 2.0 if late else 100.0,
        "cpu": 0.3 if cause == "cpu" else 50.0,
        "fresh": "call",
    }
    replayed, record = again(folder, recorded(place, cause=cause, limits=limits))
    assert (replayed.cause, replayed.frame) == (cause, 2), replayed
    assert replayed.same_as(record)


def test_a_mended_plugin_answers(place: Path, write_plugin: WritePlugin):
    """With the message of the record, and what the session had said before."""
    body = "return deny(\"5.7.1\", f\"{session.notes['sender']} {message.headers.get('Subject')}\")"
    folder = write_plugin(CODE.replace("BODY", body), hooks=("mail", "message"), more=READS)
    replayed, record = again(folder, recorded(place, cause="crash"))
    assert (replayed.cause, replayed.same_as(record)) == ("", False)
    assert replayed.answer is not None
    assert replayed.answer.verdict is not None
    assert replayed.answer.verdict.text == "a@b x"


def test_another_failure_is_told_apart(place: Path, write_plugin: WritePlugin):
    """Not every failure is the one that was looked for."""
    folder = write_plugin(CODE.replace("BODY", "1 / 0"), hooks=("mail", "message"), more=READS)
    replayed, record = again(folder, recorded(place, cause="deadline"))
    assert (replayed.cause, replayed.same_as(record)) == ("exception", False)


def test_records_that_are_none(place: Path):
    """A clear word for each."""
    (place / "bad.json").write_text("{}")
    with pytest.raises(replay.NoRecord, match="no crash record"):
        replay.read(place / "bad.json")
    with pytest.raises(replay.NoRecord, match="no such file"):
        replay.read(place / "none.json")
    with pytest.raises(replay.NoRecord, match="there is no record 0123456789ABCDEF"):
        replay.find("0123456789ABCDEF", place)
    with pytest.raises(replay.NoRecord, match=r"0123456789ABCDEF\.eml"):
        file = recorded(place, cause="crash")
        (place / "0123456789ABCDEF.eml").unlink()
        replay.read(file)


def test_a_records_message_is_looked_for_beside_it_only(place: Path):
    """The file of a record is data: it names no file elsewhere."""
    file = recorded(place, cause="crash", message=b"")
    record = records.decode(file.read_bytes())
    file.write_bytes(records.encode(msgspec.structs.replace(record, message="../../../etc/passwd")))
    with pytest.raises(replay.NoRecord, match="passwd: no such file"):
        replay.read(file)
