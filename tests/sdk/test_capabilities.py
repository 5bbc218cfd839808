"""session.log and count, the fakes, and what the test kit makes of a manifest's capabilities."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkd.broker import protocol
from forkd.rpc.calls import Answer
from forkd.sandbox import wire
from forkd.sdk import NotGranted, Plugin, StateError, Unavailable, add_header, capabilities, channel, deny
from forkd.sdk.answers import MAX_ANSWER_BYTES
from forkd.sdk.fakes import FakeDns, FakeState, FakeTargets
from forkd.sdk.runner import Runner
from forkd.sdk.testing import ScriptedSession, load_plugin

MANIFEST = """
name = "sample"
version = "1.0.0"
api = 1
kind = "python"
hooks = ["mail", "message"]
[settings.zones]
type = "strings"
default = ["zen.example 3"]
[settings.counts]
type = "boolean"
default = true
[wants.powers]
edit_headers = { names = ["X-*"], reason = "for the test" }
[wants.capabilities]
dns = { suffixes = ["fixed.example"], suffixes_in = ["zones"], reason = "for the test" }
state = { reason = "for the test", when = { counts = true } }
connect = { targets = ["clamd"], reason = "for the test" }
"""
MODULE = """
from forkd.sdk import Plugin, deny

def plugin_init(settings):
    def mail(session, sender):
        return deny("5.7.1", str(DO[0](session)))
    return Plugin(mail=mail, message=lambda *_: None)

DO = [None]
"""


def call(runner: Runner, n: int = 1, hook: str = "mail") -> Answer:
    args: dict[str, Any] = {"sender": None, "parameters": {}, "size": 0, "header_size": 0}
    octets = runner.handle(json.dumps({"n": n, "hook": hook, "args": args}).encode())
    assert len(octets) <= MAX_ANSWER_BYTES
    return msgspec.json.decode(octets, type=Answer)


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """session(do, settings, dns=…) -> what do(session) gives in a hook, or raises."""
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "sample.py").write_text(MODULE)

    def make(do: Any, settings: dict[str, Any] | None = None, **fakes: Any) -> tuple[Any, ScriptedSession]:
        loaded = load_plugin(tmp_path, settings=settings)
        seen: list[Any] = []
        sys.modules["sample"].DO[0] = lambda session: seen.append(do(session))
        scripted = loaded.session(**fakes)
        scripted.mail("a@b.example")
        return seen[0], scripted

    return make


# --- log and count ----------------------------------------------------------------------------------


def test_what_is_logged_goes_with_any_answer_and_with_that_one_only():
    """No opinion, a verdict, edits; each call begins with nothing."""
    say: list[Any] = [None, deny("5.7.1", "no"), [add_header("X-A", "1")], None]

    def hook(session: Any, *_: Any) -> Any:
        said = say.pop(0)
        if say:
            session.log(f"line {len(say)}")
            session.count("met")
            session.count("met", 2)
        return said

    runner = Runner(Plugin(mail=hook, message=hook))
    first, second = call(runner), call(runner, 2)
    third = call(runner, 3, "message")
    assert [answer.log for answer in (first, second, third)] == [("line 3",), ("line 2",), ("line 1",)]
    assert {tuple(answer.count.items()) for answer in (first, second, third)} == {(("met", 3),)}
    assert second.verdict is not None
    assert len(third.edits) == 1
    last = call(runner, 4)
    assert (last.log, last.count) == ((), {})


def test_members_of_a_group_log_into_one_answer():
    """They share the sandbox, and its bounds."""
    one = Plugin(mail=lambda session, _: session.log("one"))
    two = Plugin(mail=lambda session, _: session.log("two"))
    assert call(Runner((one, two))).log == ("one", "two")


@pytest.mark.parametrize(
    "text",
    ["a\r\nlevel=error event=bug", "\x1b[31m", "\u2028", "\ud800", '"\\', "\U0001f600" * 900, 17, None],
    ids=repr,
)
def test_a_line_is_fit_to_go_over_whatever_it_holds(text: Any):
    """Bounded here, escaped by the worker's log."""
    (line,) = call(Runner(Plugin(mail=lambda session, _: session.log(text)))).log
    assert len(line) <= 500
    assert line.encode()


