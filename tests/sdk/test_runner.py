"""Frames in, hooks called, answers out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkd.hooks.checks import MAX_EDITS, MAX_REASON, MAX_TEXT
from forkd.hooks.facts import SessionFacts
from forkd.hooks.spec import DEFER_CODES, DENY_CODES, HOOKS
from forkd.rpc import calls
from forkd.rpc.calls import MAX_FRAME_BYTES, MAX_PIECE_BYTES, Answer
from forkd.sdk import (
    Address,
    NotGranted,
    Plugin,
    Session,
    accept,
    add_header,
    add_recipient,
    answers,
    change_header,
    change_sender,
    defer,
    delete_header,
    delete_recipient,
    deny,
    discard,
    disconnect,
    export,
    ok,
    replace_body,
    rewrite,
    runner,
    verdicts,
)
from forkd.sdk.edits import edit_of
from forkd.sdk.plugin import ARGUMENTS
from forkd.sdk.runner import Runner, warm
from forkd.sdk.views import Envelope

ROOT = Path(__file__).parent.parent.parent
MESSAGE = b"Subject: hello\r\n\r\nthe body\r\n"
HEADER_SIZE = MESSAGE.index(b"the")


@pytest.fixture
def memory_file() -> Iterator[int]:
    fd = os.memfd_create("message")
    os.write(fd, MESSAGE)
    yield fd
    os.close(fd)


def call(r: Runner, hook: str, fd: int | None = None, **members: Any) -> Answer:
    if hook == "message":
        members.setdefault("args", {"size": len(MESSAGE), "header_size": HEADER_SIZE})
    frame = {"n": 7, "hook": hook, "args": {}, **members}
    return msgspec.json.decode(r.handle(json.dumps(frame).encode(), fd), type=Answer)


def mail(**args: Any) -> dict[str, Any]:
    return {
        "args": {
            "sender": {"local": "a", "domain": "b.example"},
            "parameters": {},
            "size": None,
            "body": "7BIT",
        }
        | args
    }


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        (),
        accept(),
        deny("5.7.1", 'a "no"'),
        defer("4.7.1", "x"),
        discard(),
        disconnect("4.7.0", "x"),
    ],
)
def test_answer_says_what_the_hook_returned(said: Any):
    """The worker decodes it strictly into Answer."""
    answer = call(Runner(Plugin(mail=lambda *_: said)), "mail", **mail())
    assert answer.n == 7
    assert answer.error == ""
    if not said:
        assert answer.verdict is None
    else:
        assert answer.verdict is not None
        assert (answer.verdict.do, answer.verdict.code, answer.verdict.text) == (
            said.do,
            said.code,
            said.text,
        )


@pytest.mark.parametrize(
    "said", [add_header("X-A", "1"), [add_header("X-A", "1")], (accept(), add_header("X-A", "1"))]
)
def test_edits_come_alone_or_in_a_list(said: Any):
    """A list may hold one verdict too."""
    answer = call(Runner(Plugin(message=lambda *_: said)), "message")
    assert [(e.name, e.value) for e in answer.edits] == [("X-A", "1")]


@pytest.mark.parametrize("said", ["no", True, 550, [accept(), accept()], [None], {"do": "deny"}])
def test_anything_else_is_an_error(said: Any):
    """Never a silent skip."""
    assert call(Runner(Plugin(mail=lambda *_: said)), "mail", **mail()).error.startswith(
        "TypeError: a hook returns"
    )


def test_exception_becomes_an_error_answer_with_its_traceback_on_stderr(capfd: pytest.CaptureFixture[str]):
    """The log gets the traceback, the worker type and text."""
    r = Runner(Plugin(mail=lambda *_: {}["key"]))
    assert call(r, "mail", **mail()).error == "KeyError: 'key'"
    assert r.failed
    assert "in <lambda>" in capfd.readouterr().err


def test_exception_whose_text_fails():
    """Plugin code runs in __str__ too."""

    class Nasty(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    def hook(*_: Any) -> None:
        raise Nasty("\ud800" * 9)

    assert call(Runner(Plugin(mail=hook)), "mail", **mail()).error == "Nasty"


def test_surrogates_in_an_exception_do_not_break_the_answer():
    """A lone surrogate is no JSON for msgspec."""

    def hook(*_: Any) -> None:
        raise ValueError("\ud800 x")

    assert call(Runner(Plugin(mail=hook)), "mail", **mail()).error.startswith("ValueError: ")


def test_leaving_python_passes_through():
    """SystemExit is the sandbox's loop's to answer."""
    with pytest.raises(SystemExit):
        call(Runner(Plugin(mail=lambda *_: sys.exit(3))), "mail", **mail())


def test_answer_is_bounded():
    """64 KiB a record; the error says why."""
    many = [add_header("X-A", "v" * 900) for _ in range(100)]
    assert "too many edits" in call(Runner(Plugin(message=lambda *_: many)), "message").error


def test_session_facts_accumulate():
    """All facts at first, later only changes; `notes` is the plugin's own."""
    seen: list[Session] = []
    r = Runner(Plugin(connect=seen.append, helo=lambda s, name: s.notes.update(name=name)))
    call(r, "connect", session={"id": "S1", "client_ip": "192.0.2.1", "helo": None})
    call(
        r, "helo", session={"helo": "c.example", "esmtp": True}, args={"name": "c.example", "extended": True}
    )
    session = seen[0]
    assert (session.id, session.client_ip, session.helo, session.esmtp) == (
        "S1",
        "192.0.2.1",
        "c.example",
        True,
    )
    assert session.notes == {"name": "c.example"}


