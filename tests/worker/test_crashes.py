"""Crash records: what is in them, how many there are, and what must never be in them."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd import log
from forkd.config.schema import PluginLimits
from forkd.hooks.asking import KEPT_BYTES
from forkd.hooks.decision import PluginRecord
from forkd.hooks.dispatcher import SessionFacts
from forkd.queue.ids import Ids
from forkd.rpc import records
from forkd.rpc.calls import CallFailed
from forkd.rpc.records import CrashRecord
from forkd.sandbox import output
from forkd.sandbox.output import scrubbed
from forkd.worker.copies import CopyBudget, KeptCopy
from forkd.worker.crashes import Crashes
from forkd.worker.failures import METRICS, NAMES, Failures
from tests.support.fake_host import Broken, FakeHolder, FakeHost, FakePlugin, dispatcher_for, run

IDS = Ids("w0")


class Store:
    """Crashes over a folder; close() waits until all is written."""

    def __init__(self, folder: Path, *, keep: int = 10, max_size: int = 1000) -> None:
        self.folder = folder
        self.done: list[object] = []
        self.lost: list[tuple[str, str]] = []
        self.crashes = Crashes(
            folder,
            keep=keep,
            max_size=max_size,
            on_done=self.done.append,
            on_lost=lambda id_, why: self.lost.append((id_, why)),
        )

    def keep(self, *frames: bytes, message: KeptCopy | None = None, **more: object) -> str:
        given = {"session": "S1", "plugin": "p", "hook": "mail", "cause": "crash", "at": 1.0} | more
        record = CrashRecord(id=IDS.new(), **given)  # type: ignore[arg-type]
        assert self.crashes.submit(record, frames, message)
        return record.id

    def read(self, id_: str) -> CrashRecord:
        return records.decode((self.folder / f"{id_}.json").read_bytes())

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The lines of the log, whenever asked."""
    with tempfile.TemporaryFile() as file:
        log.setup("json", "info", os.dup(file.fileno()))
        try:
            yield lambda: [json.loads(line) for line in os.pread(file.fileno(), 1 << 20, 0).splitlines()]
        finally:
            log.setup(fd=2, level="error")


def message(octets: bytes) -> KeptCopy:
    fd = os.memfd_create("message")
    os.write(fd, octets)
    kept = KeptCopy(CopyBudget(1 << 20), fd, len(octets))
    os.close(fd)
    return kept


def test_a_record_has_all_that_the_sandbox_was_told(tmp_path: Path):
    """The frames as they were sent, in order: `forkd plugin replay` sends them again."""
    store = Store(tmp_path)
    frames = (b'{"n":1,"hook":"helo","args":{}}', b'{"n":2,"hook":"mail","args":{"x":[1, 2]}}')
    id_ = store.keep(*frames, detail="SIGSEGV", version="1.2", output="last words", limits={"cpu": 2})
    store.crashes.close()
    record = store.read(id_)
    assert [json.loads(bytes(frame)) for frame in record.frames] == [json.loads(frame) for frame in frames]
    assert (record.id, record.version, record.detail, record.output) == (id_, "1.2", "SIGSEGV", "last words")
    assert record.limits == {"cpu": 2}
    assert not record.cut
    assert store.files() == [f"{id_}.json"]


def test_passwords_are_in_no_frame(tmp_path: Path):
    """SECRET stands in their place."""
    store = Store(tmp_path)
    id_ = store.keep(b'{"n":1,"hook":"auth","args":{"user":"joe","secret":"hunter2 \\u00e9"}}')
    store.crashes.close()
    [frame] = store.read(id_).frames
    assert json.loads(bytes(frame))["args"] == {"user": "joe", "secret": records.SECRET}


PASSWORDS = ("hunter2", 'pa\\ss"w', 'it\'s "both"', "größe\x1b", "tab\there", "[a-z]+")


@pytest.mark.parametrize("password", PASSWORDS, ids=range(len(PASSWORDS)))
def test_a_password_is_found_however_it_is_written(password: str):
    """By a plugin that prints it, raises it, prints what it was sent; and escaped as its output is."""
    written = [
        password,
        repr(password),
        repr({"secret": password}),
        ascii(password),
        repr(password.encode()),
        json.dumps(password),
        json.dumps(password, ensure_ascii=False),
    ]
    for text in (*written, *(output.escape(text.encode()) for text in written)):
        found = scrubbed(f"login joe {text}.", [password])
        assert records.SECRET in found
        assert set(found.replace(records.SECRET, "")) <= set("""login joe b{'secret': "}.""")


def test_what_is_put_in_the_place_of_a_password_is_not_searched_again():
    """Passwords of one letter make no text grow without end."""
    assert scrubbed("note", ["n", "o", "t", ""]) == f"{records.SECRET * 3}e"