def test_too_much_is_cut_not_an_error():
    """8 lines, 16 counters: a chatty plugin goes on, and says how much was lost."""

    def hook(session: Any, _: Any) -> None:
        for n in range(100):
            session.log("\U0001f600" * 500)
            session.count(f"c{n}")

    answer = call(Runner(Plugin(mail=hook)))
    assert len(answer.log) == 8
    assert answer.log[-1] == "(93 more lines in one call)"
    assert len(answer.count) == 16


def test_edits_matter_more_than_lines():
    """An answer that would be too long with them goes without."""

    def hook(session: Any, *_: Any) -> Any:
        for _ in range(8):
            session.log("\U0001f600" * 500)
        return [add_header("X-A", "x " * 2500) for _ in range(8)]

    answer = call(Runner(Plugin(message=hook)), hook="message")
    assert (len(answer.edits), answer.log) == (8, ())


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", "a" * 41, "a\n", "\u00e4"])
def test_a_name_that_is_none_is_an_error(name: str):
    """It would be a metric's name one day."""
    answer = call(Runner(Plugin(mail=lambda session, _: session.count(name))))
    assert answer.error.startswith("ValueError: a counter's name")


def test_what_a_failing_hook_logged_goes_to_stderr(capfd: pytest.CaptureFixture[str]):
    """So it is in the failure's line."""

    def hook(session: Any, _: Any) -> None:
        session.log("before")
        raise KeyError("x")

    runner = Runner(Plugin(mail=hook))
    answer = call(runner)
    assert answer.error
    assert answer.log == ()
    assert capfd.readouterr().err.startswith("before\n")


def test_without_grants_nothing_is_there_and_nothing_is_loaded():
    """NotGranted with the key to write; the module is not in the process."""
    seen = []

    def hook(session: Any, _: Any) -> None:
        for ask in (lambda: session.dns, lambda: session.state, lambda: session.connect("clamd")):
            with pytest.raises(NotGranted, match=r"\[wants\.capabilities\]"):
                ask()
            seen.append(ask)

    assert not call(Runner(Plugin(mail=hook))).error
    assert len(seen) == 3
    code = "import sys, forkd.sdk.runner; print('forkd.sdk.capabilities' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_both_ends_agree_on_numbers_written_twice():
    """The SDK imports nothing of the broker's."""
    assert channel.MAX_RECORD_BYTES == protocol.MAX_RECORD_BYTES
    assert channel.BROKER_FD == wire.BROKER_FD
    assert capabilities.MAX_TTL_S == protocol.MAX_TTL_S


# --- fakes ------------------------------------------------------------------------------------------


def test_fake_names(session: Any):
    """Status, kinds, aliases; what was asked."""
    dns = FakeDns(
        {
            "A.zen.example.": {"a": ["127.0.0.2"], "mx": [(20, "b"), (10, "a")], "txt": "temporary"},
            "slow.zen.example": "temporary",
            "alias.zen.example": {"cname": ["a.zen.example"]},
            "1.2.0.192.in-addr.arpa.fixed.example": {"ptr": ["mx.example"]},
        }
    )
    asked = [
        ("a", "a.ZEN.example"),
        ("mx", "a.zen.example."),
        ("txt", "a.zen.example"),
        ("aaaa", "a.zen.example"),
    ]
    asked += [("a", "slow.zen.example"), ("a", "none.zen.example"), ("a", "alias.zen.example")]
    said, _ = session(lambda s: [getattr(s.dns, kind)(name) for kind, name in asked], dns=dns)
    assert [answer.status for answer in said] == [
        *("found", "found", "temporary", "no_data", "temporary", "no_such_name", "found")
    ]
    assert list(said[0]) == ["127.0.0.2"]
    assert bool(said[0])
    assert not said[2]
    assert said[1].records == ((10, "a"), (20, "b"))
    assert dns.asked[:2] == [("a", "a.zen.example"), ("mx", "a.zen.example")]


