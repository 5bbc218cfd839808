"""Who gets the next sandbox of a plugin, and who must give one back? Pure: told what happens and when.

A plugin has so many places (its cap, this worker's part). Each is held by one session of one client
network:

- A network holds an eighth of the places at most, one at least; the empty network (clients the admin
  trusts) has no share.
- A quarter of the places is kept for networks that are known (Standing): those whose last session here
  ended well, and the admin's. So a crowd of misbehaving strangers, however many networks it has, takes no
  place from those whose mail comes every day.
- Who fits takes a place at once, unless somebody who fits as well was there before.
- Else he waits. Networks take turns, and within a network first come is first served: a flood from one
  waits behind itself.
- While somebody waits, sessions that hold a place and do nothing with it are asked to give way: any session
  when the places are used up, one of the same network when its share is, a stranger's when theirs are.
  Those without a transaction first, those in the middle of a mail only when there are no others; among
  them the longest idle. Idle means that no call was in flight for IDLE_S, so that a flood of new sessions
  cannot drive out those that merely wait for their client's next command.

Waiting is bounded by who waits (kennel.py): nothing here looks at a clock.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Container, Iterator
from typing import Generic, TypeVar

IDLE_S = 0.5
"""Without a call for so long a session counts as idle: longer than a round trip to anywhere on earth, and
short enough that who waits sandbox.overload_wait (1 s) still gains by it."""
SHARE = 8
"""One client network holds a SHARE-th of the places at most."""
KEPT = 4
"""A KEPT-th of the places is kept for known networks."""
KNOWN = 4096
"""So many networks are known at most; the one whose last good session is longest ago is forgotten first."""
FAILED = 1024
"""So many sessions that did something wrong are remembered, for their other places: these come back soon."""


class Standing:
    """Which networks are known? One for all plugins of a worker: a session that one of them had to be killed
    for did not end well, however the others fared with it."""

    __slots__ = ("_failed", "_known")

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        """The latest last."""
        self._failed: dict[str, None] = {}

    def knows(self, network: str) -> bool:
        """The empty network is the admin's."""
        return not network or network in self._known

    def ended(self, session: str, network: str, *, well: bool) -> None:
        """A session has given a place back. Nobody's share says nothing about anybody (shadow plugins)."""
        if not network:
            return
        self._known.pop(network, None)
        if not well:
            _remember(self._failed, session, FAILED)
        elif session not in self._failed:
            _remember(self._known, network, KNOWN)


def _remember(names: dict[str, None], name: str, most: int) -> None:
    names.pop(name, None)
    names[name] = None
    if len(names) > most:
        del names[next(iter(names))]


class Place:
    """One held place.

    session     its holder; network: the holder's, "" without a share.
    idle_since  when its last call ended; None while one is in flight.
    evict       asks the holder to give way; None: it never does.
    in_mail     is the holder between MAIL and the end of data? None: it does not say, and counts as not.
    leaving     it has been asked and said yes.
    stranger    its network was not known when it took the place.
    """

    __slots__ = ("evict", "idle_since", "in_mail", "leaving", "network", "session", "stranger")

    def __init__(
        self,
        session: str,
        network: str,
        evict: Callable[[], bool] | None,
        now: float,
        *,
        in_mail: Callable[[], bool] | None = None,
    ) -> None:
        self.session = session
        self.network = network
        self.evict = evict
        self.in_mail = in_mail
        self.idle_since: float | None = now
        self.leaving = self.stranger = False


W = TypeVar("W")


