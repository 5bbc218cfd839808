"""Who is told what (forkd/message/report_rules.py)."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from forkd.message.report_rules import SAID, Due, Fate, Policy, Reach, Standing, due

NOTIFIES = (
    (),
    ("NEVER",),
    *(
        keywords
        for count in (1, 2, 3)
        for keywords in itertools.combinations(("SUCCESS", "FAILURE", "DELAY"), count)
    ),
)
DAY = 86_400.0
SENDER, POSTMASTER = "alice@example.org", "postmaster@mx.example.com"


def fates(*given: Fate, notify: tuple[str, ...] = ()) -> list[Standing]:
    return [Standing(i, f"r{i}@example.net", fate, notify) for i, fate in enumerate(given)]


def decide(*given: Fate, notify: tuple[str, ...] = (), sender: str = SENDER, warned: bool = False,
           age_s: float = DAY, reach: Reach = "known", **policy: object) -> Due:  # fmt: skip
    chosen = dataclasses.replace(Policy(postmaster=POSTMASTER), **policy)  # type: ignore[arg-type]
    standings = fates(*given, notify=notify)
    return due(sender, standings, policy=chosen, age_s=age_s, warned=warned, reach=reach)


def actions(told: Due) -> list[str]:
    return [one.action for one in told.sender]


WANTED = {
    # RFC 3461 4.1: without NOTIFY failures are told, and delays may be; successes never.
    "failed": lambda notify: not notify or "FAILURE" in notify,
    "deferred": lambda notify: not notify or "DELAY" in notify,
    "delivered": lambda notify: "SUCCESS" in notify,
    "relayed": lambda notify: "SUCCESS" in notify,
    "expanded": lambda notify: "SUCCESS" in notify,
    "passed_on": lambda notify: False,
}


@pytest.mark.parametrize("notify", NOTIFIES, ids=lambda notify: "+".join(notify) or "none")
@pytest.mark.parametrize("fate", list(SAID))
def test_notify_says_what_the_sender_hears_of(fate: Fate, notify: tuple[str, ...]) -> None:
    """RFC 3461 4.1, for every fate and every NOTIFY."""
    action = "delayed" if fate == "deferred" else fate
    assert actions(decide(fate, notify=notify)) == ([action] if WANTED[fate](notify) else [])


@pytest.mark.parametrize("fate", list(SAID))
@pytest.mark.parametrize("notify", NOTIFIES, ids=lambda notify: "+".join(notify) or "none")
def test_the_null_sender_is_never_written_to(fate: Fate, notify: tuple[str, ...]) -> None:
    """RFC 5321 4.5.5: a report on a report could go on for ever."""
    assert decide(fate, notify=notify, sender="").sender == ()


def test_what_our_reports_come_from_is_never_written_to() -> None:
    """Some programs send from the address that they got a report from: that is a loop with two ends."""
    own = frozenset({"mailer-daemon@mx.example.com"})
    assert decide("failed", sender="MAILER-DAEMON@mx.example.com", own_senders=own).sender == ()


def test_several_recipients_are_one_report() -> None:
    """Each with its own action, in the envelope's order; those who are well are left out."""
    told = decide("failed", "delivered", "deferred", "failed")
    assert [(one.index, one.action) for one in told.sender] == [(0, "failed"), (2, "delayed"), (3, "failed")]


@pytest.mark.parametrize(
    ("age_s", "warned", "warn_after_s", "tells"),
    [
        (14_399.0, False, 14_400.0, False),
        (14_400.0, False, 14_400.0, True),
        (14_400.0, True, 14_400.0, False),
        (DAY, False, 0.0, False),
    ],
    ids=["young", "old-enough", "was-warned", "switched-off"],
)
def test_a_message_warns_once(age_s: float, warned: bool, warn_after_s: float, tells: bool) -> None:
    """RFC 3461 5.2.5: at a moment that the MTA chooses."""
    told = decide("deferred", "deferred", age_s=age_s, warned=warned, warn_after_s=warn_after_s)
    assert actions(told) == ["delayed"] * 2 * tells
    assert told.warned is tells


