"""What is told of a session or a message, and what is said to be unknown (cli/explain_story.py)."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec
import pytest

from forkd import log, logmail
from forkd.admin.trace_file import TraceFile
from forkd.cli.explain import _wanted
from forkd.cli.explain_story import Story
from forkd.cli.explain_words import TOLD, told
from forkd.cli.failure import CommandFailed
from forkd.rpc.messages_trace import Story as Told
from forkd.rpc.messages_trace import Traces

SESSION, FIRST, SECOND = "HOFUBH6H4VPC93W1", "HOFUBH6KNL8A9EW1", "HOFUBH6KNL8B9EW1"
T0 = 1_795_467_149.0


def answer(*events: tuple[str, dict[str, Any]], id: str = SESSION, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "sessions": [SESSION],
        "events": [
            {"at": T0 + n, "writer": 1, "event": name, "fields": {"session": SESSION, **fields}}
            for n, (name, fields) in enumerate(events)
        ],
        "more": False,
        "writers": [{"n": 1, "name": "worker.0", "pid": 7, "since": T0 - 9, "seen": T0 + 9, "ended": False}],
        "gaps": [],
        "oldest": T0 - 99,
        "now": T0 + 10,
        **more,
    }


TWO = (
    ("connected", {"client": "192.0.2.1:4711", "listener": "mx"}),
    ("plugin_call", {"plugin": "dnsbl", "hook": "connect", "verdict": "none", "ms": 1.0}),
    ("plugin_call", {"plugin": "a", "hook": "mail", "verdict": "none", "ms": 1.0}),
    ("message", {"id": FIRST, "sender": "a@example.org", "recipients": ["b@example.org"], "reply": "250 1"}),
    ("plugin_call", {"plugin": "b", "hook": "mail", "verdict": "none", "ms": 1.0}),
    ("refused", {"command": "RCPT", "reply": "550 5.1.1 No", "recipient": "c@example.org"}),
    ("message", {"id": SECOND, "sender": "<>", "recipients": ["b@example.org"], "reply": "250 2"}),
    ("delivery", {"id": FIRST, "recipient": "b@example.org", "status": "deferred", "tls": "TLSv1.3 X"}),
    ("delivery", {"id": SECOND, "recipient": "b@example.org", "status": "delivered"}),
    ("session", {"client": "192.0.2.1:4711", "reason": "quit", "seconds": 9.0, "messages": 2}),
)


def names(story: Story) -> list[str]:
    return [f"{event['event']}:{event['fields'].get('plugin', '')}" for event in story.events]


def test_of_one_message_others_of_its_session_are_left_out():
    """What the session as such went through stays."""
    story = Story(answer(*TWO, id=SECOND))
    assert names(story) == [
        "connected:", "plugin_call:dnsbl", "plugin_call:b", "refused:", "message:", "delivery:", "session:",
    ]  # fmt: skip
    facts = dict(story.facts())
    assert (facts["message"], facts["in session"], facts["outcome"]) == (SECOND, SESSION, "1 delivered")
    assert "tls" not in facts  # that was the next hop's


def test_of_a_session_everything_is_told():
    """In order, with the time since it began."""
    story = Story(answer(*TWO))
    assert len(story.rows()) == len(TWO)
    assert story.rows()[2] == ("+2.000 s", "mail hook", "plugin a: no objection; 1.0 ms")
    assert story.notes() == []
    assert story.data()["events"][0]["process"] == "worker.0[7]"


REFUSED = (
    ("connected", {"client": "192.0.2.1:4711", "listener": "mx"}),
    ("plugin_call", {"plugin": "list", "hook": "mail", "verdict": "none", "ms": 1, "about": "a@example.org"}),
    ("plugin_call", {"plugin": "list", "hook": "rcpt", "verdict": "deny", "ms": 1, "about": "b@example.org"}),
    ("refused", {"command": "RCPT", "reply": "550 5.7.1 No", "recipient": "b@example.org"}),
    ("refused", {"command": "RCPT", "reply": "550 5.1.1 None", "recipient": "c@example.org"}),
    ("plugin_call",
     {"plugin": "scan", "hook": "message", "verdict": "disconnect", "failure": "memory", "ms": 9.0}),
    ("message", {"reply": "421 4.3.0 Later", "sender": "a@example.org", "recipients": ["d@example.org"]}),
    ("plugin_output", {"plugin": "scan", "text": "Traceback:\n  File\n\x1b[2JMemoryError\n"}),
    ("sandbox_end", {"plugin": "scan", "status": "SIGKILL", "user_ms": 9.0, "memory_kib": 1024}),
    ("sandbox_end", {"plugin": "list", "status": "SIGSEGV"}),
    ("plugin_failure",
     {"plugin": "scan", "hook": "message", "cause": "memory", "detail": "MemoryError", "status": "SIGKILL",
      "limit": "memory = 256MiB", "on_failure": "disconnect", "output": "  File\nMemoryError"}),
    ("session", {"client": "192.0.2.1:4711", "reason": "refused", "seconds": 9.0}),
)  # fmt: skip


def test_who_refused_is_told_at_once():
    """A plugin, one that failed, or forkd itself: that is why somebody asks."""
    story = Story(answer(*REFUSED))
    assert [text for name, text in story.facts() if name == "refused"] == [
        "RCPT: 550 5.7.1 No; by plugin list",
        "RCPT: 550 5.1.1 None; by forkd itself",
        "message: 421 4.3.0 Later; by plugin scan, which failed at message (memory)",
    ]
    assert story.data()["refusals"][1] == {"command": "RCPT", "reply": "550 5.1.1 None", "by": "forkd itself"}
    many = Story(answer(*[REFUSED[3]] * 10))
    assert [text for name, text in many.facts() if not name] == ["and 7 more"]


def test_what_a_failure_was_can_be_read():
    """Which recipient, which limit; a traceback line by line, and once; a sandbox that was not needed any
    more was not killed for anything."""
    rows = [f"{what}: {how}" for _, what, how in Story(answer(*REFUSED)).rows()]
    assert "rcpt hook: plugin list: deny; about b@example.org; 1.0 ms" in rows
    at = rows.index("printed: plugin scan:")
    assert rows[at + 1 : at + 4] == [":   Traceback:", ":     File", ":   \x1b[2JMemoryError"]
    assert "sandbox: of plugin scan; used 9.0 ms of processor time and 1.0 MiB of memory" in rows
    assert "sandbox: of plugin list; SIGSEGV" in rows
    [failure] = [row for row in rows if row.startswith("failure")]
    assert "memory; MemoryError; it reached its limit memory = 256MiB; its sandbox was killed;" in failure
    assert "it printed" not in failure
    alone = dict(REFUSED)["plugin_failure"]
    assert told("plugin_failure", alone)[1].endswith("it printed: MemoryError")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "deferred", "enhanced": "4.4.1", "text": "no connection to mx.example: timeout"},
         "; 4.4.1 no connection to mx.example: timeout; attempt"),
        ({"status": "failed", "enhanced": "5.1.1", "text": "550 5.1.1 no such user (rcpt)"},
         "; 550 5.1.1 no such user (rcpt); in the clear; attempt"),
        ({"status": "delivered", "enhanced": "2.0.0", "text": "250 taken", "tls": "TLSv1.3 X, not verified"},
         "; 2.0.0 250 taken; TLS TLSv1.3 X, not verified; attempt"),
    ],
)  # fmt: skip
def test_a_delivery_tells_what_the_next_hop_said(fields, said):
    """Its code once; and that it was in the clear only where it was anything."""
    assert said in told("delivery", {"recipient": "b@example.org", "host": "mx.example", **fields})[1]


def test_what_is_still_in_the_queue_is_said():
    """With the time of its next try; not any more when it was taken out, or delivered."""
    deferred = (
        "delivery",
        {"id": FIRST, "recipient": "b@example.org", "status": "deferred", "next_try_s": 60},
    )
    [note] = Story(answer(*TWO, deferred)).notes()
    assert note.startswith("not over yet: 1 recipient deferred, next try at ")
    assert Story(answer()).date(T0 + len(TWO) + 60) in note
    for last in (
        ("queue", {"act": "removed", "id": FIRST}),
        ("delivery", {"id": FIRST, "recipient": "b@example.org", "status": "delivered"}),
    ):
        assert Story(answer(*TWO, deferred, last)).notes() == []


@pytest.mark.parametrize(
    ("writer", "said"),
    [
        ({}, "the session has not ended yet"),
        ({"seen": T0 - 60}, "worker.0[7] was killed"),
        ({"ended": True}, "worker.0[7] has ended meanwhile"),
    ],
)
def test_a_session_without_an_end_is_said_to_have_none(writer, said):
    """Open, or its worker was killed: the two are not the same."""
    given = answer(*TWO[:-1])
    given["writers"][0] |= writer
    [note] = Story(given).notes()
    assert said in note


def test_what_was_lost_is_said_where_it_may_be_of_this_story():
    """A gap a day later is not."""
    gap = {"after": T0 + 1, "before": T0 + 4, "writer": "worker.0", "pid": 7, "events": 3}
    [note] = Story(answer(*TWO, gaps=[gap])).notes()
    assert note.startswith("3 events of worker.0 between ")
    late = gap | {"after": T0 + 86_000, "before": T0 + 86_001}
    done = [*TWO[:7], TWO[8], TWO[9]]
    assert Story(answer(*done, gaps=[late])).notes() == []
    assert Story(answer(*TWO, gaps=[late])).notes() != []  # a recipient still waits


def test_a_story_without_a_beginning_says_so():
    """The oldest go first."""
    assert "the beginning is not kept any more, or was lost" in Story(answer(*TWO[2:])).notes()


@pytest.mark.parametrize(
    "text",
    [
        SESSION,
        f"451 4.3.0 Local error, please try again later (session {SESSION})",
        f"250 2.0.0 Ok: queued as {SESSION}",
        f"level=info event=session session={SESSION} client=192.0.2.1:4711",
        f"by mx.example.org (forkd) with ESMTP id {SESSION};",
    ],
)
def test_an_id_is_found_in_whatever_has_it(text):
    """Users send the whole bounce."""
    assert _wanted(text) == SESSION


@pytest.mark.parametrize("text", ["", "hello", "HOFUBH6H4VPC93", "hofubh6h4vpc93w1", "ZZZZZZZZZZZZZZZZ"])
def test_what_is_no_id_is_said_to_be_none(text):
    """Too short, too long, from another century."""
    with pytest.raises(CommandFailed, match="there is no id"):
        _wanted(text)


def test_every_event_of_a_session_has_its_words():
    """What the log says under a session's id is told in words, not as key=value."""
    of_sessions = {
        name
        for module in (log, logmail)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and "session" in inspect.signature(function).parameters
    }
    assert of_sessions >= {"refused", "message", "delivery", "plugin_failure"}
    assert of_sessions - TOLD.keys() == {"session_end"}  # the event's name is `session`


