"""What a balancer reads (admin/health.py)."""

from __future__ import annotations

from forkd.admin.health import alive, ready


def test_one_check_that_is_not_passed_makes_it_503_and_says_why():
    """A line for each, in their order: who is woken by it sees what works, too."""
    answer = ready({"service": "", "probe": "no answer within 5 s", "queue": ""})
    assert answer.status == 503
    assert answer.body == b"service: ok\nprobe: no answer within 5 s\nqueue: ok\n"
    assert ready({"service": "", "queue": ""}).status == 200


def test_a_silent_master_is_not_alive():
    """What supervises containers may start us anew then."""
    assert (alive("").status, alive("").body) == (200, b"ok\n")
    assert (alive("master is silent").status, alive("master is silent").body) == (503, b"master is silent\n")
