"""Which recipients may a client that waits have in one transaction? (worker/next_hop.py)"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forkd.config.schema import Config, Lmtp, QmailQueue, Smtp
from forkd.worker.next_hop import NextHop

WAYS = {
    "by MX": Smtp(),
    "fixed": Smtp(hosts=("mail.example.org",)),
    "store": Lmtp(address="unix:/run/store"),
    "queue": QmailQueue(),
}


@pytest.mark.parametrize(
    ("way", "same", "other"),
    [("by MX", True, False), ("fixed", True, True), ("store", False, False), ("queue", True, True)],
)
def test_what_one_reply_can_be_true_for(tmp_path: Path, way: str, same: bool, other: bool):
    """One server that takes all or nothing; not two servers, and not one that answers for each."""

    async def main() -> tuple[bool, bool]:
        config = Config(transport=WAYS)
        next_hop = NextHop(asyncio.get_running_loop(), str(tmp_path / "qmgr"), "w0", config)
        found = tuple(next_hop.together([way], "a.test", domain) for domain in ("a.test", "b.test"))
        next_hop.close()
        return found[0], found[1]

    assert asyncio.run(main()) == (same, other)