@pytest.mark.parametrize("keep_frames", [False, True])
def test_a_plugin_that_fails_after_a_login_tells_no_password(
    tmp_path: Path, logged: Callable[[], list[dict[str, Any]]], keep_frames: bool
):
    """Neither in the log nor in a record; also where the frame of the auth hook was let go meanwhile."""
    password = 'pa\\ss"w'
    plugin: Any = FakePlugin("p", ("auth", "helo", "mail"), limits=PluginLimits())  # type: ignore[arg-type]
    host = FakeHost({"p": Broken(CallFailed("exception", f"KeyError: {password!r}"), at="mail")})
    hooks = dispatcher_for([plugin], host, keep_frames=keep_frames).session(
        SessionFacts(id="S1", client_ip="192.0.2.1", client_port=1), FakeHolder()
    )
    store = Store(tmp_path)
    background: list[Coroutine[Any, Any, None]] = []
    failures = Failures([plugin], background=background.append, ids=IDS, crashes=store.crashes)
    run(hooks.run("helo", name="c.example", extended=True))
    run(hooks.run("auth", user="joe", secret=password))
    for _ in range(8):
        run(hooks.run("helo", name="x" * (KEPT_BYTES // 8), extended=True))
    host.sandboxes("p")[0].last_output = f"login joe {password}"
    decision = run(hooks.run("mail", sender=None, parameters={}))
    failures.failed("S1", decision.records[0])
    run(background.pop())
    store.crashes.close()
    detail, said = f"KeyError: '{records.SECRET}'", f"login joe {records.SECRET}"
    [line] = logged()
    assert (line["detail"], line["output"]) == (detail, said)
    kept = [records.decode(path.read_bytes()) for path in tmp_path.iterdir()]
    assert [(record.detail, record.output) for record in kept] == [(detail, said)] * keep_frames
    assert not any(b"pa\\\\" in bytes(frame) for record in kept for frame in record.frames)


def test_the_message_lies_beside_it(tmp_path: Path):
    """As the call had it; the copy is given back when it is written."""
    store = Store(tmp_path)
    kept = message(b"Subject: x\r\n\r\nhello\r\n")
    id_ = store.keep(b"{}", message=kept)
    store.crashes.close()
    assert store.read(id_).message == f"{id_}.eml"
    assert (tmp_path / f"{id_}.eml").read_bytes() == b"Subject: x\r\n\r\nhello\r\n"
    assert store.done == [kept]


@pytest.mark.parametrize(("max_size", "kept"), [(10, b"x" * 10), (0, None)])
def test_a_large_message_is_cut_and_the_record_says_so(tmp_path: Path, max_size: int, kept: bytes | None):
    """crash.max_size; with 0 no mail is kept at all."""
    store = Store(tmp_path, max_size=max_size)
    id_ = store.keep(b"{}", message=message(b"x" * 2000))
    store.crashes.close()
    record = store.read(id_)
    assert record.cut
    assert record.message == (f"{id_}.eml" if kept else "")
    assert not kept or (tmp_path / record.message).read_bytes() == kept


def test_the_oldest_go_first(tmp_path: Path):
    """crash.keep of them at most, over all plugins and workers; what was half written goes with them."""
    (tmp_path / "00000000000000W1.tmp").write_text("half")
    store = Store(tmp_path, keep=3)
    ids = [store.keep(b"{}", message=message(b"m")) for _ in range(5)]
    store.crashes.close()
    assert store.files() == sorted(f"{id_}.{kind}" for id_ in ids[-3:] for kind in ("json", "eml"))


def test_only_its_owner_may_read_it(tmp_path: Path):
    """It holds mail."""
    store = Store(tmp_path)
    store.keep(b"{}", message=message(b"m"))
    store.crashes.close()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_full_disk_loses_the_record_and_says_so(tmp_path: Path):
    """No mail waits for it; the copy is given back all the same."""
    store = Store(tmp_path / "missing")
    id_ = store.keep(b"{}", message=message(b"m"))
    store.crashes.close()
    assert [lost for lost, _ in store.lost] == [id_]
    assert os.strerror(errno.ENOENT) in store.lost[0][1]
    assert len(store.done) == 1


def test_a_record_that_is_none_is_refused():
    """Whoever reads the folder reads files that may be anybody's."""
    for octets in (b"", b"{}", b"[" * 100_000, b"\xff", b'{"id":1}'):
        with pytest.raises(ValueError, match="no crash record"):
            records.decode(octets)


def test_kept_copies_have_a_budget_of_their_own():
    """They must never be a reason for a 451 to a client (a quarter of the budget, once more)."""
    budget = CopyBudget(400)
    fd = os.memfd_create("message")
    kept = KeptCopy(budget, fd, 100)
    with pytest.raises(Exception, match="do not fit"):
        KeptCopy(budget, fd, 1)
    budget.take(400)
    kept.close()
    kept.close()
    KeptCopy(budget, fd, 100).close()
    os.close(fd)


def test_counters_of_plugins_leave_room_for_failures():
    """However many metrics plugins make up: that one of them fails is always counted."""
    plugins: Any = [FakePlugin(f"p{n}", ("mail",)) for n in range(20)]
    failures = Failures(plugins, background=lambda _: None, ids=IDS)
    for plugin in plugins:
        metrics = {f"m{n}": 1 for n in range(METRICS + 1)}
        failures.told("S1", PluginRecord(plugin.name, "mail", "none", 1.0, count=metrics))
    assert failures.tally["plugin.p0.count.m0"] == 1
    assert len(failures.tally) < NAMES
    failures.failed("S1", PluginRecord("p19", "mail", "none", 1.0, "crash"))
    assert failures.tally["plugin.p19.failed.crash"] == 1
