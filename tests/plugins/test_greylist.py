"""greylist: its manual page, sentence by sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd.sdk import QuotaExceeded, StateError, Unavailable
from forkd.sdk.fakes import FakeState
from forkd.sdk.testing import (
    Answer,
    LoadedPlugin,
    ScriptedSession,
    assert_added_header,
    assert_deferred,
    assert_passed,
    load_plugin,
)

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "greylist"
DAY = 86_400


class World:
    """One greylist, its store and the time, which goes on when the test says so."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1_800_000_000.0
        self.state: Any = FakeState(clock=lambda: self.now)
        loaded = load_plugin(FOLDER, settings=settings)
        values = {name: declared.get("default") for name, declared in loaded.manifest["settings"].items()}
        plugin = sys.modules["greylist"].hooks(
            values | settings, lambda: self.now
        )  # by a clock of the test's
        plugin.name = "greylist"
        self._plugin = LoadedPlugin(plugin, loaded.manifest, values | settings)

    def session(self, **facts: Any) -> ScriptedSession:
        return self._plugin.session(state=self.state, **facts)

    def rcpt(self, to: str = "bob@test.local", sender: str = "ann@example.org", **facts: Any) -> Answer:
        """One recipient of one mail in a session of its own."""
        session = self.session(**facts)
        session.mail(sender)
        return session.rcpt(to)

    def waits(self, to: str = "bob@test.local", sender: str = "ann@example.org", **facts: Any) -> bool:
        return self.rcpt(to, sender, **facts).verdict is not None

    def came_again(self, **who: Any) -> None:
        """A first try and a good one."""
        assert self.waits(**who)
        self.now += 301
        assert not self.waits(**who)


@pytest.fixture
def world() -> Iterator[World]:
    return World()


def test_a_first_try_is_told_how_long_to_wait_and_passes_when_it_comes_again(world: World):
    """451 4.7.1 with the seconds; tries before the delay is over are told what is left of it."""
    answer = world.rcpt()
    assert_deferred(answer, code=451, enhanced="4.7.1")
    assert "in 300 seconds" in str(answer.verdict)
    world.now += 100
    assert "in 200 seconds" in str(world.rcpt().verdict)
    world.now += 200
    assert_passed(world.rcpt())
    world.now += 1
    assert_passed(world.rcpt())


@pytest.mark.parametrize(
    "other",
    [
        {"to": "eve@test.local"},
        {"sender": "carl@example.org"},
        {"client_ip": "192.0.3.1"},
        {"sender": "ann@a.example"},
    ],
)
def test_another_recipient_sender_or_client_is_a_first_try(world: World, other: dict[str, str]):
    world.came_again()
    assert world.waits(**other)


def test_a_retry_after_the_window_is_a_first_try_again(world: World):
    assert world.waits()
    world.now += 2 * DAY + 1
    assert "in 300 seconds" in str(world.rcpt().verdict)
    world.now += 301
    assert not world.waits()


def test_who_came_again_is_known_for_a_lifetime_renewed_by_his_mail(world: World):
    world.came_again()
    for _ in range(4):
        world.now += 35 * DAY
        assert not world.waits()
    world.now += 36 * DAY + 1
    assert world.waits()


def test_a_clock_that_was_set_back_makes_nobody_wait_for_longer(world: World):
    assert world.waits()
    world.now -= 10 * DAY
    assert "in 300 seconds" in str(world.rcpt().verdict)


