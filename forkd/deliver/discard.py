"""How is mail dropped on purpose? Counted, logged like any delivery, and gone."""

from __future__ import annotations

from collections.abc import Sequence

from forkd.deliver.transport import Delivery, Result, Target
from forkd.queue.format import Damaged


class Discard:
    """[transport.NAME] kind = "discard"."""

    parallel = 1
    batch = 64

    def __init__(self, name: str) -> None:
        self.name = name

    def destination(self, target: Target) -> str:  # noqa: ARG002 - Transport
        """One for all."""
        return ""

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        """Delivered, all of them."""
        return [
            [Result(target, "delivered", "2.0.0", "discarded") for target in delivery.targets]
            for delivery in deliveries
        ]