def test_sender_and_recipient_views():
    """local, domain, str(), what the client said beside it; the null sender is false."""
    seen: list[Any] = []
    r = Runner(Plugin(mail=lambda s, sender: seen.append(sender), rcpt=lambda s, to: seen.append(to)))
    call(r, "mail", **mail(size=10, parameters={"SIZE": "10"}))
    call(r, "mail", **mail(sender=None))
    call(r, "rcpt", args={"recipient": {"local": "a b", "domain": "x.example"}, "parameters": {"ORCPT": "x"}})
    sender, null, to = seen
    assert (sender.local, sender.domain, str(sender), sender.size) == ("a", "b.example", "a@b.example", 10)
    assert sender.parameters == {"SIZE": "10"}
    assert not null
    assert (null.local, null.domain, str(null)) == ("", "", "")
    assert str(to) == '"a b"@x.example'


def test_envelope_follows_the_transaction():
    """Recipients come once, in pages; a cleared transaction is empty."""
    seen: list[Any] = []
    r = Runner(
        Plugin(data=lambda s, e: seen.append((str(e.sender), [str(to) for to in e.recipients]))), ["envelope"]
    )
    recipients = [{"local": str(n), "domain": "x"} for n in range(3)]
    assert call(r, "page", sender={"local": "a", "domain": "b"}, recipients=recipients[:2]).verdict is None
    call(r, "data", recipients=recipients[2:])
    call(r, "data", reset=True)
    assert seen == [("a@b", ["0@x", "1@x", "2@x"]), ("", [])]


def test_what_is_not_granted_is_not_there(memory_file: int):
    """Without the read a plugin sees its own fields only, and the author is told why."""
    assert call(Runner(Plugin(data=lambda s, e: e.sender)), "data").error.startswith("NotGranted: ")
    assert call(Runner(Plugin(message=lambda s, e, m: m.headers)), "message").error.startswith("NotGranted: ")
    r = Runner(Plugin(message=lambda s, e, m: m.body), ["headers"])
    assert call(r, "message", memory_file).error.startswith("NotGranted: ")
    with pytest.raises(NotGranted):
        _ = Envelope(False).recipients


def test_message_is_read_from_its_memory_file(memory_file: int):
    """Header and body, at the first look."""
    seen: list[Any] = []
    r = Runner(
        Plugin(message=lambda s, e, m: seen.extend([m.headers.get("subject"), m.body, m.size])),
        ["headers", "body"],
    )
    call(r, "message", memory_file)
    assert seen == ["hello", b"the body\r\n", len(MESSAGE)]


