"""When is a plugin broken for everyone, and who finds out that it is mended?"""

from __future__ import annotations

from typing import Any

import pytest

from forkd.hooks.breaker import Breakers, Change, Rule, State
from forkd.hooks.dispatcher import Decision, Dispatcher
from forkd.hooks.facts import SessionFacts
from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sdk import Plugin
from forkd.smtp.address import Mailbox
from tests.support.fake_host import (
    Broken,
    FakeHolder,
    FakeHost,
    FakeObserver,
    FakePlugin,
    dispatcher_for,
    run,
)

RULE = Rule(window_s=30, networks=3, pause_s=10)


class Told:
    """A breaker of the plugin `p`, with what it said."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.breakers = Breakers(RULE, self.changes.append)
        self._sessions = 0

    @property
    def states(self) -> list[str]:
        return [change.state.value for change in self.changes]

    def fail(self, network: str, at: float, *, session: str = "", untaken: bool = False) -> None:
        self._sessions += 1
        name = session or f"S{self._sessions}"
        self.breakers.failed("p", name, network=network, now=at, untaken=untaken)

    def admits(self, at: float, *, session: str = "next", network: str = "n9") -> bool:
        return self.breakers.admits("p", session, network=network, now=at)

    def open(self) -> Told:
        """Three networks failed, for longer than the window."""
        for at, network in ((0, "n1"), (10, "n2"), (30, "n3")):
            self.fail(network, at)
        assert self.states == ["open"]
        self.changes.clear()
        return self


def test_it_opens_when_every_call_of_enough_networks_failed_in_the_window():
    """plugins.md: at least breaker.networks, in breaker.window, with not one success."""
    told = Told().open()
    assert not told.admits(30)


def test_one_client_never_opens_it():
    """However often he crashes it: he is one network."""
    told = Told()
    for at in range(1000):
        told.fail("n1", at)
    assert told.states == []
    assert told.admits(1000)


def test_trusted_clients_are_one_network():
    """They have no name of their own."""
    told = Told()
    for at in range(100):
        told.fail("", at)
        told.fail("n1", at)
    assert told.states == []


def test_a_success_begins_anew():
    """Whoever it was that got an answer: the plugin is not broken for everyone."""
    told = Told()
    told.fail("n1", 0)
    told.fail("n2", 10)
    told.breakers.succeeded("p")
    told.fail("n3", 30)
    assert told.states == []
    told.fail("n1", 59)
    told.fail("n2", 60)
    assert told.states == ["open"]


def test_many_networks_at_once_do_not_open_it():
    """A crowd that crashes it within a second says nothing about those who come in the window's rest."""
    told = Told()
    for number in range(50):
        told.fail(f"n{number}", number / 50)
    assert told.states == []


def test_failures_of_long_ago_do_not_count():
    """Three networks, but never three in one window."""
    told = Told()
    for at, network in ((0, "n1"), (100, "n2"), (200, "n3"), (229, "n1")):
        told.fail(network, at)
    assert told.states == []
    told.fail("n2", 230)
    assert told.states == ["open"]


def test_a_zygote_that_takes_no_call_opens_it_at_the_second():
    """One network is enough: no client can cause that."""
    told = Told()
    told.fail("n1", 0, untaken=True)
    assert told.states == []
    told.fail("n1", 5, untaken=True)
    assert told.states == ["open"]
    assert "zygote" in told.changes[0].reason


def test_a_success_between_two_calls_that_were_not_taken_keeps_it_closed():
    """It was busy, not dead."""
    told = Told()
    told.fail("n1", 0, untaken=True)
    told.breakers.succeeded("p")
    told.fail("n1", 5, untaken=True)
    assert told.states == []


def test_one_session_is_let_through_after_each_pause():
    """Half open: all its calls, and nobody else's."""
    told = Told().open()
    assert not told.admits(39.9)
    assert told.admits(40, session="probe")
    assert told.admits(41, session="probe")
    assert not told.admits(41, session="other")
    assert told.states == ["half_open"]


def test_the_success_of_that_session_closes_it():
    """And it is as if nothing had been."""
    told = Told().open()
    told.admits(40, session="probe")
    told.breakers.succeeded("p")
    assert told.states == ["half_open", "closed"]
    assert told.breakers.troubled == {}
    assert told.admits(40, session="other")


def test_its_failure_keeps_it_open_for_another_pause():
    """And the next one is let through then."""
    told = Told().open()
    told.admits(40, session="probe", network="n5")
    told.fail("n5", 41, session="probe")
    assert told.states == ["half_open", "open"]
    assert not told.admits(49, network="n6")
    assert told.admits(50, network="n6")


def test_a_network_that_failed_so_waits_longer_than_others():
    """Who crashes it on purpose, again and again, does not become the one by whom it is judged."""
    told = Told().open()
    told.admits(40, session="probe", network="bad")
    told.fail("bad", 40, session="probe")
    assert not told.admits(50, session="again", network="bad")
    assert told.admits(51, session="good", network="n6")
    told.breakers.succeeded("p")
    assert told.states[-1] == "closed"


