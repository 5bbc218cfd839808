"""forkd/sandbox/shares.py: who gets a sandbox, and who gives way (plugins.md, "limits", `sandboxes`)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.sandbox.shares import IDLE_S, KEPT, KNOWN, SHARE, Place, Shares, Standing


def _yes() -> bool:
    return True


def hold(
    shares: Shares[str],
    session: str,
    network: str = "",
    evict: Callable[[], bool] | None = _yes,
    at: float = 0.0,
) -> Place:
    """Take a place that fits."""
    assert shares.fits(network)
    place = Place(session, network, evict, at)
    shares.take(place)
    return place


@pytest.mark.parametrize(
    ("cap", "share"), [(1, 1), (2, 1), (7, 1), (8, 1), (15, 1), (16, 2), (64, 8), (128, 16)]
)
def test_a_network_holds_an_eighth_and_at_least_one(cap: int, share: int):
    """One client network holds an eighth at most; with a small cap still one."""
    shares: Shares[str] = Shares(cap)
    assert shares.share == share
    for number in range(share):
        hold(shares, str(number), "net")
    assert not shares.fits("net")
    assert shares.fits("other") == (share < cap)


def test_trusted_clients_have_no_share():
    """The empty network takes what there is."""
    shares: Shares[str] = Shares(16)
    for number in range(16):
        hold(shares, str(number))
    assert not shares.fits("")


def test_who_waits_is_not_overtaken_by_who_comes_later():
    """First come, first served, also when a place has just become free."""
    shares: Shares[str] = Shares(1)
    place = hold(shares, "a", "n1")
    shares.wait("n2", "first")
    shares.give_back(place)
    assert not shares.fits("n3")
    assert shares.turn() == "first"


def test_who_waits_for_his_own_share_holds_nobody_up():
    """A network that used up its share waits for itself; the free places are the others'."""
    shares: Shares[str] = Shares(16)
    for number in range(2):
        hold(shares, str(number), "greedy")
    shares.wait("greedy", "third")
    assert shares.turn() is None
    assert shares.fits("other")


def test_networks_take_turns():
    """A flood of one network waits behind itself: every other network's first comes before its second."""
    shares: Shares[str] = Shares(64)
    places = [hold(shares, str(number)) for number in range(64)]
    for number in range(5):
        shares.wait("flood", f"flood {number}")
    shares.wait("one", "one 0")
    shares.wait("two", "two 0")
    order = []
    for place in places[:7]:
        shares.give_back(place)
        order.append(shares.turn())
    assert order == ["flood 0", "one 0", "two 0", "flood 1", "flood 2", "flood 3", "flood 4"]
    assert shares.waiting == 0


def test_who_went_away_is_not_served():
    """give_up() after a turn is no error, before it the next one is served."""
    shares: Shares[str] = Shares(1)
    place = hold(shares, "a")
    shares.wait("n", "gone")
    shares.wait("n", "there")
    shares.give_up("n", "gone")
    shares.give_back(place)
    assert shares.turn() == "there"
    shares.give_up("n", "there")
    assert shares.waiting == 0


def known(shares: Shares[str], *networks: str) -> None:
    """A session of each ends well."""
    for network in networks:
        shares.give_back(hold(shares, f"good one of {network}", network), well=True)


def test_a_crowd_of_strangers_leaves_a_quarter_to_known_networks():
    """However many networks it comes from; who is known then waits behind none of them."""
    shares: Shares[str] = Shares(64)
    known(shares, "regular")
    for number in range(48):
        hold(shares, str(number), f"stranger {number}")
    assert not shares.fits("one more")
    shares.wait("one more", "stranger")
    assert shares.turn() is None
    assert shares.fits("regular")
    assert shares.fits("")


@pytest.mark.parametrize("cap", [1, 2, 3, KEPT - 1])
def test_few_places_are_for_everybody(cap: int):
    """A quarter of so few is none: nothing is kept free for nobody."""
    shares: Shares[str] = Shares(cap)
    for number in range(cap):
        hold(shares, str(number), f"stranger {number}")


