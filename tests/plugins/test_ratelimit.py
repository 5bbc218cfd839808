"""ratelimit: its manual page, sentence by sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk import QuotaExceeded, Unavailable
from forkd.sdk.fakes import FakeState
from forkd.sdk.testing import (
    Answer,
    LoadedPlugin,
    ScriptedSession,
    assert_deferred,
    assert_denied,
    assert_passed,
    load_plugin,
)

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "ratelimit"


class World:
    """One plugin with these limits, its store and the time, which goes on when the test says so."""

    def __init__(self, *limits: str, **settings: Any) -> None:
        self.now = 1_800_000_000.0
        """A whole number of hours, so that windows begin here."""
        self.state: Any = FakeState(clock=lambda: self.now)
        settings = {"limits": list(limits), **settings}
        loaded = load_plugin(FOLDER, settings=settings)
        values = {name: declared.get("default") for name, declared in loaded.manifest["settings"].items()}
        plugin = sys.modules["ratelimit"].hooks(
            values | settings, lambda: self.now
        )  # by a clock of the test's
        plugin.name = "ratelimit"
        self._plugin = LoadedPlugin(plugin, loaded.manifest, values | settings)

    def session(self, **facts: Any) -> ScriptedSession:
        return self._plugin.session(state=self.state, **facts)

    def deliver(self, *to: str, sender: str = "ann@example.org", **facts: Any) -> Answer:
        """The answer that refused, or that of the message."""
        return self.session(**facts).deliver(
            "Subject: x\n\nx\n", sender=sender, recipients=to or ("bob@test.local",)
        )

    def taken(self, times: int, *to: str, **more: Any) -> int:
        """Of so many messages: how many were taken."""
        return sum(self.deliver(*to, **more).verdict is None for _ in range(times))


def test_windows_begin_where_the_tests_think():
    assert World("client messages 1/1h").now % 86_400 % 3600 == 0


@pytest.mark.parametrize(
    ("limit", "same", "other"),
    [
        ("client messages 2/1h", {"sender": "x@x.example"}, {"client_ip": "192.0.2.9"}),
        ("user messages 2/1h", {"user": "ANN", "client_ip": "192.0.2.9"}, {"user": "bob"}),
        (
            "sender messages 2/1h",
            {"sender": "Ann+x@example.org", "client_ip": "::2"},
            {"sender": "a@example.org"},
        ),
        ("sender_domain messages 2/1h", {"sender": "x@Example.org"}, {"sender": "ann@example.com"}),
        ("client recipients 2/1h", {"sender": "x@x.example"}, {"client_ip": "192.0.2.9"}),
    ],
)
def test_by_whom_is_counted(limit: str, same: dict[str, str], other: dict[str, str]):
    """Two of the same, whatever else differs, and no third; anybody else has his own count."""
    world = World(limit)
    mine = {"user": "ann"} if limit.startswith("user") else {}
    assert world.taken(1, **mine) == 1
    assert world.taken(3, **same) == 1
    assert world.taken(3, **other) == 2


@pytest.mark.parametrize(
    ("limit", "same", "other"),
    [
        ("recipient messages 2/1h", "Bob+detail@test.local", "eve@test.local"),
        ("recipient recipients 2/1h", "BOB@test.local", "eve@test.local"),
        ("recipient_domain messages 2/1h", "eve@test.local", "bob@other.local"),
    ],
)
def test_to_whom_is_counted(limit: str, same: str, other: str):
    world = World(limit)
    assert world.taken(1, client_ip="192.0.2.1") == 1
    assert world.taken(3, same, client_ip="192.0.2.2") == 1
    assert world.taken(1, other) == 1


def test_one_ipv6_customer_is_one_client():
    """He has 2**64 addresses."""
    world = World("client messages 1/1h")
    assert world.taken(1, client_ip="2001:db8:1:2::1") == 1
    assert world.taken(1, client_ip="2001:db8:1:2:ffff::1") == 0
    assert world.taken(1, client_ip="2001:db8:1:3::1") == 1
    world = World("client messages 1/1h", ipv4_prefix=24)
    assert [world.taken(1, client_ip=f"192.0.2.{n}") for n in (1, 2)] == [1, 0]


def test_what_is_said():
    world = World("client messages 1/10m")
    world.taken(1)
    answer = world.deliver()
    assert answer.hook == "data"
    assert_deferred(answer, code=451, enhanced="4.7.1")
    assert answer.verdict is not None
    assert answer.verdict.text == (
        "too many messages: 1 in 10 minutes are taken from one client, please try again later"
    )
    world = World("recipient_domain messages 0/1d", action="refuse", text="{who}: {what}, {count}, {period}")
    answer = world.deliver()
    assert_denied(answer, code=550, enhanced="5.7.1")
    assert answer.verdict is not None
    assert answer.verdict.text == "recipient's domain: messages, 0, 1 day"


def test_recipients_are_refused_one_by_one():
    """At RCPT: those before the limit stay in the envelope."""
    world = World("client recipients 2/1h")
    session = world.session()
    session.mail("ann@example.org")
    verdicts = [session.rcpt(f"user{n}@test.local").verdict for n in range(4)]
    assert [verdict is None for verdict in verdicts] == [True, True, False, False]
    assert_passed(session.data())
    assert session.counted == {"deferred": 2}


def test_messages_to_a_domain_count_once_in_a_transaction():
    """However many recipients of it there are; and again in the next one."""
    world = World("recipient_domain messages 2/1h")
    session = world.session()
    for _ in range(2):
        answer = session.deliver(
            "\nx\n", sender="", recipients=["a@test.local", "b@test.local", "c@test.local"]
        )
        assert_passed(answer)
    session.mail("")
    assert_deferred(session.rcpt("a@test.local"))


def test_what_never_comes_to_data_is_no_message():
    world = World("client messages 1/1h")
    for _ in range(5):
        session = world.session()
        session.mail("ann@example.org")
        assert_passed(session.rcpt("bob@test.local"))
        session.reset()
    assert world.taken(2) == 1


def test_what_is_refused_does_not_count():
    """Who tries on all the time is let in as soon as one that waits."""
    world = World("client messages 2/1h")
    assert world.taken(50) == 2
    world.now += 5400  # half of the next window: half of 2 still counts
    assert world.taken(50) == 1


def test_one_limit_that_refuses_charges_no_other():
    world = World("client recipients 1/1h", "recipient messages 2/1h")
    assert world.taken(5, "bob@test.local") == 1
    assert world.taken(1, "bob@test.local", client_ip="192.0.2.8") == 1
    assert world.taken(1, "bob@test.local", client_ip="192.0.2.9") == 0


def test_the_period_slides():
    """Never twice the count around a window's edge; after a whole period all of it is there again."""
    world = World("client messages 10/1h")
    world.now += 3599
    assert world.taken(20) == 10
    world.now += 2
    assert world.taken(20) == 1, "9.99 of the last window count, as 9"
    world.now += 1799
    assert world.taken(20) == 4
    world.now += 7200
    assert world.taken(20) == 10


