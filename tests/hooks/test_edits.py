"""What do several editing plugins make of one message, and what does each of them see?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forkd.hooks.changes import MAX_ADDED_RECIPIENTS, MAX_HEADER_EDITS, Changes
from forkd.hooks.decision import UNCHANGED
from forkd.hooks.dispatcher import Decision, SessionHooks
from forkd.hooks.facts import SessionFacts
from forkd.rpc import records
from forkd.rpc.calls import (
    AddHeader,
    AddRecipient,
    CallFailed,
    ChangeHeader,
    DeleteHeader,
    DeleteRecipient,
)
from forkd.sdk import (
    Plugin,
    accept,
    add_header,
    add_recipient,
    change_header,
    change_sender,
    delete_header,
    delete_recipient,
    deny,
    discard,
    export,
    ok,
    quarantine,
    replace_body,
    rewrite,
)
from forkd.smtp.address import Mailbox
from tests.support.fake_host import (
    EVERY_POWER,
    Broken,
    FakeCopies,
    FakeHolder,
    FakeHost,
    FakePlugin,
    Powers,
    dispatcher_for,
    run,
)

FACTS = SessionFacts(id="S1", client_ip="192.0.2.1", client_port=4000)
BOB, EVE = Mailbox("Bob", "test.local"), Mailbox("eve", "test.local")
SENDER = Mailbox("a", "example.org")
READS = ("envelope", "headers", "body")


@pytest.fixture
def copies() -> Iterator[FakeCopies]:
    made = FakeCopies(b"Subject: hello\r\nX-A: one\r\nX-A: two\r\n\r\n")
    yield made
    made.close()


def chain(*hooks: Any, hook: str = "message", reads: tuple[str, ...] = READS, **config: Any) -> SessionHooks:
    """A session with one plugin for each function, in this order, and the transaction of two recipients."""
    plugins = tuple(
        FakePlugin(f"p{n}", (hook,), powers=config.get("powers", EVERY_POWER), reads=reads)
        for n in range(len(hooks))
    )
    behaviours = {
        f"p{n}": h if isinstance(h, Plugin | Broken) else Plugin(**{hook: h}) for n, h in enumerate(hooks)
    }
    made = dispatcher_for(
        plugins,
        FakeHost(behaviours, plugins),
        routable=lambda local, domain: domain == "test.local" and local != "nobody",
        message_size=config.get("message_size", 1 << 20),
    ).session(FACTS, FakeHolder())
    made.begin(SENDER)
    made.add_recipient(BOB)
    made.add_recipient(EVE)
    return made


def saying(*edits: Any) -> Any:
    return lambda *_: list(edits)


def decide(hooks: SessionHooks, copies: FakeCopies) -> Decision:
    return run(hooks.run("message", message=copies))


def rcpt(hooks: SessionHooks) -> Decision:
    return run(hooks.run("rcpt", recipient=BOB, parameters={}))


def test_header_edits_are_seen_by_the_next_plugin(copies: FakeCopies):
    """plugins.md: they are applied, and the next plugin sees the edited message."""
    seen: list[Any] = []

    def look(session: Any, envelope: Any, message: Any) -> Any:
        seen.append(list(message.headers.items()))
        return change_header("X-A", "changed", 2)

    decision = decide(chain(saying(add_header("X-A", "new"), delete_header("x-a", 2)), look, look), copies)
    assert seen == [
        [("X-A", "new"), ("Subject", "hello"), ("X-A", "two")],
        [("X-A", "new"), ("Subject", "hello"), ("X-A", "changed")],
    ]
    assert decision.edits == (
        AddHeader("X-A", "new"),
        DeleteHeader("x-a", 2),
        ChangeHeader("X-A", 2, "changed"),
        ChangeHeader("X-A", 2, "changed"),
    )


def test_a_long_value_is_folded_by_us_and_seen_whole(copies: FakeCopies):
    """RFC 5322 2.1.1, 2.2.3: lines of 78 where there is space to fold at; unfolded it is what was given."""
    value = " ".join(["word"] * 60)
    seen: list[str] = []
    decision = decide(
        chain(saying(add_header("X-Long", value)), lambda s, e, m: seen.append(m.headers.get("x-long"))),
        copies,
    )
    [edit] = decision.edits
    assert isinstance(edit, AddHeader)
    lines = f"X-Long: {edit.value}".split("\r\n")
    assert len(lines) > 1
    assert max(map(len, lines)) <= 78
    assert edit.value.replace("\r\n", "") == value
    assert seen == [value]


def test_a_replaced_body_is_what_the_next_plugin_reads(copies: FakeCopies):
    """A body comes in pieces, however long; the next copy has it (with the header as it was)."""
    body = b"line\r\n" * 20_000
    seen: list[bytes] = []

    def look(session: Any, envelope: Any, message: Any) -> None:
        seen.append(message.body)
        assert message.size == message.header_size + len(body)

    decision = decide(chain(saying(replace_body(body.replace(b"\r\n", b"\n"))), look), copies)
    assert decision.body == body
    assert copies.new_body == body
    assert seen == [body]


def test_an_empty_body_is_a_body(copies: FakeCopies):
    """Nothing to fetch, and nothing left of the old one."""
    assert decide(chain(saying(replace_body(""))), copies).body == b""
    assert copies.new_body == b""


def test_the_envelope_is_seen_as_it_was_left(copies: FakeCopies):
    """Recipients added and deleted, the sender changed: the next plugin's envelope has them."""
    seen: list[Any] = []

    def look(session: Any, envelope: Any, message: Any) -> None:
        seen.append((str(envelope.sender), [str(to) for to in envelope.recipients]))

    first = saying(add_recipient("new@test.local"), delete_recipient("bob@test.local"), change_sender(""))
    decision = decide(chain(look, first, look), copies)
    assert seen == [
        ("a@example.org", ["Bob@test.local", "eve@test.local"]),
        ("", ["eve@test.local", "new@test.local"]),
    ]
    assert decision.add_recipients == (Mailbox("new", "test.local"),)
    assert decision.delete_recipients == (BOB,)
    assert decision.sender is None


