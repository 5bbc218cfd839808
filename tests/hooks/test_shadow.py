"""A plugin in shadow mode: asked, compared, never obeyed, never waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from forkd.hooks.dispatcher import Decision, SessionFacts, SessionHooks
from forkd.hooks.shadow import QUEUE
from forkd.hooks.spec import HOOKS
from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sdk import (
    Plugin,
    accept,
    add_header,
    defer,
    deny,
    discard,
    disconnect,
    export,
    quarantine,
    replace_body,
    rewrite,
)
from forkd.smtp.address import Mailbox
from tests.support.fake_host import (
    EVERY_POWER,
    Broken,
    FakeCopies,
    FakeHolder,
    FakeHost,
    FakeObserver,
    FakePlugin,
    Limits,
    dispatcher_for,
    run,
)

SENDER = Mailbox("a", "example.org")
RCPT = Mailbox("b", "test.local")


@pytest.fixture
def copies() -> Iterator[FakeCopies]:
    given = FakeCopies()
    yield given
    given.close()
    assert all(kept.fd < 0 for kept in given.kept), "every copy that was kept is closed in the end"


class World:
    """A session with the plugins `first`, `shadow` and `last`; `shadow` is only tried."""

    def __init__(self, *, first: Any = None, shadow: Any = None, last: Any = None, **config: Any) -> None:
        config = {"powers": EVERY_POWER, "reads": ("envelope", "body")} | config
        settings = {name: config.pop(name) for name in ("routable", "keep_frames") if name in config}
        plugins = [
            FakePlugin(name, tuple(HOOKS), mode="shadow" if name == "shadow" else "enforce", **config)
            for name in ("first", "shadow", "last")
        ]
        behaviours = {"first": first, "shadow": shadow, "last": last}
        self.host = FakeHost(
            {name: self._plugin(behaviour) for name, behaviour in behaviours.items()}, tuple(plugins)
        )
        self.observer = FakeObserver()
        self.hooks: SessionHooks = dispatcher_for(
            plugins, self.host, observer=self.observer, **settings
        ).session(SessionFacts(id="S1", client_ip="192.0.2.1", client_port=1), FakeHolder())

    @staticmethod
    def _plugin(behaviour: Any) -> Any:
        if isinstance(behaviour, Plugin | Broken):
            return behaviour
        return Plugin(**{hook: lambda *_: behaviour for hook in HOOKS})

    def mail(self) -> Decision:
        return run(self.hooks.run("mail", sender=SENDER, parameters={}))

    def rcpt(self) -> Decision:
        return run(self.hooks.run("rcpt", recipient=RCPT, parameters={}))

    def message(self, copies: FakeCopies) -> Decision:
        return run(self.hooks.run("message", message=copies))

    def asked(self, plugin: str = "shadow") -> list[str]:
        return [frame["hook"] for each in self.host.sandboxes(plugin) for frame in each.frames]


@pytest.mark.parametrize(
    "verdict", [deny("5.7.1", "no"), defer("4.7.1", "later"), disconnect("4.7.0", "bye")]
)
def test_its_verdict_is_not_obeyed(verdict: Any):
    """The client hears what the others decided; nobody waited for the shadow's sandbox."""
    world = World(shadow=verdict)
    decision = world.mail()
    assert decision.reply is None
    assert [record.plugin for record in decision.records] == ["first", "last"]
    assert world.host.sandboxes("shadow") == [], "the reply is there before it is even asked"
    world.observer.run_background()
    [told] = world.observer.answered
    assert told.differs
    assert (told.plugin, told.hook, told.did) == ("shadow", "mail", "go on")


@pytest.mark.parametrize(
    ("shadow", "last", "would", "did", "differs"),
    [
        (None, None, "go on", "go on", False),
        (None, deny("5.7.1", "no"), "deny", "deny", False),
        (deny("5.7.1", "mine"), deny("5.7.2", "other"), "deny", "deny", False),
        (deny("5.7.1", "mine"), defer("4.7.1", "later"), "deny", "defer", True),
        (deny("5.7.1", "mine"), None, "deny", "go on", True),
        (defer("4.7.1", "x"), None, "defer", "go on", True),
        (disconnect("4.7.1", "x"), None, "disconnect", "go on", True),
        (accept(), None, "go on", "go on", False),
        (accept(), deny("5.7.1", "no"), "go on", "deny", True),
        (discard(), None, "discard", "go on", True),
        (discard(), discard(), "discard", "discard", False),
        (export("NOTE", "x"), None, "go on", "go on", False),
    ],
)
def test_what_it_would_have_done_is_compared(shadow: Any, last: Any, would: str, did: str, differs: bool):
    """With what was done to the command: whoever decided that, in whatever words."""
    world = World(shadow=shadow, last=last)
    world.rcpt()
    world.observer.run_background()
    [told] = world.observer.answered
    assert (told.would, told.did, told.differs) == (would, did, differs)


