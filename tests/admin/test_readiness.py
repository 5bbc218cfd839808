"""When should clients be sent here? The table of checks (admin/readiness.py)."""

from __future__ import annotations

import dataclasses

import pytest

from forkd.admin.readiness import Probed, Rule, Seen, first_problem, judge

RULE = Rule(interval_s=5.0, timeout_s=2.0)
NOW = 1000.0
WELL = Seen(state="running", probed=Probed(at=NOW - 4, took_s=0.005))


def wrong(seen: Seen, now: float = NOW, rule: Rule = RULE) -> dict[str, str]:
    return {check: why for check, why in judge(seen, now, rule).items() if why}


def test_a_young_probe_that_went_well_makes_it_ready():
    """And every check is named, so that who reads the answer sees what was looked at."""
    assert not wrong(WELL)
    assert list(judge(WELL, NOW, RULE)) == ["service", "probe", "queue", "spool"]


@pytest.mark.parametrize(
    ("news", "why"),
    [
        ({"state": "starting"}, {"service": "starting"}),
        ({"state": "stopping"}, {"service": "stopping"}),
        ({"state": "draining"}, {"service": "draining"}),
        ({"state": "", "silent": "master did not answer"}, {"service": "master did not answer"}),
        ({"queue": "qmgr does not answer"}, {"queue": "qmgr does not answer"}),
        ({"probed": None}, {"probe": "there was no probe yet"}),
        ({"probed": Probed(NOW, 2.0, "no answer within 2 s")}, {"probe": "no answer within 2 s"}),
        ({"probed": Probed(NOW, 0.1, "MAIL: 452 4.3.1 No")}, {"spool": "MAIL: 452 4.3.1 No"}),
    ],
)
def test_what_is_wrong_is_said_where_it_is(news, why):
    """One line for each check that fails; the others stay empty."""
    seen = dataclasses.replace(WELL, **news)
    assert wrong(seen) == why
    assert first_problem(judge(seen, NOW, RULE)) == ": ".join(*why.items())


def test_qmgr_may_end_its_deliveries_at_a_reload():
    """Mail is taken and waits for the next one: as long as that lasts nobody is sent elsewhere, but where
    clients wait for their next hop."""
    silent = dataclasses.replace(WELL, queue="qmgr does not answer", replacing=True)
    assert not wrong(silent)
    proxied = dataclasses.replace(RULE, proxied=True)
    assert wrong(silent, rule=proxied) == {"queue": "a reload replaces qmgr, which ends its deliveries first"}
    assert wrong(dataclasses.replace(WELL, replacing=True), rule=proxied) == {}


def test_an_old_probe_counts_no_more():
    """Admin itself may have stood still: when the next probe should have ended, nothing is known."""
    assert not wrong(WELL, NOW + 3.9)
    assert wrong(WELL, NOW + 4.1) == {"probe": "the last probe was 8 s ago"}


def test_without_a_probe_living_processes_suffice():
    """[probe] enabled = false: only what can be known without one is in the table."""
    seen = Seen(state="running")
    assert list(judge(seen, NOW, Rule(0.0, 2.0))) == ["service", "queue"]
    assert not wrong(seen, rule=Rule(0.0, 2.0))