def test_edits_that_undo_each_other_leave_nothing(copies: FakeCopies):
    """What one adds the next may delete, what one deletes the next may put back."""
    decision = decide(
        chain(
            saying(add_recipient("new@test.local"), delete_recipient("eve@test.local")),
            saying(delete_recipient("new@test.local"), add_recipient("eve@test.local")),
            saying(add_recipient("BOB@test.local"), delete_recipient("who@test.local")),
        ),
        copies,
    )
    assert (decision.reply, decision.add_recipients, decision.delete_recipients) == (None, (), ())
    assert decision.sender is UNCHANGED


@pytest.mark.parametrize(
    ("reads", "edits"),
    [
        ((), []),
        (("headers",), ["add_header"]),
        (("body",), ["add_header"]),
        (("envelope",), ["delete_recipient", "change_sender"]),
        (READS, ["add_header", "delete_recipient", "change_sender"]),
    ],
)
def test_edits_are_seen_by_those_who_may_read_what_they_changed(
    reads: tuple[str, ...], edits: list[str], copies: FakeCopies
):
    """reads: what was not granted does not go over, whoever wrote it."""
    plugins = (
        FakePlugin("one", ("message",), powers=EVERY_POWER),
        FakePlugin("two", ("message",), reads=reads),
    )
    one = saying(add_header("X-B", "1"), delete_recipient("eve@test.local"), change_sender(""))
    host = FakeHost({"one": Plugin(message=one), "two": Plugin(message=lambda *_: None)}, plugins)
    hooks = dispatcher_for(plugins, host).session(FACTS, FakeHolder())
    hooks.begin(SENDER)
    hooks.add_recipient(BOB)
    hooks.add_recipient(EVE)
    assert decide(hooks, copies).reply is None
    [frame] = host.sandboxes("two")[0].frames
    assert [edit["op"] for edit in frame.get("edits", [])] == edits
    assert ("sender" in frame, "recipients" in frame) == ("envelope" in reads,) * 2


@pytest.mark.parametrize("verdict", [deny("5.7.1", "no"), discard()])
def test_edits_of_a_plugin_that_refuses_count_for_nothing(verdict: Any, copies: FakeCopies):
    """Nor is its body fetched."""
    everything = saying(
        verdict, add_header("X-B", "1"), replace_body("x"), add_recipient("n@test.local"), change_sender("")
    )
    decision = decide(chain(everything), copies)
    assert (decision.edits, decision.body, decision.add_recipients) == ((), None, ())
    assert decision.sender is UNCHANGED
    assert copies.new_body is None


def test_quarantine_ends_the_hook_and_keeps_the_edits(copies: FakeCopies):
    """250, spooled in state hold with the reason."""
    decision = decide(
        chain(saying(add_header("X-B", "1"), quarantine("a virus, perhaps")), saying(deny("5.7.1", "no"))),
        copies,
    )
    assert (decision.reply, decision.quarantine) == (None, "a virus, perhaps")
    assert decision.edits == (AddHeader("X-B", "1"),)
    assert [record.verdict for record in decision.records] == ["quarantine"]


