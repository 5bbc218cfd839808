"""What does a route say of its mail's patience and crowds (qmgr/routing.py)?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from forkd.config import schema
from forkd.qmgr.retry import Retry
from forkd.qmgr.routing import Routing
from tests.support.spooling import a_config

ROUTES = {
    "vip@test.local": schema.Route(warn_after=schema.Seconds(60)),
    "slow.org": schema.Route(
        transport="drop",
        retry_first=schema.Seconds(1),
        retry_max=schema.Seconds(2),
        give_up=schema.Seconds(3),
        warn_after=schema.Seconds(4),
        concurrency=5,
    ),
}
LEFT = Retry(first_s=300, most_s=14_400, give_up_s=432_000, warn_s=7200)
KEYS = [
    ("x@slow.org", Retry(first_s=1, most_s=2, give_up_s=3, warn_s=4), 5),
    ("x@other.org", LEFT, 7),
    ("x@test.local", LEFT, 7),
    ("vip+detail@test.local", Retry(first_s=300, most_s=14_400, give_up_s=432_000, warn_s=60), 7),
]


@pytest.mark.parametrize(("address", "retry", "crowd"), KEYS, ids=[row[0] for row in KEYS])
def test_what_a_route_sets_is_in_force_for_its_mail(
    tmp_path: Path, address: str, retry: Retry, crowd: int
) -> None:
    """And what it leaves out is [queue]'s and [reports]'; mail of no route has all of it from there."""
    config = msgspec.structs.replace(
        a_config(tmp_path, concurrency=7),
        route=ROUTES,
        reports=schema.Reports(warn_after=schema.Seconds(7200)),
    )
    routing = Routing(config)
    assert routing.retry_of(address) == retry
    assert routing.concurrency_of(address) == crowd