@pytest.mark.parametrize(
    ("shadow", "last", "differs", "edits"),
    [
        (quarantine("odd"), None, True, 0),
        (quarantine("odd"), quarantine("other"), False, 0),
        (add_header("X-A", "1"), None, True, 1),
        (replace_body(b"new\r\n"), None, True, 1),
        (add_header("X-A", "1"), deny("5.7.1", "no"), False, 1),
    ],
)
def test_edits_that_would_have_counted_differ(
    shadow: Any, last: Any, differs: bool, edits: int, copies: FakeCopies
):
    """Of mail that is refused anyway they would have counted for nothing."""
    world = World(shadow=shadow, last=last)
    decision = world.message(copies)
    world.observer.run_background()
    [told] = world.observer.answered
    assert (told.differs, told.edits) == (differs, edits)
    assert (decision.edits, decision.body) == ((), None)
    assert copies.new_body is None


def test_nobody_sees_its_edits_and_it_sees_those_before(copies: FakeCopies):
    """It stands in the admin's order as if it counted."""
    seen: dict[str, list[str]] = {}

    def looking(name: str) -> Callable[..., Any]:
        def message(session: Any, envelope: Any, message: Any) -> Any:
            seen[name] = [value for field, value in message.headers.items() if field.startswith("X-")]
            return add_header(f"X-{name}", name), export("NOTE", name)

        return message

    world = World(
        **{name: Plugin(message=looking(name), mail=lambda *_: None) for name in ("first", "shadow", "last")}
    )
    world.message(copies)
    world.observer.run_background()
    assert seen["shadow"] == ["first"]
    assert seen["last"] == ["first"]
    world.mail()
    assert world.host.sandboxes("last")[0].frames[-1]["session"]["exports"] == {"NOTE": "last"}
    world.observer.run_background()


def test_it_reads_the_message_after_the_hook_is_over(copies: FakeCopies):
    """The copy lives until it has read; the reply went out long before."""
    read: list[bytes] = []

    def message(session: Any, envelope: Any, message: Any) -> None:
        read.append(message.body)

    world = World(shadow=Plugin(message=message))
    world.message(copies)
    copies.close()
    assert read == []
    world.observer.run_background()
    assert read == [b"the body\r\n"]


def test_where_there_is_no_room_for_its_copy_it_is_not_asked(copies: FakeCopies):
    """Counted; no 451 for anybody."""
    world = World(shadow=deny("5.7.1", "no"), reads=("body",))

    def full(what: str, _edits: Any) -> Any:
        raise Overloaded(f"no room for {what}")

    copies.keep = full  # type: ignore[method-assign]
    assert world.message(copies).reply is None
    assert [(plugin, hook) for plugin, hook, _ in world.observer.dropped] == [("shadow", "message")]
    assert world.observer.work == []


def test_no_more_than_so_many_calls_wait():
    """16 may queue, then they are dropped and counted (plugins.md)."""
    world = World(shadow=None)
    for _ in range(QUEUE + 4):
        world.mail()
    assert len(world.observer.work) == 1, "one task works for the session"
    assert len(world.observer.dropped) == 4
    world.observer.run_background()
    assert world.asked() == ["mail"] * QUEUE
    world.mail()
    world.observer.run_background()
    assert len(world.observer.answered) == QUEUE + 1, "what was dropped is no reason to stop"


def test_the_sessions_end_lets_it_finish():
    """What waits is asked, the disconnect hook too; then the sandbox is let go."""
    world = World(shadow=None)
    world.mail()
    run(world.hooks.run("disconnect"))
    world.hooks.close()
    [task] = world.observer.work
    assert world.host.sandboxes("shadow") == []
    run(task)
    assert world.asked() == ["mail", "disconnect"]
    assert world.host.sandboxes("shadow")[0].released


def test_it_is_let_go_at_once_where_nothing_waits():
    """The session is over."""
    world = World(shadow=None)
    world.mail()
    world.observer.run_background()
    world.hooks.close()
    assert world.host.sandboxes("shadow")[0].released


def test_its_failure_is_told_and_changes_nothing():
    """Logged as a failure; not asked again in that session; the client never hears of it."""
    world = World(shadow=Broken(CallFailed("crash", "SIGSEGV")))
    assert world.mail().reply is None
    assert world.rcpt().reply is None
    world.observer.run_background()
    [failure] = world.observer.failed
    assert (failure.plugin, failure.hook, failure.failure, failure.verdict) == (
        "shadow",
        "mail",
        "crash",
        "shadow",
    )
    assert world.mail().reply is None
    assert world.observer.work == []
    assert world.asked() == ["mail"]
    assert world.observer.changes == [], "it has no breaker"
    assert world.host.sandboxes("shadow")[0].closed