def test_names_that_the_manifest_does_not_want(session: Any):
    """suffixes and suffixes_in, as forkd reads them."""
    dns = FakeDns({})
    for name, fine in (
        ("x.fixed.example", True),
        ("zen.example", True),
        ("xzen.example", False),
        ("a", False),
    ):

        def ask(s: Any, name: str = name) -> Any:
            return s.dns.a(name).status

        if fine:
            assert session(ask, dns=dns)[0] == "no_such_name"
        else:
            with pytest.raises(NotGranted):
                session(ask, dns=dns)
    assert (
        session(lambda s: s.dns.a("anything.test").status, {"zones": ["any"]}, dns=dns)[0] == "no_such_name"
    )


def test_fake_store(session: Any):
    """The same contract as the real one (tests/broker/test_state.py), with a clock of the test's."""
    now = [0.0]
    state = FakeState(clock=lambda: now[0])

    def ask(s: Any) -> list[Any]:
        kept = s.state
        said = [kept.get("k"), kept.set("k", "v", ttl=10), kept.get("k"), kept.add("k", 1)]
        said += [kept.incr("n", ttl=5), kept.incr("n", 2), kept.delete("none")]
        for wrong in (
            lambda: kept.incr("k"),
            lambda: kept.set("k", "x" * 5000),
            lambda: kept.set("k" * 256, 1),
            lambda: kept.set("", 1),
            lambda: kept.set("k", 1 << 63),
            lambda: kept.set("k", 1, ttl=0),
        ):
            with pytest.raises(StateError):
                wrong()
        now[0] += 6
        return [*said, kept.get("n"), kept.get("k"), kept.delete("k"), kept.get("k")]

    assert session(ask, state=state)[0] == [None, None, "v", False, 1, 3, False, None, "v", True, None]
    with pytest.raises(NotGranted):
        session(lambda s: s.state, {"counts": False}, state=state)


def test_fake_targets(session: Any):
    """Octets, a function with the other side's socket, a refusal."""

    def echo(peer: socket.socket) -> None:
        peer.sendall(peer.recv(100).upper())

    def ask(s: Any) -> bytes:
        with s.connect("clamd") as clamd:
            clamd.sendall(b"hello")
            answer: bytes = clamd.recv_until(b"!", 100)
            return answer

    targets = FakeTargets({"clamd": b"stream: OK!"})
    assert session(ask, targets=targets)[0] == b"stream: OK!"
    assert targets.received("clamd") == b"hello"
    assert session(ask, targets=FakeTargets({"clamd": echo}))[0] == b"HELLO"
    with pytest.raises(Unavailable, match="refused"):
        session(ask, targets=FakeTargets({"clamd": Unavailable("refused")}))
    with pytest.raises(NotGranted):
        session(lambda s: s.connect("other"), targets=targets)


def test_a_test_that_gives_nothing_is_told_what_to_give(session: Any):
    """The plugin wants it, so the question is the test's."""
    with pytest.raises(AssertionError, match=r"dns=FakeDns"):
        session(lambda s: s.dns.a("zen.example"))
    with pytest.raises(AssertionError, match=r"state=FakeState"):
        session(lambda s: s.state.get("k"))


def test_what_was_logged_and_counted_is_there_for_the_test(session: Any):
    """session.logged, session.counted: over all hooks."""
    _, scripted = session(lambda s: (s.log("one"), s.count("met", 2)))
    scripted.mail("b@b.example")
    assert scripted.logged == ["one", "one"]
    assert scripted.counted == {"met": 4}
