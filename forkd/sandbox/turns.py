"""How does a session get, and wait for, one of a plugin's sandboxes? In its turn, up to overload_wait.

Whose turn it is shares.py says, and nothing here knows what a sandbox is: kennel.py makes those of plugins
that stay for a session, program_plugin.py those of programs.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from forkd.rpc.calls import Overloaded
from forkd.sandbox.shares import IDLE_S, Place, Shares

if TYPE_CHECKING:
    from forkd.sandbox.host import Host

SETTLE_S = IDLE_S / 5
"""How often, while somebody waits, it is looked who has become idle."""

S = TypeVar("S")


class _Waiter(Generic[S]):
    """Somebody who waits for a sandbox."""

    __slots__ = ("future", "place")

    def __init__(self, place: Place, future: asyncio.Future[S]) -> None:
        self.place = place
        self.future = future


class Turns(Generic[S]):
    """One plugin's places in this worker, and who waits for one. A subclass makes what they are for."""

    def __init__(self, host: Host, name: str, *, sandboxes: int) -> None:
        self.host = host
        self._name = name
        self._shares: Shares[_Waiter[S]] = Shares(sandboxes, host.standing)
        self._settle_due = False
        self._closing = False

    def _hand_out(self, place: Place) -> S:
        """A sandbox for who holds `place` from now on: shares' take() and all. Raises Overloaded."""
        raise NotImplementedError

    def _unwanted(self, sandbox: S) -> None:
        """It was handed out, and who was to have it is gone."""
        raise NotImplementedError

    async def _take(self, place: Place) -> S:
        """Host.take(), for who would hold `place`."""
        network = place.network
        if self._shares.fits(network):
            return self._hand_out(place)
        loop, asking = self.host.loop, self.host.asking
        waiter = _Waiter[S](place, loop.create_future())
        self._shares.wait(network, waiter)
        asking.add(place.session)
        self._settle_soon()
        timer = loop.call_later(self.host.overload_wait_s, self._refuse, waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if not waiter.future.cancelled() and waiter.future.exception() is None:
                self._unwanted(waiter.future.result())  # given in the same turn of the loop
            raise
        finally:
            timer.cancel()
            self._shares.give_up(network, waiter)
            asking.discard(place.session)

    def _free(self, place: Place | None, *, well: bool) -> None:
        """Who held `place` (None: nobody did) has no sandbox any more."""
        if place is not None:
            self._shares.give_back(place, well=well)
        if self._shares.waiting:
            self._settle_soon()

    def _refuse(self, waiter: _Waiter[S]) -> None:
        if not waiter.future.done():
            shares = self._shares
            network = waiter.place.network
            own = f", {shares.holds(network)} of {shares.share} by network {network}" if network else ""
            waiter.future.set_exception(
                Overloaded(
                    f"{shares.held} of {shares.cap} sandboxes of {self._name} are held{own}; "
                    f"{shares.waiting} sessions wait"
                )
            )

    def _settle_soon(self) -> None:
        if not self._settle_due and not self._closing:
            self._settle_due = True
            self.host.loop.call_soon(self._settle)

    def _settle(self) -> None:
        """Give to those who wait what is free, and ask idle sessions for what is not."""
        self._settle_due = False
        if self._closing:
            return
        shares = self._shares
        while (waiter := shares.turn()) is not None:
            if waiter.future.done():
                continue  # he went away
            try:
                waiter.future.set_result(self._hand_out(waiter.place))
            except Overloaded as error:
                waiter.future.set_exception(error)
        if not shares.waiting:
            return
        now = time.monotonic()
        while (place := shares.victim(now, self.host.asking)) is not None:
            assert place.evict is not None, "a victim can be asked"
            if place.evict():
                shares.leaves(place)
            else:
                shares.stays(place, now)
        self._settle_due = True
        self.host.loop.call_later(SETTLE_S, self._settle)