@pytest.mark.parametrize(
    ("settings", "one", "other", "same"),
    [
        ({}, "192.0.2.1", "192.0.2.200", True),
        ({"ipv4_prefix": 32}, "192.0.2.1", "192.0.2.200", False),
        ({"ipv4_prefix": 16}, "192.0.2.1", "192.0.9.1", True),
        ({}, "2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True),
        ({}, "2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ({"pools": ["198.51.100.0/24", "2001:db8::/32"]}, "2001:db8:1::1", "2001:db8:2::1", True),
        ({"pools": ["192.0.0.0/16"]}, "192.0.2.1", "192.0.3.1", True),
    ],
)
def test_one_client_is_all_of_its_network(settings: dict[str, Any], one: str, other: str, same: bool):
    """24 bits of IPv4, 64 of IPv6, or a network of `pools`."""
    world = World(**settings)
    world.came_again(client_ip=one)
    assert world.waits(client_ip=other) is not same


def test_large_senders_are_known_by_their_reverse_name(world: World):
    """Of hosts below a domain of `pools`; the name counts verified only, as forkd tells it."""
    world.came_again(client_ip="192.0.2.1", client_name="mail-ed1-f41.google.com")
    assert not world.waits(client_ip="198.51.100.7", client_name="mail-vs1-f9.google.com")
    assert world.waits(client_ip="198.51.100.7", client_name="")
    assert world.waits(client_ip="198.51.100.7", client_name="mail.notgoogle.com")


def test_after_good_retries_an_hour_apart_a_client_is_known_with_everybody():
    """auto_allow counts one an hour: a burst makes no good client."""
    world = World(auto_allow=3)
    for number in range(5):
        assert world.waits(sender=f"burst{'x' * number}@example.org")
    world.now += 301
    for number in range(5):
        assert not world.waits(sender=f"burst{'x' * number}@example.org")
    assert world.waits(sender="first@example.org")
    for number in range(2):
        world.now += 3600
        world.came_again(sender=f"late{'x' * number}@example.org")
    assert not world.waits(sender="new@example.org", to="any@test.local")
    assert world.waits(sender="new@example.org", client_ip="198.51.100.1")
    for _ in range(3):  # renewed by its mail
        world.now += 30 * DAY
        assert not world.waits(sender="newer@example.org")
    world.now += 37 * DAY
    assert world.waits(sender="newest@example.org")


def test_auto_allow_can_be_off():
    world = World(auto_allow=0)
    for number in range(4):
        world.now += 3700
        world.came_again(sender=f"ann{'x' * number}@example.org")
    assert world.waits(sender="new@example.org")


def test_the_same_sender_with_a_changing_address(world: World):
    """VERP, SRS, BATV: see test_greylist_senders."""
    world.came_again(sender="prvs=1234567abc=ann@example.org")
    assert not world.waits(sender="prvs=9876543def=Ann@Example.org", to="BOB@test.local")


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({}, {"user": "ann"}),
        ({}, {"relay": True}),
        ({}, {"client_ip": "10.1.2.3"}),
        ({}, {"client_ip": "::1"}),
        ({"allow": ["client 192.0.2.0/28"]}, {}),
        ({"allow": ["client .example"]}, {}),
        ({"allow": ["sender example.org"]}, {}),
        ({"allow": ["recipient bob@test.local"]}, {}),
        ({}, {"to": "Postmaster@test.local"}),
        ({}, {"to": "abuse@test.local"}),
        ({"unless": ["SPFRESULT=pass"]}, {"exports": {"SPFRESULT": "pass"}}),
        ({"unless": ["KNOWN"]}, {"exports": {"KNOWN": "yes"}}),
        ({"only": ["DNSBL=suspect"]}, {}),
        ({"only": ["DNSBL=suspect"]}, {"exports": {"DNSBL": "clean"}}),
    ],
)
def test_who_never_waits(settings: dict[str, Any], facts: dict[str, Any]):
    assert not World(**settings).waits(**facts)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"private": True}, {"client_ip": "10.1.2.3"}),
        ({"allow": ["client 192.0.3.0/24", "sender example.com", "recipient eve@"]}, {}),
        ({"allow": []}, {"to": "postmaster@test.local"}),
        ({"unless": ["SPFRESULT=pass"]}, {"exports": {"SPFRESULT": "fail"}}),
        ({"only": ["DNSBL=suspect", "DNSBL=listed"]}, {"exports": {"DNSBL": "listed"}}),
    ],
)
def test_who_waits_all_the_same(settings: dict[str, Any], facts: dict[str, Any]):
    assert World(**settings).waits(**facts)


def test_lists_are_read_from_files(tmp_path: Path):
    file = tmp_path / "allow.list"
    file.write_text("# partners\nclient 192.0.2.1\n")
    world = World(lists=[str(file)])
    assert not world.waits()
    assert world.waits(client_ip="192.0.2.2")


def test_a_bounce_waits_at_data_so_that_a_callout_does_not(world: World):
    """MAIL FROM:<>, RCPT TO and away: 250. A bounce to two waits until it may pass for both."""

    def bounce(*to: str) -> Answer:
        session = world.session()
        session.mail("")
        for each in to:
            assert_passed(session.rcpt(each))
        return session.data()

    assert_deferred(bounce("bob@test.local"), code=451, enhanced="4.7.1")
    world.now += 301
    assert_passed(bounce("bob@test.local"))
    assert_deferred(bounce("bob@test.local", "eve@test.local"))
    world.now += 301
    assert_passed(bounce("bob@test.local", "eve@test.local"))


@pytest.mark.parametrize(("setting", "at_rcpt"), [("rcpt", True), ("pass", False)])
def test_where_bounces_wait_can_be_set(setting: str, at_rcpt: bool):
    world = World(null_sender=setting)
    session = world.session()
    session.mail("")
    assert (session.rcpt("bob@test.local").verdict is not None) is at_rcpt
    assert_passed(session.data())