def test_rewritten_recipient_is_seen_and_given(copies: FakeCopies):
    """At rcpt: the next plugin is asked about the new one, and the worker is told."""
    seen: list[str] = []
    decision = rcpt(chain(saying(rewrite("new@test.local")), lambda s, to: seen.append(str(to)), hook="rcpt"))
    assert seen == ["new@test.local"]
    assert decision.recipient == Mailbox("new", "test.local")


@pytest.mark.parametrize("address", ["a@elsewhere.example", "nobody@test.local"])
@pytest.mark.parametrize(("hook", "edit"), [("message", add_recipient), ("rcpt", rewrite)])
def test_no_recipient_past_relay_and_recipient_checks(hook: str, edit: Any, address: str, copies: FakeCopies):
    """Whatever was granted: mail goes where forkd takes mail for, and nowhere else."""
    hooks = chain(saying(edit(address)), hook=hook)
    decision = decide(hooks, copies) if hook == "message" else rcpt(hooks)
    assert decision.reply is not None
    assert decision.records[0].failure == "protocol"
    assert (decision.recipient, decision.add_recipients) == (None, ())


def test_accept_does_not_undo_edits_and_later_plugins_are_not_asked(copies: FakeCopies):
    """accept ends the hook; what was edited stays."""
    decision = decide(chain(saying(accept(), add_header("X-B", "1")), saying(deny("5.7.1", "no"))), copies)
    assert decision.reply is None
    assert decision.edits == (AddHeader("X-B", "1"),)


def test_exports_reach_later_plugins_at_once_and_stay(copies: FakeCopies):
    """export(name, value): a fact of the session, at this hook and at later ones."""
    seen: list[Any] = []
    plugins = (
        FakePlugin("spf", ("mail",), powers=Powers(export=("SPFRESULT",))),
        FakePlugin("look", ("mail", "rcpt")),
    )
    look = Plugin(mail=lambda s, sender: seen.append(s.exports), rcpt=lambda s, to: seen.append(s.exports))
    host = FakeHost({"spf": Plugin(mail=lambda *_: export("SPFRESULT", "pass")), "look": look})
    hooks = dispatcher_for(plugins, host).session(FACTS, FakeHolder())
    decision = run(hooks.run("mail", sender=SENDER, parameters={}))
    assert decision.exports == {"SPFRESULT": "pass"}
    rcpt(hooks)
    assert seen == [{"SPFRESULT": "pass"}] * 2


def test_credentials_go_to_auth_plugins_and_ok_comes_back():
    """auth: user and secret; deny becomes 535, defer 454 (RFC 4954 4)."""

    def auth(session: Any, user: str, secret: str) -> Any:
        return ok() if secret == "right" else deny("5.7.8", "no")

    hooks = chain(auth, hook="auth")
    assert run(hooks.run("auth", user="joe", secret="right")).ok
    reply = run(hooks.run("auth", user="joe", secret="wrong")).reply
    assert reply is not None
    assert (reply.code, reply.enhanced) == (535, "5.7.8")


def test_a_sandbox_is_to_hide_the_password_that_it_is_told():
    """Each of them, and before it is told: what it prints goes to the log without."""
    plugin = FakePlugin("p", ("auth", "mail"))
    host = FakeHost({"p": Plugin(auth=lambda *_: None, mail=lambda *_: None)}, (plugin,))
    hooks = dispatcher_for([plugin], host).session(FACTS, FakeHolder())
    for secret in ("one", "two"):
        run(hooks.run("auth", user="joe", secret=secret))
    run(hooks.run("mail", sender=SENDER, parameters={}))
    ((_, sandbox),) = host.taken
    assert records.passwords(sandbox.hidden) == ["one", "two"]


# --- hostile answers ------------------------------------------------------------------------------------


def answering(*answers: bytes) -> Broken:
    return Broken(answers)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b'{"n":{n}}'], "no piece"),
        ([b'{"n":{n},"piece":""}'], "no piece"),
        ([b'{"n":{n},"piece":"YWJjZA=="}'], "too many"),
        ([b'{"n":{n},"piece":"YWI="}', b'{"n":{n},"piece":"YWI="}'], "too many"),
        ([b'{"n":{n},"piece":"YWI=","verdict":{"do":"accept"}}'], "no piece"),
        ([b'{"n":{n},"piece":"!"}'], "base64"),
        ([b'{"n":{n},"error":"X: y"}'], "X: y"),
    ],
)
def test_a_body_that_does_not_come_as_announced(pieces: list[bytes], why: str, copies: FakeCopies):
    """Pieces are bounded by what is missing, and each brings some octets."""
    first = b'{"n":{n},"edits":[{"op":"replace_body","size":3}]}'
    decision = decide(chain(answering(first, *pieces)), copies)
    assert decision.reply is not None
    assert why in decision.records[0].detail
    assert (decision.body, copies.new_body) == (None, None)