def test_what_ended_badly_is_known_no_more():
    """A killed sandbox, or a place that had to be asked for, makes a stranger of its network again."""
    shares: Shares[str] = Shares(8)
    known(shares, "a", "b")
    shares.give_back(hold(shares, "killed", "a"))
    idle = hold(shares, "idle", "b")
    shares.leaves(idle)
    shares.give_back(idle, well=True)
    for number in range(6):
        hold(shares, str(number), f"stranger {number}")
    assert not shares.fits("a")
    assert not shares.fits("b")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_who_fails_one_plugin_is_known_to_none(order: tuple[int, int]):
    """One standing for all plugins of a worker, whichever of its places a session gives back first."""
    standing = Standing()
    plugins = [Shares[str](8, standing) for _ in range(2)]
    known(plugins[0], "a")
    places = [hold(shares, "s", "a") for shares in plugins]
    for number in order:
        plugins[number].give_back(places[number], well=number == 0)
    assert not standing.knows("a")
    known(plugins[1], "a")
    assert standing.knows("a")


def test_so_many_networks_are_known_at_most():
    """The one whose last good session is longest ago is forgotten first."""
    shares: Shares[str] = Shares(KEPT)
    known(shares, *(f"n{number}" for number in range(KNOWN)), "n0", "one more")
    for number in range(KEPT - 1):
        hold(shares, str(number), f"stranger {number}")
    assert not shares.fits("n1")
    assert shares.fits("n2")
    assert shares.fits("n0")


def test_a_stranger_waits_for_strangers_only():
    """Their part is used up: one of them gives way, though a known one is idle for longer."""
    shares: Shares[str] = Shares(8)
    known(shares, "regular")
    hold(shares, "known", "regular").idle_since = 0.0
    for number in range(6):
        hold(shares, str(number), f"stranger {number}").idle_since = 50.0 + number
    shares.wait("new", "x")
    victim = shares.victim(NOW)
    assert victim is not None
    assert victim.session == "0"
    shares.leaves(victim)
    assert shares.victim(NOW) is None, "one is enough"
    shares.give_back(victim)
    assert shares.turn() == "x"


NOW = 100.0
VICTIMS = {
    "the longest idle": ([("a", "n1", 5.0), ("b", "n2", 9.0), ("c", "n3", 7.0)], "x", "b"),
    "nobody who was at work a moment ago": ([("a", "n1", IDLE_S / 2)], "x", None),
    "nobody with a call in flight": ([("a", "n1", None), ("b", "n2", None)], "x", None),
    "not the one who asks": ([("x", "n1", 9.0), ("b", "n2", 8.0)], "x", "b"),
    "a trusted client's as well": ([("a", "", 9.0), ("b", "n2", 8.0)], "x", "a"),
}


@pytest.mark.parametrize("name", VICTIMS)
def test_who_gives_way_when_all_is_taken(name: str):
    """The longest idle session without a call in flight, never the asking one."""
    held, asking, expected = VICTIMS[name]
    shares: Shares[str] = Shares(len(held))
    for session, network, idle in held:
        hold(shares, session, network).idle_since = None if idle is None else NOW - idle
    shares.wait("new", asking)
    victim = shares.victim(NOW, {asking})
    assert (victim and victim.session) == expected


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([("mail", True, 9.0), ("quiet", False, 1.0)], "quiet"),
        ([("mail 1", True, 5.0), ("mail 2", True, 9.0)], "mail 2"),
        ([("mail", True, 9.0), ("quiet", False, IDLE_S / 2)], "mail"),
        ([("mail", True, 9.0), ("at work", False, None)], "mail"),
    ],
)
def test_a_session_in_the_middle_of_a_mail_gives_way_last(
    held: list[tuple[str, bool, float | None]], expected: str
):
    """Whoever has no transaction first, however much longer the other is idle: its mail would come again."""
    shares: Shares[str] = Shares(len(held))
    for session, in_mail, idle in held:
        place = Place(session, session, _yes, NOW, in_mail=lambda in_mail=in_mail: in_mail)
        place.idle_since = None if idle is None else NOW - idle
        shares.take(place)
    shares.wait("new", "x")
    victim = shares.victim(NOW)
    assert victim is not None
    assert victim.session == expected


def test_while_there_is_room_nobody_gives_way():
    """Only a network's own idle sessions make room in its share: not a stranger's, however idle."""
    shares: Shares[str] = Shares(16)
    hold(shares, "stranger", "other", at=0.0)
    hold(shares, "own 1", "greedy", at=50.0)
    hold(shares, "own 2", "greedy", at=40.0)
    shares.wait("greedy", "third")
    victim = shares.victim(NOW)
    assert victim is not None
    assert victim.session == "own 2"
    shares.leaves(victim)
    assert shares.victim(NOW) is None, "one is on its way, one waits"