def test_where_nobody_else_comes_that_network_may_try_again():
    """A pause later: a site with one client must get out of it too."""
    told = Told().open()
    told.admits(40, session="probe", network="bad")
    told.fail("bad", 40, session="probe")
    assert told.admits(60, session="again", network="bad")


def test_a_session_that_was_let_through_and_left_is_replaced():
    """It said nothing: after a pause the next one is let through."""
    told = Told().open()
    told.admits(40, session="gone")
    assert not told.admits(49, session="next")
    assert told.admits(50, session="next")


def test_failures_of_sessions_that_were_under_way_change_nothing_while_open():
    """They were asked before it opened."""
    told = Told().open()
    told.admits(40, session="probe")
    told.fail("n7", 41, session="old")
    assert told.states == ["half_open"]


def test_an_attacker_with_many_networks_fills_no_memory():
    """It remembers as many networks as it must count."""
    told = Told()
    for number in range(10_000):
        told.fail(f"n{number}", number / 10_000)
    [breaker] = told.breakers.troubled.values()
    assert len(breaker._failed) <= RULE.networks


# --- in a dispatcher ------------------------------------------------------------------------------------

AT_ONCE = Rule(window_s=30, networks=2, pause_s=0)
SENDER = Mailbox("a", "example.org")


class World:
    """A dispatcher with one plugin; each ask() is a session of its own."""

    def __init__(self, behaviour: Any, rule: Rule = AT_ONCE, **config: Any) -> None:
        plugin = FakePlugin("p", ("helo", "mail"), **config)
        self.host = FakeHost({"p": behaviour}, (plugin,))
        self.observer = FakeObserver()
        self.dispatcher: Dispatcher = dispatcher_for(
            [plugin], self.host, observer=self.observer, breaker=rule
        )
        self.sessions = 0

    def ask(self, network: str) -> Decision:
        self.sessions += 1
        facts = SessionFacts(id=f"S{self.sessions}", client_ip="192.0.2.1", client_port=1)
        hooks = self.dispatcher.session(facts, FakeHolder(network))
        try:
            return run(hooks.run("mail", sender=SENDER, parameters={}))
        finally:
            hooks.close()


def test_while_it_is_open_the_plugin_is_not_asked():
    """on_failure applies at once: no sandbox is taken."""
    world = World(Broken(CallFailed("unavailable")), Rule(pause_s=3600))
    for network in ("n1", "n2"):
        assert world.ask(network).records[0].failure == "unavailable"
    decision = world.ask("n3")
    assert decision.reply is not None
    assert decision.reply.encode().startswith(b"421 4.3.0 ")
    assert [record.failure for record in decision.records] == ["breaker open"]
    assert len(world.host.taken) == 2
    assert world.observer.changes == [("p", "open")]


def test_a_plugin_that_is_mended_is_asked_again():
    """By the session that was let through."""
    world = World(Broken(CallFailed("crash"), at="helo"))
    world.dispatcher.breakers.failed("p", "S", network="n1", now=0, untaken=True)
    world.dispatcher.breakers.failed("p", "S", network="n1", now=0, untaken=True)
    assert world.ask("n3").reply is None
    assert world.observer.changes == [("p", "open"), ("p", "half_open"), ("p", "closed")]


def test_what_is_skipped_has_no_breaker():
    """plugins.md: it never opens for skip; it would let everything past the check."""
    world = World(Broken(CallFailed("unavailable")), on_failure="skip")
    for number in range(20):
        world.ask(f"n{number}")
    assert world.observer.changes == []
    assert len(world.host.taken) == 20


@pytest.mark.parametrize("how", [Overloaded("full"), CallFailed("unavailable")])
def test_overload_is_no_failure(how: Exception):
    """Being busy says nothing about a plugin."""
    world = World(Broken(how))
    for number in range(20):
        world.ask(f"n{number}")
    assert bool(world.observer.changes) == isinstance(how, CallFailed)


def test_a_failure_counts_once_for_its_session():
    """on_failure at its later hooks is no new failure."""
    world = World(Broken(CallFailed("crash")), AT_ONCE, on_failure="defer")
    hooks = world.dispatcher.session(
        SessionFacts(id="S", client_ip="192.0.2.1", client_port=1), FakeHolder("n1")
    )
    for _ in range(5):
        run(hooks.run("mail", sender=SENDER, parameters={}))
    assert world.dispatcher.breakers.troubled["p"].state is State.CLOSED


def test_a_plugin_without_failures_has_none():
    """It costs one look at an empty table."""
    world = World(Plugin(mail=lambda *_: None))
    world.ask("n1")
    assert world.dispatcher.breakers.troubled == {}