def test_a_body_past_the_message_size_is_not_fetched(copies: FakeCopies):
    """limits.message_size holds for plugins too."""
    hooks = chain(answering(b'{"n":{n},"edits":[{"op":"replace_body","size":3000}]}'), message_size=2000)
    assert decide(hooks, copies).records[0].failure == "protocol"
    assert copies.asked == ["full"]


def test_no_room_for_a_body_is_overload(copies: FakeCopies):
    """The lack is ours: 451 4.3.2, whatever on_failure says."""
    copies.error = OSError(28, "no space")
    decision = decide(chain(saying(replace_body("x")), reads=()), copies)
    assert decision.reply is not None
    assert (decision.reply.code, decision.reply.enhanced) == (451, "4.3.2")


def test_a_breach_in_the_middle_of_an_answer_changes_nothing(copies: FakeCopies):
    """All or nothing: the edits before it in the same answer do not count either."""
    hooks = chain(saying(add_recipient("good@test.local"), add_recipient("bad@elsewhere.example")))
    decision = decide(hooks, copies)
    assert decision.reply is not None
    assert decision.add_recipients == ()


def test_edits_of_one_message_are_bounded_over_all_plugins():
    """Each header edit is looked for whenever the message goes out; added recipients multiply mail."""
    changes = Changes([BOB], lambda *_: True)
    some = changes.taken([AddHeader("X", "v")] * MAX_HEADER_EDITS, smtputf8=False)
    with pytest.raises(CallFailed, match="protocol"):
        some.taken([DeleteHeader("X", 0)], smtputf8=False)
    many = changes.taken(
        [AddRecipient(f"u{n}@test.local") for n in range(MAX_ADDED_RECIPIENTS)], smtputf8=False
    )
    assert len(many.added()) == MAX_ADDED_RECIPIENTS
    with pytest.raises(CallFailed, match="protocol"):
        many.taken([AddRecipient("one@test.local")], smtputf8=False)
    with pytest.raises(CallFailed, match="protocol"):
        changes.taken([AddHeader("X", "v" * 990)] * 133, smtputf8=False)


def test_many_edits_go_over_in_pages(copies: FakeCopies):
    """64 KiB a record: what several plugins added does not fit one frame."""
    seen: list[int] = []
    value = " ".join(["x" * 300] * 3)
    adding = saying(*[add_header("X-Big", value)] * 30)
    hooks = chain(adding, adding, adding, lambda s, e, m: seen.append(m.headers.count("X-Big")))
    assert decide(hooks, copies).reply is None
    assert seen == [90]


def test_utf8_in_a_header_only_with_smtputf8(copies: FakeCopies):
    """The SDK says so to the author; with SMTPUTF8 it goes through."""
    hooks = chain(saying(add_header("X-A", "grüße")))
    decision = decide(hooks, copies)
    assert "SMTPUTF8" in decision.records[0].detail
    hooks = chain(saying(add_header("X-A", "grüße")))
    hooks.reset()
    hooks.begin(SENDER, smtputf8=True)
    hooks.add_recipient(BOB)
    assert decide(hooks, copies).edits == (AddHeader("X-A", "grüße"),)


def test_exports_of_a_session_are_bounded():
    """They go over in one piece to every plugin."""
    names = tuple(f"N{n}" for n in range(65))
    plugin = FakePlugin("p", ("mail",), powers=Powers(export=names))
    host = FakeHost({"p": Plugin(mail=lambda *_: [export(name, "x") for name in names])})
    hooks = dispatcher_for([plugin], host).session(FACTS, FakeHolder())
    decision = run(hooks.run("mail", sender=SENDER, parameters={}))
    assert decision.records[0].failure == "protocol"
    assert decision.exports == {}


def test_changes_are_values():
    """What an answer makes of them leaves those before it as they were."""
    before = Changes([BOB, EVE], lambda *_: True).taken([AddRecipient("one@test.local")], smtputf8=False)
    after = before.taken([AddRecipient("two@test.local"), DeleteRecipient("eve@test.local")], smtputf8=False)
    assert before.added() == (Mailbox("one", "test.local"),)
    assert before.deleted() == ()
    assert after.deleted() == (EVE,)