@given(st.lists(st.floats(0, 2000), max_size=60), st.integers(1, 5))
def test_never_more_than_the_count_in_a_window_and_some_always_pass(gaps: list[float], count: int):
    """In any two windows at most twice the count, and who waits two periods passes."""
    world = World(f"client messages {count}/10m")
    times = []
    for gap in gaps:
        world.now += gap
        if world.taken(1):
            times.append(world.now)
    for start in times:
        assert sum(start <= each < start + 600 for each in times) <= 2 * count
        window = start // 600
        assert sum(each // 600 == window for each in times) <= count
    world.now += 1200
    assert world.taken(1) == 1


def test_several_periods_are_several_lines():
    world = World("client messages 2/1m", "client messages 3/1h")
    assert world.taken(5) == 2
    world.now += 120
    assert world.taken(5) == 1
    world.now += 120
    assert world.taken(5) == 0


def test_lines_for_somebody_come_before_the_others():
    world = World(
        "user messages 1/1h", "user messages 3/1h for news", "user messages unlimited for root",
        "client messages 1/1h for .slow.example", "recipient messages 0/1h for closed@test.local",
    )  # fmt: skip
    assert [world.taken(5, user=user) for user in ("ann", "News", "root", "")] == [1, 3, 5, 5]
    assert world.taken(5, client_name="a.slow.example") == 1
    assert world.taken(1, "closed@test.local") == 0


def test_the_null_sender_is_nobody():
    """Bounces of the whole world would share one count."""
    assert World("sender messages 1/1h", "sender_domain messages 1/1h").taken(5, sender="") == 5


@pytest.mark.parametrize(
    ("exempt", "facts"),
    [
        ("client 192.0.2.0/24", {}),
        ("client .example", {}),
        ("sender example.org", {}),
        ("sender <>", {"sender": ""}),
        ("user ann", {"user": "Ann"}),
    ],
)
def test_who_is_not_limited(exempt: str, facts: dict[str, str]):
    limits = ("client messages 1/1h", "client recipients 1/1h")
    assert World(*limits, exempt=[exempt]).taken(3, **facts) == 3
    assert World(*limits, exempt=["client 198.51.100.1", "user bob"]).taken(3, **facts) == 1


def test_a_recipient_that_is_not_limited():
    world = World("client recipients 1/1h", exempt=["recipient postmaster@"])
    assert world.taken(3, "postmaster@test.local") == 3
    assert world.taken(3) == 1


def test_lists_are_read_from_files(tmp_path: Path):
    file = tmp_path / "exempt.list"
    file.write_text("client 192.0.2.1\n")
    assert World("client messages 1/1h", lists=[str(file)]).taken(3) == 3


class Broken:
    """A store that cannot be asked."""

    why: Exception = Unavailable("the broker is away")

    def incr(self, key: str, by: int = 1, ttl: float | None = None) -> int:
        raise self.why


def test_when_nothing_can_be_counted_mail_passes_and_the_log_says_so_once():
    world = World("client messages 0/1h", "client recipients 0/1h")
    world.state = Broken()
    session = world.session()
    assert_passed(session.deliver("\nx\n", sender="", recipients=["a@test.local", "b@test.local"]))
    assert session.logged == ["nothing can be counted: the broker is away; mail is let in"]
    assert session.counted == {"unavailable": 3}


def test_who_asks_for_too_much_in_a_session_does_not_pass_by_it():
    world = World("client messages 5/1h")
    world.state = Broken()
    world.state.why = QuotaExceeded("1000 requests in this session")
    assert_deferred(world.deliver(), code=451, enhanced="4.7.1")


def test_when_nothing_can_be_counted_mail_can_be_deferred():
    world = World("client messages 5/1h", on_unavailable="defer")
    world.state = Broken()
    assert_deferred(world.deliver(), code=451, enhanced="4.3.0")


def test_addresses_of_any_length_have_a_count():
    """Longer than a key of the store may be."""
    world = World("sender messages 1/1h")
    sender = f"{'x' * 64}@{'y' * 60}.{'z' * 60}.{'u' * 60}.{'v' * 60}.example"
    assert [world.taken(1, sender=sender), world.taken(1, sender=sender)] == [1, 0]
    assert world.taken(1, sender="w" + sender[1:]) == 1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"limits": []}, "setting limits: there is no limit"),
        ({"limits": ["user messages many"]}, "these are no limits: setting limits, entry 1: .*no rate"),
        ({"limits": ["user messages 1/1h"], "exempt": ["bob"]}, "these name nobody"),
        ({"limits": ["user messages 1/1h"], "text": ""}, "setting text: "),
        ({"limits": ["user messages 1/1h"], "action": "drop"}, "setting action: "),
    ],
)
def test_bad_settings_stop_the_start(settings: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        load_plugin(FOLDER, settings=settings)


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_what_could_not_be_counted_to_the_end_charges_nobody(fails_at: int):
    """Wherever the store fails: what was charged before is taken off again."""

    class Failing(FakeState):
        calls = 0

        def incr(self, key: str, by: int = 1, ttl: float | None = None) -> int:
            if by > 0:
                self.count()
            return super().incr(key, by, ttl)

        def get(self, key: str) -> str | int | None:
            self.count()
            return super().get(key)

        def count(self) -> None:
            self.calls += 1
            if self.calls == fails_at:
                raise Unavailable("for once")

    world = World("client messages 1/1h", "sender messages 1/1h", "sender_domain messages 1/1h")
    world.state = Failing(clock=lambda: world.now)
    world.deliver()
    assert {world.state.get(key) for key in sorted(world.state.keys())} <= {0}
    assert world.taken(2) == 1


def test_a_store_that_stays_away_is_told_once_and_not_as_another_failure():
    """What cannot be taken off again stays: the first error is the one that is told."""

    class Gone(FakeState):
        calls = 0

        def incr(self, key: str, by: int = 1, ttl: float | None = None) -> int:
            self.calls += 1
            if self.calls > 1:
                raise Unavailable(f"call {self.calls}")
            return super().incr(key, by, ttl)

    world = World("client messages 1/1h", "sender messages 1/1h")
    world.state = Gone(clock=lambda: world.now)
    session = world.session()
    session.deliver("Subject: x\n\nx\n", sender="ann@example.org", recipients=("bob@test.local",))
    assert session.logged == ["nothing can be counted: call 2; mail is let in"]
