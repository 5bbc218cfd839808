"""What may be set about the probe that forkd makes of itself?"""

from __future__ import annotations

from typing import Annotated

from forkd.config.table import Between, Table
from forkd.config.units import Seconds


class Probe(Table, frozen=True):
    """[probe]: forkd tries itself (forkd/probe), and is ready while that goes well."""

    enabled: bool = True
    """off: it is ready when its processes live, which is less."""
    interval: Annotated[Seconds, Between(0.2, 3600)] = Seconds(5)
    """Between two; after one that failed the next comes within a second. Below what a balancer asks by, as a
    rule 5 to 10 s."""
    timeout: Annotated[Seconds, Between(0.1, 60)] = Seconds(5)
    """For one of them, which takes some milliseconds: a worker that keeps it waiting so long is no use to
    clients either."""