def test_header_alone_is_enough_for_who_may_read_no_more(memory_file: int):
    """The worker gives such a plugin a file that ends with the header."""
    os.ftruncate(memory_file, HEADER_SIZE)
    seen: list[Any] = []
    call(
        Runner(Plugin(message=lambda s, e, m: seen.append(m.headers.get("subject"))), ["headers"]),
        "message",
        memory_file,
    )
    assert seen == ["hello"]


def test_message_is_gone_after_the_hook(memory_file: int):
    """Its number may be another message's by then."""
    kept: list[Any] = []
    call(Runner(Plugin(message=lambda s, e, m: kept.append(m)), ["body"]), "message", memory_file)
    with pytest.raises(ValueError, match="during the message hook only"):
        _ = kept[0].body


def test_message_shows_earlier_plugins_edits(memory_file: int):
    """Edits replayed by the SDK's view, on top."""
    seen: list[Any] = []
    edits = [{"op": "add_header", "name": "X-A", "value": "1"}]
    r = Runner(Plugin(message=lambda s, e, m: seen.extend([list(m.headers), m.body])), ["headers", "body"])
    call(r, "message", memory_file, edits=edits)
    assert seen == [["X-A", "Subject"], b"the body\r\n"]


def test_sdk_and_worker_agree():
    """The SDK imports nothing of ours, so what both sides must know stands twice: held together here."""
    assert list(ARGUMENTS) == list(HOOKS)
    assert verdicts._CODES == {"5": DENY_CODES, "4": DEFER_CODES}
    assert (verdicts.MAX_TEXT, verdicts.MAX_REASON, answers.MAX_EDITS) == (MAX_TEXT, MAX_REASON, MAX_EDITS)
    assert (answers.MAX_ANSWER_BYTES, runner.MAX_PIECE_BYTES) == (MAX_FRAME_BYTES, MAX_PIECE_BYTES)
    assert set(SessionFacts.__dataclass_fields__) <= set(Session.__slots__)


def test_what_is_not_ascii_waits_for_smtputf8():
    """A refusal goes out with "?"; a header is the author's to encode."""
    r = Runner(Plugin(mail=lambda *_: deny("5.7.1", "nicht für uns")))
    verdicts = [call(r, "mail", **mail()).verdict, call(r, "mail", **mail(smtputf8=True)).verdict]
    assert [v.text for v in verdicts if v] == ["nicht f?r uns", "nicht für uns"]
    r = Runner(Plugin(message=lambda *_: [add_header("X-A", "grüße")]))
    assert "forkd.sdk.encoded" in call(r, "message").error


@pytest.mark.parametrize(
    ("hook", "edit"),
    [("mail", add_header("X", "y")), ("message", rewrite("a@b")), ("disconnect", export("A", "b"))],
)
def test_edit_at_a_wrong_hook(hook: str, edit: Any):
    """Said where the author sees it."""
    members = mail() if hook == "mail" else {}
    r = Runner(Plugin(**{hook: lambda *_: edit}))
    assert "belongs to the hook" in call(r, hook, **members).error


def test_a_replaced_body_is_given_in_pieces():
    """`body` calls after the answer; of several bodies in one answer the last counts."""
    body = b"line\r\n" * 20_000
    r = Runner(Plugin(message=lambda *_: [replace_body("first"), replace_body(body)]))
    [edit] = call(r, "message").edits
    assert isinstance(edit, calls.ReplaceBody)
    assert edit.size == len(body)
    fetched = b""
    while len(fetched) < edit.size:
        piece = call(r, "body", args={"offset": len(fetched)}).piece
        assert piece
        assert len(piece) <= MAX_PIECE_BYTES
        fetched += piece
    assert fetched == body
    call(r, "page", reset=True)
    assert "no hook has replaced the body" in call(r, "body", args={"offset": 0}).error


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ("a\nb", b"a\r\nb\r\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        ("a\rb\n", b"a b\r\n"),
        ("grüße", "grüße\r\n".encode()),
        ("", b""),
    ],
)
def test_line_ends_of_a_body(given: bytes | str, body: bytes):
    """CRLF, as on the wire; what a plugin before replaced is seen as it will be sent."""
    assert replace_body(given).body == body