def test_the_moment_of_the_warning_passes_though_nobody_asked() -> None:
    """Else a message with NOTIFY=FAILURE would be looked at again after each attempt."""
    told = decide("deferred", notify=("FAILURE",))
    assert told.sender == ()
    assert told.warned


def test_nothing_late_is_no_warning() -> None:
    """A later delay has still its own."""
    assert not decide("delivered", "failed").warned


@pytest.mark.parametrize(
    ("copies", "sender", "notify", "copied"),
    [
        ("none", SENDER, (), False),
        ("none", "", (), False),
        ("untold", SENDER, (), False),
        ("untold", SENDER, ("NEVER",), True),
        ("untold", SENDER, ("SUCCESS",), True),
        ("untold", "", (), True),
        ("failures", SENDER, (), True),
        ("failures", SENDER, ("NEVER",), True),
        ("failures", "", (), True),
        ("failures", POSTMASTER, (), False),
    ],
)
def test_the_postmaster_hears_what_the_setting_says(
    copies: str, sender: str, notify: tuple[str, ...], copied: bool
) -> None:
    """NOTIFY binds what the sender hears; a failure that no sender hears of is the postmaster's to see."""
    told = decide("failed", "deferred", "delivered", copies=copies, sender=sender, notify=notify)
    assert [(one.index, one.action) for one in told.postmaster] == ([(0, "failed")] if copied else [])


def test_a_copy_that_failed_makes_no_copy() -> None:
    """Else a postmaster's full mailbox would fill the queue."""
    standing = Standing(0, POSTMASTER.upper(), "failed", ("NEVER",))
    told = due("", [standing], policy=Policy(postmaster=POSTMASTER, copies="failures"), age_s=DAY)
    assert told == Due(untold=(0,))


@pytest.mark.parametrize("copies", ["untold", "failures"])
def test_a_copy_that_failed_behind_an_alias_makes_no_copy(copies: str) -> None:
    """The postmaster is an alias, as often; whom it stands for refuses the copy, and would the next one."""
    standing = Standing(0, "admin@far.example", "failed", ("NEVER",), POSTMASTER.upper())
    policy = Policy(postmaster=POSTMASTER, copies=copies)  # type: ignore[arg-type]
    assert due("", [standing], policy=policy, age_s=DAY) == Due(untold=(0,))


ASKED = ("SUCCESS", "FAILURE", "DELAY")
REACHED: dict[tuple[Reach, str], tuple[list[str], list[int], tuple[int, ...]]] = {
    # reach of the sender, copies -> told to the sender, copies of, untold; one failed, is late, delivered
    ("known", "none"): (["failed", "delayed", "delivered"], [], ()),
    ("known", "untold"): (["failed", "delayed", "delivered"], [], ()),
    ("nowhere", "none"): (["failed"], [], ()),
    ("nowhere", "untold"): ([], [0], ()),
    ("nobody", "none"): ([], [], (0,)),
    ("nobody", "untold"): ([], [0], ()),
}


@pytest.mark.parametrize(("reach", "copies"), REACHED, ids=lambda value: value)
def test_who_cannot_be_reached_gets_no_report_that_fills_the_queue(reach: Reach, copies: str) -> None:
    """A forged sender may ask for a report on each success; a failure alone is worth one that waits."""
    told = decide("failed", "deferred", "delivered", notify=ASKED, reach=reach, copies=copies)
    sender, postmaster, untold = REACHED[reach, copies]
    assert actions(told) == sender
    assert [one.index for one in told.postmaster] == postmaster
    assert told.untold == untold
    assert told.kept_back is (reach != "known")
    assert told.warned


def test_nothing_is_kept_back_from_who_did_not_ask() -> None:
    """No line in the log for mail that is well."""
    assert not decide("delivered", reach="nowhere").kept_back
    assert not decide("failed", notify=("NEVER",), reach="nobody").kept_back
    assert not decide("failed", sender="", reach="nobody").kept_back


def test_failures_that_nobody_hears_of_are_named() -> None:
    """For the log: mail that vanishes must be found somewhere."""
    assert decide("failed", "deferred", notify=("NEVER",)).untold == (0,)
    assert decide("failed", notify=("NEVER",), copies="untold").untold == ()
    assert decide("failed").untold == ()