class Shares(Generic[W]):
    """The places of one plugin in one worker; W is whatever stands for somebody who waits."""

    __slots__ = (
        "_by_network",
        "_held",
        "_leaving",
        "_queues",
        "_standing",
        "_strangers",
        "cap",
        "for_strangers",
        "share",
        "waiting",
    )

    def __init__(self, cap: int, standing: Standing | None = None) -> None:
        self.cap = cap
        self._standing = standing or Standing()
        self.share = max(1, cap // SHARE)
        self.for_strangers = cap - cap // KEPT
        """How many places networks that are not known may hold, all together."""
        self.waiting = 0
        """How many wait."""
        self._held: set[Place] = set()
        self._by_network: dict[str, int] = {}
        self._strangers = 0
        self._leaving = 0
        self._queues: dict[str, deque[W]] = {}
        """Network -> who waits, in the order of the networks' turns; no queue is empty."""

    @property
    def held(self) -> int:
        """Places held."""
        return len(self._held)

    def holds(self, network: str) -> int:
        """Places that `network` holds."""
        return self._by_network.get(network, 0)

    def fits(self, network: str) -> bool:
        """May a newcomer of `network` take a place now, past those who wait already?

        Only somebody whose network has no room in its share, or a stranger when theirs are used up, may be
        passed.
        """
        if len(self._held) >= self.cap or not self._has_room(network):
            return False
        return not self.waiting or not any(self._has_room(other) for other in self._queues)

    def take(self, place: Place) -> None:
        """`place` is held from now on; fits() or turn() said so."""
        self._held.add(place)
        place.stranger = not self._standing.knows(place.network)
        self._strangers += place.stranger
        self._by_network[place.network] = self._by_network.get(place.network, 0) + 1

    def give_back(self, place: Place, *, well: bool = False) -> None:
        """It is free again. `well`: its session did nothing wrong with it."""
        self._held.remove(place)
        self._leaving -= place.leaving
        self._strangers -= place.stranger
        self._standing.ended(place.session, place.network, well=well and not place.leaving)
        left = self._by_network[place.network] - 1
        if left:
            self._by_network[place.network] = left
        else:
            del self._by_network[place.network]

    def wait(self, network: str, who: W) -> None:
        """`who` does not fit, and waits behind others of its network."""
        self._queues.setdefault(network, deque()).append(who)
        self.waiting += 1

    def give_up(self, network: str, who: W) -> None:
        """`who` waits no longer; no error when its turn() came already."""
        queue = self._queues.get(network)
        if queue is None or who not in queue:
            return
        queue.remove(who)
        self.waiting -= 1
        if not queue:
            del self._queues[network]

    def turn(self) -> W | None:
        """Whose turn is it? He waits no longer: take() at once. None: nobody who waits fits."""
        if len(self._held) >= self.cap:
            return None
        for network, queue in self._queues.items():
            if self._has_room(network):
                who = queue.popleft()
                self.waiting -= 1
                del self._queues[network]
                if queue:
                    self._queues[network] = queue  # behind the other networks
                return who
        return None

    def victim(self, now: float, asking: Container[str] = ()) -> Place | None:
        """Who should be asked next to give way? Then say leaves() or stays(); None: nobody.

        asking  sessions that wait for a sandbox themselves (of any plugin): they are at work.
        """
        for wanted in self._wanted():
            best: Place | None = None
            least = (True, now)
            for place in self._held:
                since = place.idle_since
                if (
                    since is None
                    or place.leaving
                    or place.evict is None
                    or now - since < IDLE_S
                    or not wanted(place)
                    or place.session in asking
                ):
                    continue
                rank = (place.in_mail is not None and place.in_mail(), since)
                if rank < least:
                    best, least = place, rank
            if best is not None:
                return best
        return None

    def leaves(self, place: Place) -> None:
        """Its holder will give it back soon, or has done so already."""
        if place in self._held:
            place.leaving = True
            self._leaving += 1

    def stays(self, place: Place, now: float) -> None:
        """Its holder refused: it is at work, and not asked again for IDLE_S."""
        place.idle_since = now

    def _has_share(self, network: str) -> bool:
        return not network or self._by_network.get(network, 0) < self.share

    def _has_room(self, network: str) -> bool:
        """Could it take a place if one is free?"""
        return self._has_share(network) and (
            self._strangers < self.for_strangers or self._standing.knows(network)
        )

    def _wanted(self) -> Iterator[Callable[[Place], bool]]:
        """Whose places are wanted beyond those already on their way: a network's, strangers', anybody's."""
        known = strangers = 0
        for network, queue in self._queues.items():
            if not self._has_share(network):
                if len(queue) > sum(p.leaving for p in self._held if p.network == network):
                    yield functools.partial(_is_of, network)
                continue
            count = min(len(queue), self.share - self.holds(network)) if network else len(queue)
            if self._standing.knows(network):
                known += count
            else:
                strangers += count
        room = max(0, self.for_strangers - self._strangers)
        if strangers > room + sum(p.leaving for p in self._held if p.stranger):
            yield lambda place: place.stranger
        if known + min(strangers, room) > self._leaving + max(0, self.cap - len(self._held)):
            yield lambda _: True


def _is_of(network: str, place: Place) -> bool:
    return place.network == network
