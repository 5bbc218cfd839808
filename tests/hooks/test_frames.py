"""What goes over to a plugin, and what not again?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from forkd.hooks.facts import SessionFacts
from forkd.hooks.frames import Frames, Seen
from forkd.rpc.calls import MAX_FRAME_BYTES, Overloaded
from forkd.smtp.address import Mailbox

FACTS = SessionFacts(id="S1", client_ip="192.0.2.1", client_port=4000)
SENDER = Mailbox("a", "example.org")


def frame(frames: Frames, seen: Seen, hook: str = "mail", *, envelope: bool = False) -> dict[str, Any]:
    pages, call = frames.build(seen, hook, b"{}", envelope=envelope)
    assert pages == []
    result: dict[str, Any] = json.loads(call)
    return result


def test_first_frame_tells_all_facts_later_ones_only_changes():
    """session: all facts but empty ones at the first frame, later only changed ones (PROTOCOL.md)."""
    frames, seen = Frames(FACTS), Seen()
    first = frame(frames, seen, "connect")
    assert first["session"]["client_ip"] == "192.0.2.1"
    assert "helo" not in first["session"]
    frames.update({"helo": "client.example", "esmtp": True})
    assert frame(frames, seen)["session"] == {"helo": "client.example", "esmtp": True}
    assert "session" not in frame(frames, seen)


def test_plugins_that_joined_at_different_times_get_what_they_miss():
    """Each plugin is sent what it has not seen."""
    frames, early, late = Frames(FACTS), Seen(), Seen()
    frame(frames, early)
    frames.update({"helo": "one"})
    frames.update({"helo": "two", "esmtp": True})
    assert frame(frames, early)["session"] == {"helo": "two", "esmtp": True}
    assert frame(frames, late)["session"]["helo"] == "two"
    frames.update({"helo": "three"})
    assert frame(frames, late)["session"] == frame(frames, early)["session"] == {"helo": "three"}


def test_unchanged_fact_is_not_sent():
    """A second EHLO with the same name changes nothing."""
    frames, seen = Frames(FACTS), Seen()
    frame(frames, seen)
    frames.update({"client_ip": "192.0.2.1"})
    assert "session" not in frame(frames, seen)


def test_envelope_goes_once_and_only_to_those_who_may_read_it():
    """reads = ["envelope"]: sender and recipients go over once, as they are accepted."""
    frames, reader, other = Frames(FACTS), Seen(), Seen()
    frames.begin(SENDER)
    frames.add_recipient(Mailbox("b", "test.local"))
    call = frame(frames, reader, envelope=True)
    assert call["sender"] == {"local": "a", "domain": "example.org"}
    assert call["recipients"] == [{"local": "b", "domain": "test.local"}]
    frames.add_recipient(Mailbox("c", "test.local"))
    call = frame(frames, reader, envelope=True)
    assert "sender" not in call
    assert call["recipients"] == [{"local": "c", "domain": "test.local"}]
    assert {"sender", "recipients"}.isdisjoint(frame(frames, other))


def test_null_sender_is_told_as_null():
    """The null reverse path is a sender too (RFC 5321 4.5.5)."""
    frames, seen = Frames(FACTS), Seen()
    frames.begin(None)
    call = frame(frames, seen, envelope=True)
    assert "sender" in call
    assert call["sender"] is None


def test_cleared_transaction_is_told_once():
    """RSET and a finished transaction clear sender and recipients on the other side too."""
    frames, seen = Frames(FACTS), Seen()
    frames.begin(SENDER)
    frames.add_recipient(SENDER)
    frame(frames, seen, envelope=True)
    frames.reset()
    frames.begin(Mailbox("z", "example.org"))
    call = frame(frames, seen, envelope=True)
    assert call["reset"] is True
    assert call["sender"]["local"] == "z"
    assert "recipients" not in call
    frames.add_recipient(Mailbox("y", "example.org"))
    call = frame(frames, seen, envelope=True)
    assert call["recipients"] == [{"local": "y", "domain": "example.org"}]
    assert "reset" not in call


def test_many_recipients_go_in_pages_below_the_record_limit():
    """64 KiB a record: recipients beyond one frame go ahead in frames of the hook `page`."""
    frames, seen = Frames(FACTS), Seen()
    frames.begin(SENDER)
    mailboxes = [Mailbox(f"{n:064}", "d" * 250) for n in range(1000)]
    for mailbox in mailboxes:
        frames.add_recipient(mailbox)
    pages, call = frames.build(seen, "data", b"{}", envelope=True)
    assert len(pages) > 1
    assert all(len(f) <= MAX_FRAME_BYTES for f in (*pages, call))
    calls = [json.loads(f) for f in (*pages, call)]
    assert [c["n"] for c in calls] == list(range(1, len(calls) + 1))
    assert [c["hook"] for c in calls] == ["page"] * len(pages) + ["data"]
    assert "session" in calls[0]
    assert [r["local"] for c in calls for r in c["recipients"]] == [m.local for m in mailboxes]


def test_what_fits_no_frame_goes_ahead_or_nowhere():
    """64 KiB a record: long arguments leave no room for news; too long ones are overload."""
    frames, seen = Frames(FACTS), Seen()
    frames.begin(SENDER)
    for n in range(400):
        frames.add_recipient(Mailbox(f"{n:064}", "test.local"))
    args = b'{"name":"%b"}' % (b"x" * 40_000)
    pages, call = frames.build(seen, "helo", args, envelope=True)
    assert all(len(f) <= MAX_FRAME_BYTES for f in (*pages, call))
    assert sum(len(json.loads(f).get("recipients", ())) for f in (*pages, call)) == 400
    with pytest.raises(Overloaded):
        frames.build(seen, "helo", b'{"name":"%b"}' % (b"x" * 66_000), envelope=False)


def test_a_fact_is_as_long_as_we_like():
    """The subject of a client's certificate is its own to choose."""
    frames, seen = Frames(FACTS), Seen()
    frames.update({"client_certificate": "x" * 100_000})
    assert len(frame(frames, seen)["session"]["client_certificate"]) == 1000
    frames.update({"client_certificate": "y" * 100_000})
    assert len(frame(frames, seen)["session"]["client_certificate"]) == 1000
