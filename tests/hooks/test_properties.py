"""Whatever a sandbox says is a checked answer or a failure; what plugins see is what is sent."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkd.hooks.changes import Changes
from forkd.hooks.facts import SessionFacts
from forkd.message.edits import LineEnd, stream
from forkd.queue.envelope import Edit
from forkd.rpc.calls import AddHeader, ChangeHeader, DeleteHeader, HeaderEdit
from forkd.sdk.edits import edit_of
from forkd.sdk.headers import Headers, split_header
from forkd.sdk.replay import apply, fold
from forkd.smtp.address import Mailbox
from tests.support.fake_host import (
    EVERY_POWER,
    Broken,
    FakeCopies,
    FakeHolder,
    FakeHost,
    FakePlugin,
    dispatcher_for,
    run,
)

HOOKS = {
    "connect": {},
    "auth": {"user": "u", "secret": "s"},
    "mail": {"sender": Mailbox("a", "example.org"), "parameters": {}},
    "rcpt": {"recipient": Mailbox("b", "test.local"), "parameters": {}},
    "data": {},
    "message": {},
}

# --- any answer -------------------------------------------------------------------------------------------

_TEXT = st.one_of(
    st.sampled_from(["", "X-A", "a@test.local", "5.7.1", "4.7.1", "no", "pass", "SPFRESULT", "a\r\nb", "\0"]),
    st.text(max_size=20),
)
_NUMBER = st.one_of(
    st.sampled_from([0, 1, 2, -1, 421, 451, 550, 554, 10**30]), st.integers(), st.floats(), st.booleans()
)
_VALUE = st.recursive(
    st.one_of(st.none(), _TEXT, _NUMBER),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
    max_leaves=8,
)
_EDIT = st.fixed_dictionaries(
    {
        "op": st.sampled_from(
            [
                *("add_header", "change_header", "delete_header", "replace_body", "add_recipient"),
                *("delete_recipient", "change_sender", "rewrite_recipient", "export", "other"),
            ]
        )
    },
    optional={
        "name": _TEXT,
        "value": st.one_of(_TEXT, _VALUE),
        "n": _NUMBER,
        "size": _NUMBER,
        "address": _TEXT,
    },
)
_VERDICT = st.fixed_dictionaries(
    {"do": st.sampled_from(["accept", "deny", "defer", "disconnect", "discard", "quarantine", "ok", "x"])},
    optional={"code": _NUMBER, "enhanced": _TEXT, "text": _TEXT, "more": _VALUE},
)
_ANSWER = st.one_of(
    _VALUE,
    st.fixed_dictionaries(
        {"n": st.sampled_from([1, 1, 1, 2, "1"])},
        optional={
            "verdict": st.one_of(_VERDICT, _VALUE),
            "edits": st.one_of(st.lists(_EDIT, max_size=4), _VALUE),
            "piece": _TEXT,
            "by": _TEXT,
            "error": _TEXT,
            "other": _VALUE,
        },
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(_ANSWER.map(lambda a: json.dumps(a).encode()), st.binary(max_size=200)),
    st.sampled_from(sorted(HOOKS)),
    st.booleans(),
)
def test_any_answer_is_a_decision(answer: bytes, hook: str, smtputf8: bool):
    """Nothing a sandbox says raises past the dispatcher, and a breach is answered as on_failure says."""
    plugin = FakePlugin("p", tuple(HOOKS), powers=EVERY_POWER, reads=("envelope", "body"), on_failure="defer")
    host = FakeHost({"p": Broken(answer)}, (plugin,))
    hooks = dispatcher_for([plugin], host).session(
        SessionFacts(id="S", client_ip="192.0.2.1", client_port=1), FakeHolder()
    )
    hooks.begin(None, smtputf8=smtputf8)
    copies = FakeCopies()
    try:
        arguments: dict[str, Any] = HOOKS[hook]
        decision = run(hooks.run(hook, message=copies if hook == "message" else None, **arguments))
    finally:
        copies.close()
    [record] = decision.records
    if record.failure:
        assert record.failure in ("protocol", "exception")
        assert decision.reply is not None
        assert decision.reply.code in (421, 451, 454)
    if decision.reply is not None:
        wire = decision.reply.encode()
        assert wire.count(b"\r\n") == wire.count(b"\n") == wire.count(b"\r")
        assert b"\0" not in wire
    for edit in decision.edits:
        text = f"{edit.name}: {getattr(edit, 'value', '')}"
        assert all(
            line.strip() and (n == 0) != line.startswith((" ", "\t"))
            for n, line in enumerate(text.split("\r\n"))
        )
        assert "\n" not in text.replace("\r\n", "")
        assert "\0" not in text
        assert smtputf8 or text.isascii()


# --- what plugins see is what is sent -------------------------------------------------------------------

_NAMES = st.sampled_from(["Subject", "subject", "X-A", "x-a", "To"])
_WORDS = st.lists(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40), max_size=12
)
_VALUES = st.builds(lambda words, space: space.join(words), _WORDS, st.sampled_from([" ", "\t", "  "]))
_EDITS = st.lists(
    st.one_of(
        st.builds(AddHeader, _NAMES, _VALUES),
        st.builds(ChangeHeader, _NAMES, st.integers(1, 4), _VALUES),
        st.builds(DeleteHeader, _NAMES, st.integers(0, 4)),
    ),
    max_size=8,
)
_FIELDS = st.lists(
    st.sampled_from(
        [
            "Subject: one\r\n",
            "SUBJECT : folded\r\n and on\r\n",
            "X-A:\r\n",
            "x-a: \tlast\r\n\tline\r\n",
            "To: a@example.org\r\n",
            "Received: from a by b\r\n",
        ]
    ),
    max_size=8,
).map("".join)
_REST = st.sampled_from(["\r\nbody\r\n", "\r\n", "", "no field at all\r\nX-A: body\r\n"])
_START = st.sampled_from(["", "", "", "From someone Mon\r\n"])


def kept(edit: HeaderEdit) -> Edit:
    """As the spool keeps it."""
    return Edit(
        op=str(edit.__struct_config__.tag),
        name=edit.name,
        value=getattr(edit, "value", ""),
        n=getattr(edit, "n", 0),
    )


@given(_START, _FIELDS, _REST, _EDITS, st.integers(16, 60))
def test_the_view_and_what_goes_out_agree(start: str, fields: str, rest: str, edits: list[Any], cut: int):
    """Edits replayed by the SDK's view give, octet for octet, the header that the recipient gets."""
    message = f"{start}{fields}{rest}".encode()
    header_size = split_header(message)
    changes = Changes([], lambda *_: True).taken(edits, smtputf8=False)
    told = [edit_of(json.loads(msgspec.json.encode(edit))) for edit in changes.of_header]
    seen = list(apply(message[:header_size], told).raw_fields())
    pieces = [message[at : at + cut] for at in range(0, len(message), cut)]
    sent = b"".join(
        stream(pieces, "", [kept(edit) for edit in changes.header_edits()], line_end=LineEnd.CRLF)
    )
    got = [field for field in Headers(sent).raw_fields() if field[0] != "Mailbox-Line"]
    if rest == "":
        # A header without an end: what is added stands above it all the same.
        got = got[: len(seen)]
    assert got == seen


@given(_NAMES, _VALUES)
def test_unfolding_gives_the_value_back(name: str, value: str):
    """RFC 5322 2.2.3; and no line of a fold is blank (3.2.2)."""
    value = value.strip(" \t")
    folded = fold(name, value)
    assert Headers(f"{name}: {folded}\r\n\r\n".encode()).get(name) == value
    assert all(line.strip(" \t") for line in folded.split("\r\n")) or not value
