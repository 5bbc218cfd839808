"""ratelimit: what lines of `limits` say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk import Address
from forkd.sdk.testing import load_plugin

ONE = {"limits": ["client messages 1/1h"]}
load_plugin(Path(__file__).parent.parent.parent / "plugins" / "ratelimit", settings=ONE)

from ratelimit_limits import Limits, read_limit  # type: ignore[import-not-found]  # noqa: E402


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("user messages 100/1h", ("user", "messages", 100, 3600)),
        ("client   recipients  50/10m", ("client", "recipients", 50, 600)),
        ("sender_domain messages 0/d", ("sender_domain", "messages", 0, 86400)),
        ("recipient messages 30/m", ("recipient", "messages", 30, 60)),
        ("user messages unlimited for alice", ("user", "messages", -1, 1)),
    ],
)
def test_a_line(line: str, read: tuple[str, str, int, int]):
    limit = read_limit(line)
    assert (limit.who, limit.what, limit.most, limit.period) == read


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "write WHO WHAT COUNT/PERIOD"),
        ("user messages", "write WHO WHAT COUNT/PERIOD"),
        ("user messages 100 / 1h", "write WHO WHAT COUNT/PERIOD"),
        ("recipient messages 30/1m burst 5", "for bursts write two lines"),
        ("users messages 100/1h", "'users' is nobody to count by: client, user,"),
        ("user mails 100/1h", "'mails' cannot be counted: messages or recipients"),
        ("user messages 100", "'100' is no rate"),
        ("user messages -1/1h", "'-1/1h' is no rate"),
        ("user messages 1.5/1h", "is no rate"),
        ("user messages 100/1y", "a period is"),
        ("user messages 100/hour", "a period is"),
        ("user messages 100/0s", "a period is between"),
        ("user messages 100/1h for ", "write WHO|for whom"),
        ("user messages 100/1h for a b", "users have names without blanks"),
        ("user messages 100/1h for a,,b", "users have names without blanks"),
        ("client messages 100/1h for 192.0.2.1/24", "no address and no network"),
        ("client messages 100/1h for a..b", "no domain name"),
        ("sender messages 100/1h for a@b c", "no domain name"),
        ("user messages unlimited", "leave it out, or say for whom"),
    ],
)
def test_what_is_no_line_is_said_with_its_place(line: str, why: str):
    """plugin_init's ValueError names the setting, the entry and the rule."""
    with pytest.raises(ValueError, match="setting limits, entry 2: ") as error:
        Limits("limits", ["client messages 1/1h", line])
    assert any(each in str(error.value) for each in why.split("|"))


@pytest.mark.parametrize("line", ["client messages 5/1h", "client messages 5/60m"])
def test_two_lines_that_say_different_things_of_the_same(line: str):
    with pytest.raises(ValueError, match="another line says something else"):
        Limits("limits", ["client messages 1/1h", line])


def test_no_limit_at_all():
    with pytest.raises(ValueError, match="there is no limit"):
        Limits("limits", [])


def test_lines_that_name_somebody_come_before_the_others():
    limits = Limits(
        "limits",
        [
            "user messages 5/1h", "user messages 20/1d", "user messages 500/1h for news, shop",
            "user messages unlimited for root", "sender recipients 3/1m for .example.com, a@example.org",
        ],
    )  # fmt: skip
    kind = ("user", "messages")
    assert [limit.most for limit in limits.of(kind, "ann")] == [5, 20]
    assert [limit.most for limit in limits.of(kind, "news")] == [500]
    assert limits.of(kind, "root") == []
    kind = ("sender", "recipients")
    assert [limit.most for limit in limits.of(kind, Address.parse("x@a.example.com"))] == [3]
    assert limits.of(kind, Address.parse("b@example.org")) == []


def test_what_is_counted_at_data_and_what_at_rcpt():
    lines = [
        "client messages 1/h",
        "recipient messages 1/h",
        "recipient_domain messages 1/h",
        "user recipients 1/h",
    ]
    limits = Limits("limits", lines)
    assert list(limits.kinds(at_data=True)) == [("client", "messages")]
    assert len(list(limits.kinds(at_data=False))) == 3


def test_a_text_about_a_limit():
    limit = read_limit("sender_domain messages 30/90m")
    assert limit.told("{who} {what} {count} {period} {x}") == "sender's domain messages 30 90 minutes {x}"


@given(st.text(alphabet="user client messages recipients/0159mhd for,.@", max_size=50))
def test_a_line_is_read_or_refused(line: str):
    """Nothing else happens."""
    try:
        limit = read_limit(line)
    except ValueError:
        return
    assert limit.period >= 1
    assert limit.most >= -1
