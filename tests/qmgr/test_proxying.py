"""What a client hears that waits for the next hop (qmgr/proxying.py)."""

from __future__ import annotations

import pytest

from forkd.deliver.transport import Result, Status, Target
from forkd.qmgr.proxying import reply
from forkd.smtp.reply import Reply

TO = Target(0, "a@next.test", "a", "next.test")


@pytest.mark.parametrize(
    ("status", "said", "heard"),
    [
        ("delivered", Reply(250, "2.0.0", ("queued as 17",)), (250, "2.0.0")),
        ("failed", Reply(550, "5.1.1", ("no such user",)), (550, "5.1.1")),
        ("deferred", Reply(450, "4.2.1", ("later",)), (450, "4.2.1")),
        # It would close the client's own connection, with all that it has yet to send.
        ("deferred", Reply(421, "4.7.0", ("too much mail",)), (451, "4.7.0")),
        ("deferred", None, (451, "4.3.0")),
    ],
    ids=["taken", "refused", "later", "421", "silence"],
)
def test_the_next_hops_words_are_the_reply(
    status: Status, said: Reply | None, heard: tuple[int, str]
) -> None:
    """But those about its connection with us."""
    found = reply([Result(TO, status, "", "", said)], 1)
    assert (found.code, found.enhanced) == heard
    if said is not None and status != "delivered":
        assert found.lines == said.lines