def test_other_mail_is_not_asked_about_at_data(world: World):
    """What passed at RCPT passes."""
    world.came_again()
    session = world.session()
    session.mail("ann@example.org")
    assert_passed(session.rcpt("bob@test.local"))
    world.now += 40 * DAY
    assert_passed(session.data())


def test_the_header_says_how_long_the_message_was_delayed():
    """Of the recipient that was delayed for the longest; with header = true, which wants its grant."""
    world = World(header=True)
    assert world.waits()
    world.now += 100
    assert world.waits(to="eve@test.local")
    world.now += 400
    session = world.session()
    to = ["bob@test.local", "eve@test.local"]
    answer = session.deliver("Subject: x\n\nx\n", sender="ann@example.org", recipients=to)
    assert_added_header(answer, "X-Greylist", "delayed 500 seconds by mx.test.local")
    answer = session.deliver("Subject: x\n\nx\n", sender="ann@example.org", recipients=to)
    assert not answer.edits, "the next message was not delayed"


def test_a_transaction_that_was_broken_off_leaves_no_header_behind():
    world = World(header=True)
    assert world.waits()
    world.now += 301
    session = world.session()
    session.mail("ann@example.org")
    assert_passed(session.rcpt("bob@test.local"))
    session.reset()
    assert not session.deliver("\nx\n", sender="ann@example.org", recipients=["bob@test.local"]).edits


def test_without_the_setting_there_is_no_header(world: World):
    assert world.waits()
    world.now += 301
    answer = world.session().deliver("\nx\n", sender="ann@example.org", recipients=["bob@test.local"])
    assert_passed(answer)
    assert not answer.edits


class Broken:
    """A store that cannot be asked."""

    def __init__(self, why: Exception) -> None:
        self._why = why

    def get(self, key: str) -> None:
        raise self._why

    add = set = incr = delete = get


@pytest.mark.parametrize("why", [Unavailable("the broker is away"), StateError("the store is full")])
def test_when_nothing_can_be_remembered_mail_passes_and_the_log_says_so_once(world: World, why: Exception):
    world.state = Broken(why)
    session = world.session()
    session.mail("ann@example.org")
    assert_passed(session.rcpt("bob@test.local"))
    assert_passed(session.rcpt("eve@test.local"))
    assert session.logged == [f"nothing can be remembered: {why}; mail is let in"]
    assert session.counted == {"unavailable": 2}


def test_who_asks_for_too_much_in_a_session_does_not_pass_by_it(world: World):
    world.state = Broken(QuotaExceeded("1000 requests in this session"))
    assert_deferred(world.rcpt(), code=451, enhanced="4.7.1")


def test_when_nothing_can_be_remembered_mail_can_be_deferred():
    world = World(on_unavailable="defer")
    world.state = Broken(Unavailable("the broker is away"))
    assert_deferred(world.rcpt(), code=451, enhanced="4.3.0")


def test_what_nobody_of_us_wrote_is_a_first_try(world: World):
    """A store that an older or newer version has written to."""
    assert world.waits()
    key = "triplet 192.0.2.0/24 ann@example.org bob@test.local"
    assert str(world.state.get(key)).startswith("new ")
    for odd in ("", "known", "known soon", "new -1", 7):
        world.state.set(key, odd)
        assert world.waits()
        world.now += 301
        assert not world.waits()


def test_counters_and_text():
    world = World(text="come again in {wait} s")
    session = world.session()
    session.mail("ann@example.org")
    answer = session.rcpt("bob@test.local")
    assert answer.verdict is not None
    assert answer.verdict.text == "come again in 300 s"
    assert session.counted == {"deferred": 1}
    world.now += 301
    session = world.session()
    session.mail("ann@example.org")
    assert_passed(session.rcpt("bob@test.local"))
    assert session.counted == {"came_again": 1}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"delay": "5"}, "setting delay: a period is"),
        ({"window": "2 days"}, "setting window: a period is"),
        ({"delay": "3d"}, "settings delay, window, lifetime: each is longer"),
        ({"lifetime": "1h"}, "settings delay, window, lifetime: each is longer"),
        ({"pools": ["a..b"]}, "these are no pools: setting pools, entry 1"),
        ({"pools": ["192.0.2.1/24"]}, "these are no pools"),
        ({"allow": ["everybody"]}, "these name nobody: setting allow, entry 1"),
        ({"unless": ["spf=pass"]}, "setting unless: 'spf=pass' is no fact"),
        ({"only": ["=x"]}, "setting only: '=x' is no fact"),
        ({"text": "a\nb"}, "setting text: "),
        ({"null_sender": "never"}, "setting null_sender: "),
        ({"ipv4_prefix": 33}, "setting ipv4_prefix: "),
    ],
)
def test_bad_settings_stop_the_start(settings: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        load_plugin(FOLDER, settings=settings)
