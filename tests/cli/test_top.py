"""forkd top: rates, what is on the screen, and a real (pseudo-)terminal with its keys."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forkd.cli.top_rates import Looks, Rates, rates
from forkd.cli.top_screen import View, screen
from forkd.exits import Exit
from tests.cli.conftest import ROOT, Forkd
from tests.cli.test_control import STATUS
from tests.support.fake_control import FakeControl, ok, queued


def worker(pid: int, slot: int = 0, info: dict[str, str] | None = None, **counters: int) -> dict[str, Any]:
    return {**STATUS["processes"][0], "pid": pid, "slot": slot, "info": info or {},
            "counters": {name.replace("__", "."): number for name, number in counters.items()}}  # fmt: skip


def status(*workers: dict[str, Any]) -> dict[str, Any]:
    return {**STATUS, "processes": [*workers, STATUS["processes"][1]]}


def session(at: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"ID{at:014}W0", "client": f"192.0.2.{at}", "port": 1, "listener": "mx", "state": "idle",
        "asked": "", "age_s": 60.0 + at, "idle_s": 1.0, "name": "", "helo": "\x1b]0;gotcha\x07", "user": "",
        "tls": "", "messages": 0, "errors": 0, "mail": False, "sender": "", "recipients": 0, "octets": 0,
        "worker": 0, **more,
    }  # fmt: skip


# --- rates ----------------------------------------------------------------------------------------------


def test_rates_are_differences_of_each_process():
    """A worker that was replaced begins anew: never less than nothing, and what the new one did counts."""
    before = status(worker(1, messages=100), worker(2, 1, messages=50))
    now = status(worker(1, messages=110), worker(3, 1, messages=4))
    found = rates(before, now, 2.0)
    assert found.of_all["messages"] == 7.0
    assert found.of_worker == {(0, 1): {"messages": 5.0}, (1, 3): {"messages": 2.0}}


def test_rates_span_the_time_that_nobody_could_look():
    """Admin was away for a minute: what happened then is divided by that minute, not by one interval."""
    looks = Looks()
    for at, messages in ((0, 0), (2, 20)):
        found = looks.rates(status(worker(1, messages=messages)), at)
    assert found.of_all["messages"] == 10.0
    assert looks.rates(status(worker(1, messages=620)), 62).of_all["messages"] == 10.0


def test_rates_are_taken_over_more_than_a_heartbeat():
    """Looked at five times a second, counters that come once a second give the same rate each time."""
    looks = Looks()
    seen = [looks.rates(status(worker(1, messages=10 * (at // 5))), at / 5) for at in range(50)]
    assert {each.of_all["messages"] for each in seen[:10]} == {0.0}
    assert {round(each.of_all["messages"], 6) for each in seen[10:]} == {10.0}


def test_the_first_look_has_no_rates():
    """There is nothing to compare it with; what happened before is not of this second."""
    assert rates(None, status(worker(1, messages=100)), 0.0).of_all == {"messages": 0.0}


def test_a_plugins_latency_is_that_of_its_calls_since_then():
    """Over all workers; a plugin that was not called is shown all the same, since it is there."""
    before = status(worker(1, plugin__av__calls=10, plugin__av__us=5_000_000))
    now = status(
        worker(1, 0, {"breaker.av": "open"}, plugin__av__calls=14, plugin__av__us=5_008_000,
                    plugin__av__failed__crash=2)
    )  # fmt: skip
    av, mark = rates(before, now, 1.0).plugins
    assert (av.name, av.calls, av.ms, av.failures, av.failed, av.open_in) == ("av", 4.0, 2.0, 2.0, 2, 1)
    assert (mark.name, mark.calls, mark.ms) == ("mark", 0.0, None)


# --- a terminal -----------------------------------------------------------------------------------------


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[FakeControl]:
    """A daemon that runs in ./var, with twenty sessions and a plugin."""
    looks = 0

    def answer(request: dict[str, Any]) -> bytes:
        nonlocal looks
        if request["request"] == "queue":
            return ok(queued(count=4711))
        if request["request"] == "sessions":
            found = [session(at) for at in range(20)]
            return ok({"sessions": found, "fit": 20, "total": 20, "silent": []})
        looks += 1
        return ok(status(worker(1, 0, messages=looks * 1000, plugin__av__calls=looks)))

    with FakeControl(tmp_path / "var", answer) as fake:
        yield fake


class Terminal:
    """`forkd top` in one of this size."""

    def __init__(self, folder: Path, *options: str, rows: int = 24, columns: int = 100) -> None:
        self.screen, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, columns))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.process = subprocess.Popen(
            [sys.executable, "-m", "forkd", "top", *options],
            cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TERM": "xterm"},
        )  # fmt: skip
        self.shown = b""

    def until(self, there: Callable[[str], object]) -> str:
        """Read until that is on the screen."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if there(text := self.shown.decode(errors="replace")):
                return text
            if select.select([self.screen], [], [], 0.5)[0]:
                try:
                    self.shown += os.read(self.screen, 65_536)
                except OSError:
                    break
        pytest.fail(f"not seen: {self.shown.decode(errors='replace')[-3000:]!r}")

    def press(self, key: str) -> None:
        os.write(self.screen, key.encode())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)
        os.close(self.theirs)