HOSTILE: tuple[Any, ...] = (
    *([1], {"a": [1]}, [{"a": 1}], None, True, 1e308, float("nan"), -(1 << 63), (1 << 64) - 1),
    *(b"\xff", "\x1b[2J", msgspec.msgpack.Ext(5, b"a")),
)
FIELDS = (
    *("id", "hook", "plugin", "command", "reply", "recipients", "status", "tls", "client", "user", "ms"),
    *("edits", "seconds", "size", "cpu_ms", "memory_kib", "user_ms", "errors", "messages", "next_try_s"),
)


@pytest.mark.parametrize("at", [0.0, T0, float("nan"), -1e300, 1e300], ids=repr)
def test_whatever_a_process_told_is_shown(tmp_path, at):
    """As JSON by admin, as facts, rows and notes: no field and no time of a liar's ends the answer."""
    file = TraceFile(tmp_path / "trace.db", keep_s=1e6, sessions=10, max_bytes=1 << 30)
    file.open()
    events = [(at, name, dict.fromkeys(FIELDS, value)) for name in [*sorted(TOLD), "x"] for value in HOSTILE]
    events.append((at, "message", {"id": FIRST}))
    for event in events:
        octets = msgspec.Raw(msgspec.msgpack.encode([event]))
        file.add(7, Traces("worker.0", 0.0, 0, 1, 1, (Told(SESSION, (FIRST,), T0, True, octets),)), T0 + 1)
    for id_ in (SESSION, FIRST):
        story = Story(json.loads(msgspec.json.encode(file.find(id_, since=0.0, now=T0 + 2))))
        assert story.events
        assert all(isinstance(what + how, str) for _, what, how in story.rows())
        assert dict(story.facts())["began"] == story.date(at if at in (0.0, T0) else T0 + 1)
        assert json.dumps([story.data(), story.notes(), story.lost()])
    file.close()


@pytest.mark.parametrize("event", sorted(TOLD))
def test_words_are_found_for_whatever_stands_in_an_event(event):
    """A process that was taken over tells what it likes; an event may lack what is empty."""
    for fields in ({}, {name: object() for name in ("ms", "edits", "seconds", "size", "cpu_ms", "errors")}):
        what, how = told(event, fields)
        assert isinstance(what, str)
        assert isinstance(how, str)
