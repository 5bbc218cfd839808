"""Which attacks are there? All tables together, in the order of their numbers."""

from __future__ import annotations

from tests.escapes import crashes, depth, files, imports, leaving, network, protocol, resources, widening
from tests.escapes.attack import Attack

TABLES = (resources, leaving, widening, files, network, protocol, crashes, imports, depth)

ATTACKS: tuple[Attack, ...] = tuple(
    sorted((attack for table in TABLES for attack in table.ATTACKS), key=lambda attack: attack.numbers[0])
)
