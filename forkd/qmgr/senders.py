"""How does a message go out that has one sender for some recipients, and another for members of a list?

In as many deliveries as it has senders (Recipient.sender): of each, the message is one from that sender. A
transport knows nothing of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from forkd import log
from forkd.deliver.transport import AsyncTransport, Delivery, Result, Transport
from forkd.queue.format import Damaged

Answer = list[Result] | Damaged


def deliver(transport: Transport, deliveries: Sequence[Delivery]) -> list[Answer]:
    """As Transport.deliver."""
    parts = [by_sender(delivery) for delivery in deliveries]
    if all(len(each) == 1 for each in parts):
        return transport.deliver([delivery for (delivery,) in parts])
    answers = iter(transport.deliver([delivery for each in parts for delivery in each]))
    return [
        _together(whole, [next(answers) for _ in each]) for whole, each in zip(deliveries, parts, strict=True)
    ]


async def deliver_async(transport: AsyncTransport, delivery: Delivery) -> Answer:
    """As AsyncTransport.deliver. Cut short, it says who has the mail already, where anybody has."""
    parts = by_sender(delivery)
    if len(parts) == 1:
        return await transport.deliver(parts[0])
    answers: list[Answer] = []
    for part in parts:
        try:
            answers.append(answer := await transport.deliver(part))
        except asyncio.CancelledError:
            answer = []
        except Exception as error:  # the delivery boundary: what was delivered before is delivered
            log.bug(where=f"transport {transport.name}", error=error)
            return _together(delivery, answers, "internal error")
        if not isinstance(answer, Damaged) and len(answer) < len(part.targets):
            # Cancelled: what was told before stands, and nothing more begins.
            told = [each for each in answers if not isinstance(each, Damaged)]
            return [result for each in told for result in each]
    return _together(delivery, answers)


def by_sender(delivery: Delivery) -> Sequence[Delivery]:
    """What it is made of, in nearly all cases itself alone."""
    recipients = delivery.message.envelope.recipients
    if not any(recipients[target.index].sender for target in delivery.targets):
        return (delivery,)
    senders = dict.fromkeys(recipients[target.index].sender for target in delivery.targets)
    return [
        dataclasses.replace(
            delivery,
            message=delivery.message.sent_by(sender) if sender else delivery.message,
            targets=tuple(t for t in delivery.targets if recipients[t.index].sender == sender),
        )
        for sender in senders
    ]


def _together(whole: Delivery, answers: Sequence[Answer], not_tried: str = "") -> Answer:
    """One answer, in the order of the targets. Where a part of it met damage, the others read it to the end
    before: they are told, and the next try meets it.

    not_tried  why there is no answer for some
    """
    results: dict[int, Result] = {}
    damage: Damaged | None = None
    for answer in answers:
        if isinstance(answer, Damaged):
            damage = answer
        else:
            results.update((result.target.index, result) for result in answer)
    if damage is not None and not results:
        return damage
    why = not_tried if damage is None else f"cannot be read: {damage}"
    return [results.get(target.index) or Result(target, "deferred", "4.3.0", why) for target in whole.targets]
