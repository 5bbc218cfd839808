"""How does one delivery go over its next hops? Hop by hop, transaction by transaction, until all is said."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

from forkd.config.next_hop_schema import PATIENT_S
from forkd.deliver import answers
from forkd.deliver.answers import Answer
from forkd.deliver.connection import Connection
from forkd.deliver.hosts import Hop, Hosts, NoHops
from forkd.deliver.opening import HowToConnect, NotConnected, NotServed
from forkd.deliver.outgoing import Outgoing, addressable
from forkd.deliver.pool import Pool, PoolLimits
from forkd.deliver.transport import Delivery, Result, Target, refused_by_system
from forkd.queue.format import Damaged
from forkd.queue.ids import QueueId
from forkd.smtp.address import split_address
from forkd.smtp.client_mail import NO_SMTPUTF8, Unmet
from forkd.smtp.client_offered import Offered

MOST_HOPS: Final = 5
"""Waited for in one delivery (Postfix smtp_mx_address_limit). Those that are known at once to be out of reach
(IPv6, where this machine has none) do not count: hosts.MAX_HOPS bounds them."""
MOST_ASKED: Final = 2
"""Of them, such as were asked about recipients and said 4xx (Postfix smtp_mx_session_limit): a list of hosts
that all greylist is one host."""
MOST_DOUBTED: Final = 1000
"""Destinations; their names come from outside."""
RECIPIENTS: Final = 100
"""Of one transaction, where the server names no number: so many it must take (RFC 5321 4.5.3.1.8)."""
WAITED_S: Final = int(PATIENT_S)
"""For all of a delivery whose client waits."""
_NO_SMTPUTF8: Final = Unmet("smtputf8", NO_SMTPUTF8)


class Relaying:
    """What the transports `smtp` and `lmtp` have in common: an AsyncTransport, but for the destination."""

    def __init__(self, name: str, hosts: Hosts, how: HowToConnect, *, limits: PoolLimits) -> None:
        self.name = name
        self.connections = limits.connections
        self._hosts = hosts
        self._pool = Pool(how, limits)
        self._lmtp = how.options.lmtp
        self._doubted: dict[str, QueueId] = {}
        """Of a destination: the message over which the dialogue broke off, where nothing was heard since."""

    async def close(self) -> None:
        """As AsyncTransport.close."""
        await self._pool.close()

    async def deliver(self, delivery: Delivery) -> list[Result] | Damaged:
        """As AsyncTransport.deliver: to the hops in their order.

        The next one has whoever the one before could not be asked about, or had 4xx for. Once the whole
        message has gone out and no answer came, no other hop gets it.
        """
        if not delivery.targets:
            return []
        run = _Run(self._pool, delivery, lmtp=self._lmtp)
        try:
            async with asyncio.timeout(WAITED_S if delivery.together else None):
                return await self._deliver(delivery, run)
        except TimeoutError:
            text = f"not done in {WAITED_S} s, after which a client that waits gives up: it may come twice"
            return [Result(target, "deferred", "4.4.7", text, away=True) for target in delivery.targets]
        except asyncio.CancelledError:
            if told := run.told:
                return told
            raise

    async def _deliver(self, delivery: Delivery, run: _Run) -> list[Result] | Damaged:
        domain = domain_of(delivery.targets[0])
        try:
            hops = await self._hosts.hops(domain)
        except NoHops as none:
            away = none.status == "deferred"
            return [
                Result(target, none.status, none.enhanced, none.text, away=away)
                for target in delivery.targets
            ]
        try:
            results = await run.over(self._in_order(hops))
        except Damaged as damage:
            return damage
        return self._judged(domain if self._hosts.by_domain else "", delivery.message.id, run, results)

    def _judged(self, destination: str, queue_id: QueueId, run: _Run, results: list[Result]) -> list[Result]:
        """Is the destination away, where the dialogue broke off, or fell silent, over this message?

        Some message may be what its server falls over each time: all others would wait for it. So it takes
        two messages, one behind the other.
        """
        if run.heard:
            self._doubted.pop(destination, None)
        elif run.doubt:
            before = self._doubted.setdefault(destination, queue_id)
            if len(self._doubted) > MOST_DOUBTED:
                del self._doubted[next(iter(self._doubted))]
            away = before != queue_id
            return [
                dataclasses.replace(each, away=away) if each.status == "deferred" else each
                for each in results
            ]
        return results

    def _in_order(self, hops: Sequence[Hop]) -> list[Hop]:
        """As given, but for what was just seen of them. Addresses of one host are worth the same: first those
        with an open connection. Last those that could not be connected to."""
        same = 0
        while same < len(hops) and hops[same].name == hops[0].name:
            same += 1
        reused = sorted(hops[:same], key=lambda hop: not self._pool.has_idle(hop))
        return sorted((*reused, *hops[same:]), key=self._pool.is_down)


def domain_of(target: Target) -> str:
    """Of the address itself; `postmaster` alone has the one that it was accepted for."""
    return split_address(target.address)[1] or target.domain


class _Run:
    """One delivery."""

    def __init__(self, pool: Pool, delivery: Delivery, *, lmtp: bool) -> None:
        self._pool = pool
        self._lmtp = lmtp
        self._targets = delivery.targets
        self._together = delivery.together
        self._delivery = delivery
        self._results: dict[int, Result] = {}
        """By the place in the envelope's recipients, as the next one."""
        self._vain: dict[int, list[Answer]] = {target.index: [] for target in delivery.targets}
        self.doubt = False
        """A dialogue broke off over this message."""
        self.heard = False
        """Some server has said something of it, or of its recipients."""

    @property
    def told(self) -> list[Result]:
        """So far, in the order of the targets; not of all."""
        return [self._results[each.index] for each in self._targets if each.index in self._results]

    async def over(self, hops: Sequence[Hop]) -> list[Result]:
        self._refuse_unspeakable()
        asked = tried = 0
        try:
            outgoing = Outgoing(self._delivery)
            for hop in hops:
                left = [target for target in self._targets if target.index not in self._results]
                if not left or asked >= MOST_ASKED or tried >= MOST_HOPS:
                    break
                if self._together and len(left) < len(self._targets):
                    break  # somebody will not have it: nobody else has, and so it stays
                try:
                    tried += 1
                    asked += await self._ask(hop, outgoing, left)
                except NotServed as why:
                    tried -= isinstance(why, NotConnected) and why.at_once
                    self._note(answers.not_served(target, why) for target in left)
        except OSError as error:  # of the spool: what a socket does is an event
            for target in self._targets:
                self._results.setdefault(target.index, refused_by_system(target, error))
        for target in self._targets:
            if target.index not in self._results:
                self._results[target.index] = answers.last_word(self._vain[target.index])
        return [self._results[target.index] for target in self._targets]

    def _refuse_unspeakable(self) -> None:
        """Addresses that no command can have: whoever made them out of others, SMTP's grammar did not."""
        sender = self._delivery.message.envelope.sender
        bad_sender = bool(sender) and not addressable(sender)
        bad = [target for target in self._targets if bad_sender or not addressable(target.address)]
        for target in self._targets if bad and self._together else bad:
            code, who = ("5.1.7", "sender") if bad_sender else ("5.1.3", "recipient")
            text = f"the {who}'s address cannot stand in an SMTP command"
            self._results[target.index] = Result(target, "failed", code, text)

    async def _ask(self, hop: Hop, outgoing: Outgoing, left: Sequence[Target]) -> bool:
        """All transactions at one hop. True: it was asked about somebody, and said 4xx. Raises NotServed: it
        could not be asked at all."""
        todo = list(left)
        fresh = served = deferred = False
        while todo:
            try:
                connection = await self._pool.take(hop, fresh=fresh)
            except NotServed as why:
                if not served:
                    raise
                self._note(answers.not_served(target, why) for target in todo)
                break
            fresh, used = False, connection.engine.transactions > 0
            try:
                said = await self._transact(connection, outgoing, hop, todo)
            finally:
                self._pool.give(connection, hop)
            rest = todo[len(said) :]
            again = [one for one in said if one.cut]
            if again and used:
                # A server may end a connection between two mails, for whatever it counts: a new one will tell
                # whether it serves us.
                fresh = True
            elif again:
                self._note(again[0].of(target) for target in rest)
                again, rest = [], []
            elif any(one.result.status == "delivered" for one in said):
                again = [one for one in said if one.crowded]
            served = True
            deferred |= any(one.result.status == "deferred" and not one.cut for one in said)
            self._note(one for one in said if one not in again)
            todo = [*(one.result.target for one in again), *rest]
        return deferred

    async def _transact(
        self, connection: Connection, outgoing: Outgoing, hop: Hop, todo: Sequence[Target]
    ) -> list[Answer]:
        """One transaction, with the first of them: as many as the server takes."""
        engine = connection.engine
        offered = engine.offered
        assert offered is not None
        await outgoing.look(offered)
        group = todo if self._together else _first_of(todo, offered)
        able = group if offered.smtputf8 else [each for each in group if outgoing.ascii(each)]
        found = {each.index: answers.cannot(each, _NO_SMTPUTF8, hop) for each in group if each not in able}
        if self._together and found:
            found |= {each.index: answers.cannot(each, _NO_SMTPUTF8, hop) for each in able}
        elif able:
            mail = outgoing.mail(able, offered)
            missing = {one.need: one for one in engine.unmet(mail)}
            convert = missing.pop("8bitmime", None) is not None
            if missing:
                why = next(iter(missing.values()))
                found |= {each.index: answers.cannot(each, why, hop) for each in able}
            else:
                pieces, blocks = outgoing.pieces(), outgoing.blocks
                if convert:
                    mail = outgoing.mail(able, offered, seven_bit=True)
                    pieces, blocks = await outgoing.seven_bit(), True
                done = await connection.transact(mail, pieces, blocks=blocks)
                for each, outcome in zip(able, done.outcomes, strict=True):
                    found[each.index] = answers.answer(each, outcome, hop, offered=offered, lmtp=self._lmtp)
        return [found[each.index].over(connection.encryption) for each in group]

    def _note(self, said: Iterable[Answer]) -> None:
        for one in said:
            self.doubt |= one.doubt
            self.heard |= not (one.doubt or one.cut)
            index = one.result.target.index
            if one.final:
                self._results[index] = one.result
            else:
                self._vain[index].append(one)


def _first_of(todo: Sequence[Target], offered: Offered) -> Sequence[Target]:
    """So many of them as a server takes in one transaction; one at least."""
    group = todo[: offered.recipients or RECIPIENTS]
    if offered.domains is None:
        return group
    domains: set[str] = set()
    for place, target in enumerate(group):
        domains.add(domain_of(target).lower())
        if len(domains) > offered.domains:
            return group[:place]
    return group