def test_who_refuses_or_cannot_be_asked_stays():
    """evict() said no: it is at work. No evict at all (a stopping session): never asked."""
    shares: Shares[str] = Shares(2)
    busy = hold(shares, "busy")
    hold(shares, "mute", evict=None)
    shares.wait("", "x")
    assert shares.victim(NOW) is busy
    shares.stays(busy, NOW)
    assert shares.victim(NOW) is None
    assert shares.victim(NOW + IDLE_S) is busy


def test_no_more_give_way_than_are_needed():
    """One who waits costs one session, not all the idle ones."""
    shares: Shares[str] = Shares(8)
    known(shares, "n6", "n7")
    places = [hold(shares, str(number), f"n{number}") for number in range(8)]
    for who in ("x", "y"):
        shares.wait("new", who)  # its share is one place
    asked = []
    while (victim := shares.victim(NOW)) is not None:
        shares.leaves(victim)
        asked.append(victim)
    assert len(asked) == 1
    shares.give_back(asked[0])
    assert shares.turn() == "x"
    shares.take(Place("x", "new", None, NOW))
    assert shares.turn() is None
    assert len({*places}) == 8


@settings(max_examples=200, deadline=None)
@given(
    cap=st.integers(1, 40),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["ask", "ask", "ask", "free", "end well", "work", "rest", "leave"]),
            st.integers(0, 30),
            st.sampled_from(["", "n1", "n2", "n3", "n4"]),
        ),
        max_size=120,
    ),
)
def test_never_over_the_cap_nor_a_share_and_no_wakeup_is_lost(cap: int, steps: list[tuple[str, int, str]]):
    """Whatever happens in whatever order: the cap, every share and what is kept for known networks hold, and
    nobody who fits keeps waiting."""
    shares: Shares[tuple[str, str]] = Shares(cap)
    places: list[Place] = []
    waiting: list[tuple[str, str]] = []
    good: set[str] = {""}
    now = 0.0

    def settle() -> None:
        while (who := shares.turn()) is not None:
            waiting.remove(who)
            place = Place(who[0], who[1], _yes, now)
            shares.take(place)
            places.append(place)
        while (victim := shares.victim(now, {session for session, _ in waiting})) is not None:
            assert victim.idle_since is not None
            assert now - victim.idle_since >= IDLE_S
            assert waiting, "nobody waits: nobody gives way"
            shares.leaves(victim)

    for number, (act, which, network) in enumerate(steps):
        now += 0.1
        if act == "ask":
            who = (f"s{number}", network)
            if shares.fits(network):
                place = Place(*who, _yes, now)
                shares.take(place)
                places.append(place)
            else:
                shares.wait(network, who)
                waiting.append(who)
        elif act == "leave" and waiting:
            who = waiting.pop(which % len(waiting))
            shares.give_up(who[1], who)
        elif places:
            place = places[which % len(places)]
            if act in ("free", "end well"):
                places.remove(place)
                shares.give_back(place, well=act == "end well")
                good -= {place.network} - {""}
                if act == "end well" and not place.leaving:
                    good.add(place.network)
            else:
                place.idle_since = None if act == "work" else now
        settle()
        assert shares.held == len(places) <= cap
        assert shares.waiting == len(waiting)
        for name in ("n1", "n2", "n3", "n4"):
            count = sum(place.network == name for place in places)
            assert count == shares.holds(name) <= max(1, cap // SHARE)
        strangers = sum(place.stranger for place in places)
        assert strangers <= cap - cap // KEPT
        for _, name in waiting:
            out_of_share = name and shares.holds(name) == shares.share
            kept_out = name not in good and strangers == cap - cap // KEPT
            assert len(places) == cap or out_of_share or kept_out, "he fits, and waits"
    for place in places:
        shares.give_back(place)
    assert shares.held == 0


def test_a_session_that_holds_nobodys_place_says_nothing_about_its_client():
    """Shadow plugins: their failures must not make a stranger of a client who is known."""
    standing = Standing()
    standing.ended("S1", "", well=False)
    standing.ended("S1", "n1", well=True)
    assert standing.knows("n1")