def test_auth_is_given_user_and_secret():
    """auth(session, user, secret)."""
    r = Runner(Plugin(auth=lambda session, user, secret: ok() if (user, secret) == ("joe", "pw") else None))
    said = [call(r, "auth", args={"user": "joe", "secret": secret}).verdict for secret in ("pw", "x")]
    assert [verdict and verdict.do for verdict in said] == ["ok", None]


def test_every_edit_says_what_it_is():
    """The worker decodes them strictly, in their order."""
    edits = [
        add_header("A", "1"),
        change_header("A", "2"),
        delete_header("A"),
        add_recipient(Address("a b", "test.local")),
        delete_recipient("a@test.local"),
        change_sender(""),
        export("NAME", "value"),
    ]
    answer = call(Runner(Plugin(message=lambda *_: edits)), "message")
    assert answer.edits == (
        calls.AddHeader("A", "1"),
        calls.ChangeHeader("A", 1, "2"),
        calls.DeleteHeader("A", 0),
        calls.AddRecipient('"a b"@test.local'),
        calls.DeleteRecipient("a@test.local"),
        calls.ChangeSender(""),
        calls.Export("NAME", "value"),
    )
    told = [edit_of(json.loads(edit.json())) for edit in edits]
    assert told == edits
    assert repr(told[1]) == "change_header('A', 1, '2')"


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("a@Example.Org", "a", "example.org"),
        ('"a b"@x.example', "a b", "x.example"),
        ('"a\\"@\\\\b"@x.example', 'a"@\\b', "x.example"),
        ("", "", ""),
    ],
)
def test_address_is_read_as_it_is_written(text: str, local: str, domain: str):
    """Address.parse and str() are each other's inverse."""
    address = Address.parse(text)
    assert (address.local, address.domain) == (local, domain)
    assert Address.parse(str(address)) == address


def test_warming_up_calls_no_plugin():
    """It runs before the first session."""
    warm()


def test_sdk_is_lean():
    """Every sandbox pays for what its zygote has loaded: no threading, logging, asyncio, random."""
    code = "before = set(sys.modules); import forkd.sdk.runner; print(*set(sys.modules) - before)"
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    heavy = {
        "threading",
        "logging",
        "random",
        "asyncio",
        "email",
        "dataclasses",
        "inspect",
        "typing",
        "socket",
    }
    heavy |= {"pathlib", "traceback", "msgspec", "ctypes", "urllib", "tempfile", "subprocess", "datetime"}
    assert heavy.isdisjoint(out)
    assert "forkd.sdk.runner" in out


@pytest.mark.parametrize(
    ("header", "empty_line"),
    [(b"Subject: x\r\n\r\n", b""), (b"Subject: x\r\n", b"\r\n"), (b"", b"\r\n"), (b"\r\n", b"")],
)
def test_sizes_in_a_group_are_those_of_what_the_member_reads(header: bytes, empty_line: bytes):
    """A body that an earlier member replaced counts, and the empty line that forkd puts in front of it."""
    seen: list[Any] = []

    def look(session: Any, envelope: Any, message: Any) -> None:
        seen.append((message.size, message.header_size, message.headers.raw, message.body))

    first = Plugin(message=lambda *_: replace_body("a much longer body than there was"))
    r = Runner((first, Plugin(message=look)), ("headers", "body"))
    fd = os.memfd_create("message")
    old, new = b"no field\r\n", b"a much longer body than there was\r\n"
    os.write(fd, header + old)
    args = {"size": len(header + old), "header_size": len(header)}
    try:
        assert not call(r, "message", fd, args=args).error
    finally:
        os.close(fd)
    whole = header + empty_line + new
    fields = b"Subject: x\r\n" if b"Subject" in header else b""
    assert seen == [(len(whole), len(header + empty_line), fields, new)]