def test_a_breach_is_a_failure_of_it():
    """What it may not say, it may not say here either."""
    world = World(shadow=Broken(b'{"n":{n},"verdict":{"do":"ok"}}'))
    world.mail()
    world.observer.run_background()
    assert world.observer.failed[0].failure == "protocol"


def test_an_edit_that_could_not_stand_is_a_failure_of_it():
    """What depends on the message and on our domains is looked at too."""
    world = World(shadow=rewrite("elsewhere@example.com"), routable=lambda *_: False)
    world.rcpt()
    world.observer.run_background()
    assert world.observer.answered == []
    assert world.observer.failed[0].failure == "protocol"


def test_overload_drops_its_call():
    """No sandbox for it: counted, and no 451."""
    world = World(shadow=None)
    world.mail()
    world.host.full = True
    world.observer.run_background()
    assert [(plugin, hook) for plugin, hook, _ in world.observer.dropped] == [("shadow", "mail")]
    world.host.full = False


@pytest.mark.parametrize("fresh", ["session", "call"])
def test_after_a_dropped_call_it_is_told_the_whole_session(fresh: str):
    """Nothing of the dropped one went over: the next frame is its first, with all that it may know."""
    world = World(shadow=None, limits=Limits(fresh=fresh))
    world.mail()
    world.host.full = True
    world.observer.run_background()
    world.host.full = False
    world.hooks.begin(SENDER)
    world.rcpt()
    world.observer.run_background()
    [sandbox] = world.host.sandboxes("shadow")
    [frame] = sandbox.frames
    assert (frame["n"], frame["new"], frame["session"]["id"]) == (1, True, "S1")
    assert frame["sender"] == json.loads(msgspec.json.encode(SENDER))
    assert [told.hook for told in world.observer.answered] == ["rcpt"]
    assert [hook for _, hook, _ in world.observer.dropped] == ["mail"]


def test_calls_that_build_on_a_dropped_one_are_dropped_too():
    """Theirs tell what has changed since: without the one before they would be judged by an empty session."""
    world = World(shadow=None)
    world.mail()
    world.rcpt()
    world.host.full = True
    dropped = world.observer.shadow_dropped

    def shadow_dropped(*args: Any, **named: Any) -> None:
        world.host.full = False
        dropped(*args, **named)

    world.observer.shadow_dropped = shadow_dropped  # type: ignore[method-assign]
    world.observer.run_background()
    assert world.host.sandboxes("shadow") == []
    assert [hook for _, hook, _ in world.observer.dropped] == ["mail", "rcpt"]
    run(world.hooks.run("disconnect"))
    assert world.observer.work == [], "it has seen nothing of the session"


def test_it_takes_nobodys_share_and_nobody_gives_way_for_it():
    """A client must not be sent away, nor get a bad name, for a plugin that is only tried."""
    world = World(shadow=None)
    world.mail()
    world.observer.run_background()
    assert world.host.networks == ["192.0.2.0/24", "192.0.2.0/24", ""]


def test_a_sandbox_for_each_call_is_told_everything_each_time():
    """limits.fresh = "call"."""
    world = World(shadow=None, limits=Limits(fresh="call"))
    world.mail()
    world.rcpt()
    world.observer.run_background()
    sandboxes = world.host.sandboxes("shadow")
    assert len(sandboxes) == 2
    assert all(
        sandbox.frames[0]["new"] and sandbox.frames[0]["session"]["id"] == "S1" for sandbox in sandboxes
    )


def test_it_is_not_asked_where_a_plugin_before_it_decided():
    """As it would not be if it counted."""
    world = World(first=deny("5.7.1", "no"), shadow=None)
    world.mail()
    assert world.observer.work == []


def test_a_client_that_leaves_in_the_middle_leaves_no_copy_behind(copies: FakeCopies):
    """The hook is cut off: its question is never asked, and its copy is closed (the fixture looks)."""
    world = World(shadow=None, last=Broken(OSError()))
    with pytest.raises(OSError):
        world.message(copies)
    assert world.observer.work == []


def test_a_failure_leaves_what_a_record_needs(copies: FakeCopies):
    """crash.keep: the frames, and the very copy that the call had; whoever writes the record closes it."""
    world = World(shadow=Broken(CallFailed("crash"), at="message"), keep_frames=True)
    world.mail()
    world.message(copies)
    world.observer.run_background()
    remains = world.observer.failed[0].remains
    assert remains is not None
    assert [json.loads(frame)["hook"] for frame in remains.frames] == ["mail", "message"]
    assert remains.message is not None
    assert os.pread(remains.message.fd, 99, 0) == b"Subject: hello\r\n\r\nthe body\r\n"
    remains.message.close()
