"""forkd/worker/patience.py: by when a client must have been heard."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from forkd.config.schema import Seconds, Timeouts
from forkd.worker.patience import Patience

TIMEOUTS = Timeouts(
    command=Seconds(10),
    data_block=Seconds(5),
    data_total=Seconds(20),
    data_per_mib=Seconds(2),
    idle_session=Seconds(30),
)


@dataclasses.dataclass
class Mail:
    """A transaction, as far as it is looked at; started_at 0: its data have not begun."""

    started_at: float = 0.0
    size: int = 0


@pytest.mark.parametrize(
    ("heard_at", "mail", "by"),
    [
        (103.0, None, 113.0),
        (103.0, Mail(), 113.0),
        (125.0, None, 130.0),  # NOOP and RSET alone do not keep a place
        (103.0, Mail(102.0), 108.0),
        (119.0, Mail(102.0), 122.0),  # pieces alone do not either
        (119.0, Mail(102.0, 4 << 20), 124.0),  # but much mail does
    ],
    ids=["command", "no data yet", "idle", "piece", "all of the data", "all of much data"],
)
def test_what_limits_hold(heard_at: float, mail: Any, by: float):
    patience = Patience(TIMEOUTS, 100.0)
    assert patience.by == 110.0
    patience.heard_at = heard_at
    patience.renew(mail)
    assert patience.by == by


def test_what_was_heard_meanwhile_puts_the_end_off():
    """Only where it would be over: a command itself moves no limit."""
    patience = Patience(TIMEOUTS, 100.0)
    patience.heard_at = 109.0
    assert patience.by == 110.0
    assert not patience.over(109.9, None)
    assert patience.by == 110.0
    assert not patience.over(110.5, None)
    assert patience.by == 119.0
    assert patience.over(119.0, None)


def test_a_transaction_that_is_finished_begins_the_idle_limit_anew():
    patience = Patience(TIMEOUTS, 100.0)
    patience.heard_at = 129.0
    patience.finished(129.0)
    assert not patience.over(138.9, None)
    assert patience.over(139.0, None)


def test_a_delay_ends_with_the_session():
    """Answers that are held back (tarpit) do not keep a session beyond its idle limit ..."""
    patience = Patience(TIMEOUTS, 100.0)
    assert patience.spend(100.0, 20.0) == 20.0
    assert patience.spend(121.0, 20.0) == 9.0
    assert patience.spend(131.0, 20.0) == 0.0


def test_all_delays_together_are_no_longer_than_a_session_may_idle():
    """... and not as long again with each message."""
    patience = Patience(TIMEOUTS, 100.0)
    assert patience.spend(100.0, 20.0) == 20.0
    patience.finished(120.0)
    assert patience.spend(120.0, 20.0) == 10.0
    patience.finished(130.0)
    assert patience.spend(130.0, 20.0) == 0.0