def whole(shown: str) -> bool:
    """That the last picture has its last line: a terminal is read as it comes, in pieces."""
    return "q quit" in lines(shown)[-1]


def lines(shown: str) -> list[str]:
    """The last picture, without colours."""
    picture = shown.rpartition("\x1b[H")[2]
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", picture).replace("\r", "").split("\n")


def test_top_is_live_sorts_and_leaves_the_terminal_as_it_was(tmp_path: Path, answers: FakeControl):
    """Workers, rates, plugins, queue, sessions; s asks for another order, q ends it."""
    with Terminal(tmp_path, "--interval", "200ms") as top:
        shown = top.until(lambda text: "messages 0.0" in text and whole(text))
        picture = lines(shown)
        assert max(map(len, picture)) <= 100 and len(picture) <= 24
        for word in ("sessions 20", "queue 4711", "av", "192.0.2.0", "session by age", "q quit"):
            assert any(word in line for line in picture), word
        assert "\x1b]0;" not in shown
        top.until(lambda text: re.search(r"messages ([1-9]\d*\.\d|\d{3,})", text))
        top.press("s")
        top.until(lambda text: "session by idle" in text)
        top.press("q")
        assert top.process.wait(20) == 0
        top.until(lambda text: "\x1b[?1049l" in text)
        assert termios.tcgetattr(top.theirs) == top.before
    assert {request["sort"] for request in answers.requests if request["request"] == "sessions"} >= {
        "age", "idle"
    }  # fmt: skip


def test_the_head_fits_into_80_columns():
    """Of a server with much to do: nothing of it may be cut, least of all that plugins fail."""
    names = ("connections", "messages", "recipients", "refused", "plugin_failures", "overloads")
    view = View(
        status=STATUS,
        rates=Rates(dict.fromkeys(names, 9876.5), {}, []),
        sessions={"total": 100_000, "sessions": []},
        sort="age",
        queue=999_999,
    )
    console = Console(width=80, file=io.StringIO())
    console.print(screen(view, rows=24, columns=80))
    head = console.file.getvalue().splitlines()[:3]
    assert "…" not in "".join(head)
    assert [line.count("9876") for line in head] == [0, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(8, 40), (24, 80), (60, 200)])
def test_top_fits_any_terminal(tmp_path: Path, answers: FakeControl, rows: int, columns: int):
    """What does not fit is left out, from the sessions upwards; nothing wraps."""
    with Terminal(tmp_path, rows=rows, columns=columns) as top:
        picture = lines(top.until(lambda text: "q quit" in text))
        assert len(picture) <= rows and max(map(len, picture)) <= columns


@pytest.mark.slow
def test_top_outlives_the_daemon_and_says_so(tmp_path: Path, answers: FakeControl):
    """Admin may be replaced, or forkd started anew: it goes on when there is somebody to ask."""
    with Terminal(tmp_path, "--interval", "200ms", columns=200) as top:
        top.until(lambda text: "q quit" in text)
        hidden = answers.path.with_name("hidden")
        answers.path.rename(hidden)
        top.until(lambda text: "no forkd runs here" in text)
        hidden.rename(answers.path)
        top.shown = b""
        top.until(lambda text: "queue 4711" in text and "no forkd runs" not in lines(text)[-2])


def test_top_without_a_terminal_says_what_to_use(forkd: Forkd, answers: FakeControl):
    """A pipe or cron gets words, not a screen; exit status 2."""
    done = forkd("top")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "this is for a terminal" in done.stderr
    assert "forkd status --json" in done.stderr
