"""The session's side of plugins: what it tells them, what the log gets, how it lets go."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forkd import log
from forkd.config.manifest_schema import PluginLimits
from forkd.hooks.dispatcher import SessionFacts
from forkd.queue.ids import Ids
from forkd.rpc.calls import CallFailed
from forkd.sdk import Plugin, export
from forkd.smtp.address import Mailbox
from forkd.worker.failures import Failures
from forkd.worker.plugins import SessionPlugins
from forkd.worker.services import Counters
from tests.support.fake_host import (
    Behaviour,
    Broken,
    FakeCopies,
    FakeHolder,
    FakeHost,
    FakePlugin,
    Limits,
    Powers,
    dispatcher_for,
    run,
)

SENDER = Mailbox("a", "example.org")


@dataclasses.dataclass
class Asking(FakeHolder):
    """A session, as its plugins see it."""

    id: str = "S1"
    helo: str | None = None
    asked: int = 0

    def facts(self) -> SessionFacts:
        self.asked += 1
        return SessionFacts(id=self.id, client_ip="192.0.2.1", client_port=1, helo=self.helo)


class World:
    """A worker with one plugin, and one session in it."""

    def __init__(
        self, behaviour: Behaviour, *hooks: str, last: Behaviour | None = None, **config: Any
    ) -> None:
        plugins = [FakePlugin("p", hooks, **config)]
        if last is not None:
            plugins.append(FakePlugin("last", hooks))
        self.host = FakeHost({"p": behaviour, "last": last or ()}, tuple(plugins))
        self.background: list[Coroutine[Any, Any, None]] = []
        services: Any = SimpleNamespace(
            dispatcher=dispatcher_for(plugins, self.host, keep_frames=True),
            background=self.background.append,
            counters=Counters(),
            failures=Failures(plugins, background=self.background.append, ids=Ids("w0")),
        )
        self.counters: Counters = services.counters
        self.failures: Failures = services.failures
        self.session = Asking()
        self.plugins = SessionPlugins(services, self.session)

    def mail(self) -> None:
        run(self.plugins.ask("mail", sender=SENDER, parameters={}))

    @property
    def sandboxes(self) -> list[Any]:
        return self.host.sandboxes("p")


def nothing(*_: Any) -> None:
    return None


def leaves(*_: Any) -> None:
    """The session is cancelled while this plugin is asked."""
    raise asyncio.CancelledError


def test_a_session_without_plugins_asked_makes_nothing():
    """It costs nothing before the first of them is asked: not even the facts."""
    world = World(Plugin(mail=nothing), "mail")
    world.plugins.update(user="joe")
    world.plugins.hello("c.example", extended=True)
    world.plugins.begin(SENDER)
    world.plugins.add_recipient(SENDER)
    world.plugins.reset()
    world.plugins.release(cut_off=False)
    assert world.session.asked == 0


def test_what_changes_is_told():
    """HELO, a login: with the next call; what was before the first one stands in the facts."""
    world = World(Plugin(mail=nothing), "mail")
    world.session.helo = "first.example"
    world.mail()
    world.plugins.hello("second.example", extended=True)
    world.plugins.update(user="joe")
    world.mail()
    told = [frame["session"] for frame in world.sandboxes[0].frames]
    assert told[0]["helo"] == "first.example"
    assert told[1] == {"helo": "second.example", "esmtp": True, "user": "joe"}


def test_smtputf8_is_remembered_for_the_transaction():
    """Later hooks of the transaction may have UTF-8, though no plugin reads the envelope."""
    world = World(Plugin(data=nothing), "data")
    world.plugins.begin(SENDER, smtputf8=True)
    run(world.plugins.ask("data"))
    world.plugins.reset()
    world.plugins.begin(SENDER)
    run(world.plugins.ask("data"))
    assert [frame["args"] for frame in world.sandboxes[0].frames] == [{"smtputf8": True}, {}]


def test_sandboxes_are_let_go_after_their_disconnect_hook():
    """Said goodbye in the background: the client has gone and waits for nobody."""
    world = World(Plugin(mail=nothing, disconnect=nothing), "mail", "disconnect")
    world.mail()
    world.plugins.release(cut_off=False)
    assert not world.sandboxes[0].released
    [goodbye] = world.background
    run(goodbye)
    assert [frame["hook"] for frame in world.sandboxes[0].frames] == ["mail", "disconnect"]
    assert world.sandboxes[0].released


def test_a_session_cut_off_says_no_goodbye():
    """A call is under way: there is nothing more to be asked."""
    world = World(Plugin(mail=nothing, disconnect=nothing), "mail", "disconnect")
    world.mail()
    world.plugins.release(cut_off=True)
    assert world.background == []
    assert world.sandboxes[0].released


def test_a_session_that_goes_on_after_release_begins_anew():
    """XCLIENT: another client, so another sandbox, told all facts of now."""
    world = World(Plugin(mail=nothing), "mail")
    world.mail()
    world.plugins.release(cut_off=False)
    world.session.helo = "other.example"
    world.mail()
    assert len(world.sandboxes) == 2
    assert world.sandboxes[1].frames[0]["session"]["helo"] == "other.example"


def test_each_call_is_told_in_the_next_log_line_once():
    """Stories of all plugins asked since the last line."""
    world = World(Plugin(mail=nothing), "mail")
    world.mail()
    [story] = world.plugins.take_stories()
    assert story.startswith("p/mail=none ")
    assert world.plugins.take_stories() == []


def test_failures_and_overload_are_counted_apart():
    """plugins.md: overload is not a failure."""
    world = World(Broken(CallFailed("crash")), "mail", limits=Limits(fresh="call"))
    world.mail()
    assert (world.counters.plugin_failures, world.counters.overloads) == (1, 0)
    [telling] = world.background
    run(telling)
    assert world.failures.tally == {"plugin.p.failed.crash": 1}
    other = World(Plugin(mail=nothing), "mail")
    other.host.full = True
    other.mail()
    assert (other.counters.plugin_failures, other.counters.overloads) == (0, 1)
    assert other.failures.tally == {"plugin.p.overload": 1}


def test_edits_show_in_the_story():
    """How many, beside the verdict."""
    world = World(Plugin(mail=lambda *_: export("NOTE", "x")), "mail", powers=Powers(export=("NOTE",)))
    world.mail()
    assert world.plugins.take_stories()[0].startswith("p/mail=none+1 ")


def test_what_was_said_before_the_client_left_is_told():
    """The hook is cut off while the next plugin is asked: a failure before it is logged, counted, let go."""
    copies = FakeCopies()
    crash = Broken(CallFailed("crash"))
    world = World(crash, "message", last=Plugin(message=leaves), reads=("body",), on_failure="skip")
    with pytest.raises(asyncio.CancelledError):
        run(world.plugins.ask("message", message=copies))
    world.plugins.release(cut_off=True)
    assert world.counters.plugin_failures == 1
    [telling] = world.background
    run(telling)
    assert world.failures.tally == {"plugin.p.failed.crash": 1}
    assert [kept.fd for kept in copies.kept] == [-1]
    copies.close()


def test_what_plugins_logged_and_counted_before_the_client_left_is_told():
    """They did answer."""

    def mail(session: Any, sender: Any) -> None:
        session.count("seen")

    world = World(Plugin(mail=mail), "mail", last=Plugin(mail=leaves))
    with pytest.raises(asyncio.CancelledError):
        world.mail()
    assert world.failures.tally == {"plugin.p.count.seen": 1}


def test_a_failure_has_one_line_however_many_calls_it_costs(tmp_path: Path):
    """A client that goes on with a hundred recipients must not fill the log: the others are counted."""
    world = World(Broken(CallFailed("crash")), "mail", on_failure="skip")
    with (tmp_path / "log").open("w+") as file:
        log.setup(fd=file.fileno())
        try:
            for _ in range(5):
                world.mail()
            for telling in world.background:
                run(telling)
        finally:
            log.setup()
        file.seek(0)
        [line] = file.read().splitlines()
    assert "cause=crash" in line
    assert world.failures.tally == {"plugin.p.failed.crash": 1, "plugin.p.failed.failed_earlier": 4}
    assert world.counters.plugin_failures == 5
    stories = world.plugins.take_stories()
    assert [story.partition(" ")[0] for story in stories[:2]] == [
        "p/mail=none!crash",
        "p/mail=none!failed_earlier",
    ]


def test_the_log_has_whom_a_call_was_about_and_which_limit_ended_it():
    """And nothing of other arguments: passwords are among them."""
    told: list[tuple[str, dict[str, Any]]] = []
    limits = PluginLimits()
    world = World(
        Broken(CallFailed("memory"), at="message"), "mail", "rcpt", "auth", "message", limits=limits
    )
    log.observe(lambda event, fields: told.append((event, fields)))
    try:
        world.mail()
        run(world.plugins.ask("mail", sender=None, parameters={}))
        run(world.plugins.ask("rcpt", recipient=SENDER, parameters={}))
        run(world.plugins.ask("auth", user="joe", secret="pass"))
        run(world.plugins.ask("message"))
        for telling in world.background:
            run(telling)
    finally:
        log.observe()
    calls = [(fields["hook"], fields.get("about")) for event, fields in told if event == "plugin_call"]
    shown = str(SENDER)
    assert calls == [("mail", shown), ("mail", "<>"), ("rcpt", shown), ("auth", None), ("message", None)]
    assert [fields["limit"] for event, fields in told if event == "plugin_failure"] == ["memory = 256MiB"]


def test_the_goodbye_is_in_no_log_line():
    """The session's last line is written before: what nobody takes is not kept."""
    world = World(Plugin(mail=nothing, disconnect=nothing), "mail", "disconnect")
    world.mail()
    world.plugins.release(cut_off=False)
    run(world.background.pop())
    assert [story.partition("=")[0] for story in world.plugins.take_stories()] == ["p/mail"]
