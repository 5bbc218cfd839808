"""What edits make of a header (message/edits.py): a naive model, any cut, and what the SDK shows plugins."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.message.edits import LineEnd, apply, stream
from forkd.queue.envelope import Edit
from forkd.sdk import replay

NAMES = ("Subject", "X-A", "To")
"""Few, so that the same name comes often."""

names = st.sampled_from([*NAMES, "subject", "x-a"])
values = st.text("ab é", max_size=5).map(str.strip)
edits = st.lists(
    st.one_of(
        st.builds(Edit, op=st.just("add_header"), name=names, value=values),
        st.builds(Edit, op=st.just("change_header"), name=names, value=values, n=st.integers(1, 4)),
        st.builds(Edit, op=st.just("delete_header"), name=names, n=st.integers(0, 4)),
    ),
    max_size=8,
)
own_fields = st.lists(st.tuples(names, st.sampled_from(["one", "two\r\n folded", "", "x: y"])), max_size=6)
bodies = st.sampled_from(
    ["", "\r\n", "\r\nbody\r\n", "\r\nX-A: not a field\r\n\r\nmore\r\n", "no header line\r\n"]
)


def written(fields: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields)


def model(fields: Sequence[tuple[str, str]], wanted: Sequence[Edit]) -> list[tuple[str, str]]:
    """The contract, word for word: a list of (name, value), edited one after the other."""
    added: list[tuple[str, str]] = []
    own = list(fields)
    for edit in wanted:
        if edit.op == "add_header":
            added.append((edit.name, edit.value))
            continue
        seen = 0
        for part in (added, own):
            kept = []
            for name, value in part:
                same = name.lower() == edit.name.lower()
                seen += same
                if same and (edit.n in (0, seen)):
                    if edit.op == "change_header":
                        kept.append((name, edit.value))
                else:
                    kept.append((name, value))
            part[:] = kept
    return added + own


@given(own_fields, bodies, edits)
def test_edits_do_to_a_header_what_a_naive_model_does(
    fields: list[tuple[str, str]], body: str, wanted: list[Edit]
) -> None:
    """In order; n counts from 1 in the header as the edits before left it; added fields stand on top."""
    message = (written(fields) + body).encode()
    assert apply(message, wanted) == (written(model(fields, wanted)) + body).encode()


@given(own_fields, bodies, edits, st.lists(st.integers(1, 40), max_size=20), st.sampled_from(LineEnd))
def test_a_stream_cut_anywhere_gives_the_same_octets(
    fields: list[tuple[str, str]], body: str, wanted: list[Edit], cuts: list[int], line_end: LineEnd
) -> None:
    """Pieces are what the disk gives: nothing depends on their borders."""
    message = (written(fields) + body).encode()
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(message[at : at + cut])
        at += cut
    pieces = [piece for piece in [*pieces, message[at:]] if piece]
    got = b"".join(
        stream(iter(pieces), "Received: x\r\n", wanted, line_end=line_end, top="Return-Path: <>\r\n")
    )
    if not fields and body.startswith("no header"):
        message = b"\r\n" + message
    expected = b"Return-Path: <>\r\nReceived: x\r\n" + apply(message, wanted)
    assert got == (expected if line_end is LineEnd.CRLF else expected.replace(b"\r\n", b"\n"))


@given(own_fields, edits)
def test_what_the_next_plugin_sees_is_what_the_recipient_gets(
    fields: list[tuple[str, str]], wanted: list[Edit]
) -> None:
    """The SDK replays the edits of earlier plugins; both must count alike (plugins.md, "Verdicts")."""
    header = (written(fields) + "\r\n").encode()
    shown = replay.apply(header, wanted)
    assert apply(header, wanted) == shown.raw + b"\r\n"


def test_a_field_keeps_its_place_and_spelling_when_it_is_changed() -> None:
    """Only the value is another one."""
    header = b"A: 1\r\nSUBJECT : old\r\n and more\r\nB: 2\r\n\r\n"
    assert apply(header, [Edit(op="change_header", name="subject", value="new", n=1)]) == (
        b"A: 1\r\nSUBJECT: new\r\nB: 2\r\n\r\n"
    )


def test_a_change_of_what_is_not_there_adds_nothing() -> None:
    """Nor does a deletion take another field."""
    header = b"A: 1\r\n\r\n"
    missing = [Edit(op="change_header", name="A", value="x", n=2), Edit(op="delete_header", name="A", n=2)]
    assert apply(header, missing) == header


def test_a_folded_value_stays_one_field() -> None:
    """Line ends in a value are folds, never a field of their own."""
    edit = Edit(op="change_header", name="A", value="x\r\nEvil: y", n=1)
    assert apply(b"A: 1\r\n\r\n", [edit]) == b"A: x\r\n Evil: y\r\n\r\n"


def test_an_mbox_separator_does_not_end_the_header() -> None:
    """Below our fields `From x` would be a line that is no field: it becomes one (as Postfix does)."""
    message = b"From someone Mon\r\nSubject: x\r\n\r\n"
    for wanted in ([], [Edit(op="delete_header", name="Subject")]):
        got = b"".join(stream(iter([message]), "Received: x\r\n", wanted, line_end=LineEnd.CRLF))
        assert got.startswith(b"Received: x\r\nMailbox-Line: From someone Mon\r\n")


@pytest.mark.parametrize(
    "text", [b" more\r\nSubject: x\r\n", b"\tmore\r\n", b"no field\r\n", b": x\r\n", b"a"]
)
@pytest.mark.parametrize("octet_by_octet", [False, True])
def test_a_text_without_a_header_does_not_go_on_with_our_fields(text: bytes, octet_by_octet: bool) -> None:
    """A first line that begins with a space would be more of our last field, any other junk part of our
    header: an empty line stands between (as Postfix does)."""
    pieces = [text[i : i + 1] for i in range(len(text))] if octet_by_octet else [text]
    for wanted in (
        [],
        [Edit(op="add_header", name="A", value="1"), Edit(op="delete_header", name="Subject")],
    ):
        got = b"".join(stream(iter(pieces), "Received: x\r\n", wanted, line_end=LineEnd.CRLF))
        ours = b"Received: x\r\n" + (b"A: 1\r\n" if wanted else b"")
        assert got == ours + b"\r\n" + text


@pytest.mark.parametrize("text", [b"", b"\r\nbody\r\n", b"Subject:\r\n", b"Subject : x\r\n\r\n", b"X-A:\r\n"])
def test_a_text_that_may_stand_below_our_fields_is_not_touched(text: bytes) -> None:
    """A field, also in obsolete syntax (RFC 5322 4.5.8), or an empty line; or nothing."""
    pieces = [text[i : i + 1] for i in range(len(text))]
    got = b"".join(stream(iter(pieces), "Received: x\r\n", line_end=LineEnd.CRLF))
    assert got == b"Received: x\r\n" + text


def test_the_trace_is_out_of_reach() -> None:
    """n counts the message's fields: what we write above them is nobody's to edit."""
    edit = Edit(op="delete_header", name="Received")
    got = b"".join(stream([b"Received: theirs\r\n\r\n"], "Received: ours\r\n", [edit], line_end=LineEnd.CRLF))
    assert got == b"Received: ours\r\n\r\n"
