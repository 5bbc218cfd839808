"""Which plugins are asked, in which order, and what do their answers make of a command?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forkd.hooks.dispatcher import Decision, Dispatcher, SessionHooks
from forkd.hooks.facts import SessionFacts
from forkd.hooks.spec import HOOKS
from forkd.rpc.calls import AddHeader, CallFailed, Overloaded
from forkd.sdk import Plugin, accept, add_header, defer, deny, discard, disconnect
from forkd.smtp.address import Mailbox
from tests.support.fake_host import (
    Broken,
    FakeCopies,
    FakeHolder,
    FakeHost,
    FakePlugin,
    Limits,
    Powers,
    dispatcher_for,
    run,
)

FACTS = SessionFacts(id="S1", client_ip="192.0.2.1", client_port=4000, hostname="mx.example")
SENDER = Mailbox("a", "example.org")
RCPT = Mailbox("b", "test.local")
ARGS: dict[str, dict[str, Any]] = {
    "helo": {"name": "client.example", "extended": True},
    "mail": {"sender": SENDER, "parameters": {}, "size": None, "body": "7BIT"},
    "rcpt": {"recipient": RCPT, "parameters": {}},
}
BEFORE_COMMIT = ("connect", "helo", "mail", "rcpt", "data", "message")


@pytest.fixture
def copies() -> Iterator[FakeCopies]:
    made = FakeCopies()
    yield made
    made.close()


def everywhere(answer: Any) -> Plugin:
    return Plugin(**{hook: lambda *_: answer for hook in HOOKS})


def dispatcher(*plugins: FakePlugin, host: FakeHost | None = None, **settings: Any) -> Dispatcher:
    settings.setdefault("routable", lambda local, domain: domain == "test.local")
    return dispatcher_for(plugins, host or FakeHost({}), **settings)


def session(*plugins: FakePlugin, host: FakeHost) -> SessionHooks:
    return dispatcher(*plugins, host=host).session(FACTS, FakeHolder())


def ask(hooks: SessionHooks, hook: str, copies: FakeCopies | None = None) -> Decision:
    return run(hooks.run(hook, message=copies if hook == "message" else None, **ARGS.get(hook, {})))


def one(behaviour: Plugin | Broken, **config: Any) -> tuple[SessionHooks, FakeHost]:
    """A session with the single plugin `p` that has every hook."""
    plugin = FakePlugin("p", tuple(HOOKS), **config)
    host = FakeHost({"p": behaviour}, (plugin,))
    return session(plugin, host=host), host


def test_only_registered_hooks_are_wanted():
    """A hook that no plugin has costs no call at all (README, One message)."""
    made = dispatcher(FakePlugin("p", ("mail",)))
    assert made.wants("mail")
    assert not made.wants("rcpt")


def test_a_session_that_reaches_no_hook_takes_no_sandbox():
    """The session takes a sandbox the first time it reaches a hook of that plugin (sandbox.md)."""
    plugin = FakePlugin("p", ("mail",))
    host = FakeHost({"p": Plugin(mail=lambda *_: None)})
    hooks = session(plugin, host=host)
    ask(hooks, "helo")
    hooks.update(helo="x")
    hooks.begin(SENDER)
    hooks.close()
    assert host.taken == []


@pytest.mark.parametrize("hook", BEFORE_COMMIT)
def test_no_opinion_lets_the_command_go_on(hook: str, copies: FakeCopies):
    """None: the next plugin is asked, then the command goes on."""
    hooks, _ = one(everywhere(None))
    decision = ask(hooks, hook, copies)
    assert (decision.reply, decision.discard, decision.edits, decision.close) == (None, False, (), False)
    assert [(r.plugin, r.hook, r.verdict, r.failure) for r in decision.records] == [("p", hook, "none", "")]


@pytest.mark.parametrize(
    ("hook", "verdict", "reply"),
    [
        ("connect", deny("5.7.1", "no"), b"554 5.7.1 no\r\n"),
        *((h, deny("5.7.1", "no", code=553), b"553 5.7.1 no\r\n") for h in BEFORE_COMMIT[1:]),
        ("connect", defer("4.7.1", "later"), b"421 4.7.1 later\r\n"),
        *((h, defer("4.7.1", "later", code=450), b"450 4.7.1 later\r\n") for h in BEFORE_COMMIT[1:]),
        *((h, disconnect("4.7.0", "bye"), b"421 4.7.0 bye\r\n") for h in BEFORE_COMMIT),
    ],
)
def test_verdict_becomes_the_reply_of_its_hook(hook: str, verdict: Any, reply: bytes, copies: FakeCopies):
    """The table of verdicts in plugins.md."""
    hooks, _ = one(everywhere(verdict))
    decision = ask(hooks, hook, copies)
    assert decision.reply is not None
    assert decision.reply.encode() == reply
    assert decision.close == reply.startswith(b"421")


def test_first_verdict_ends_the_hook():
    """Order is the admin's; the first answer that is not None ends the hook."""
    plugins = [FakePlugin(name, ("mail",), powers=Powers(accept=True)) for name in ("a", "b", "c")]
    behaviours = {
        "a": Plugin(mail=lambda *_: None),
        "b": Plugin(mail=lambda *_: accept()),
        "c": Plugin(mail=lambda *_: deny("5.7.1", "no")),
    }
    host = FakeHost(behaviours)
    decision = ask(session(*plugins, host=host), "mail")
    assert decision.reply is None
    assert [(r.plugin, r.verdict) for r in decision.records] == [("a", "none"), ("b", "accept")]
    assert host.sandboxes("c") == []


@pytest.mark.parametrize("hook", ["rcpt", "data", "message"])
def test_discard_goes_on_without_effect(hook: str, copies: FakeCopies):
    """250, and the recipient or the message is dropped."""
    hooks, _ = one(everywhere(discard()), powers=Powers(discard=True))
    decision = ask(hooks, hook, copies)
    assert decision.reply is None
    assert decision.discard


def test_edits_add_up_and_later_plugins_see_them(copies: FakeCopies):
    """Edits of all plugins are kept in order; the next plugin sees the edited message."""
    seen: list[list[str]] = []

    def second(session: Any, envelope: Any, message: Any) -> Any:
        seen.append(message.headers.get_all("X-A"))
        return add_header("X-B", "2")

    plugins = tuple(
        FakePlugin(name, ("message",), powers=Powers(edit_headers=("x-*",)), reads=("headers",))
        for name in ("first", "second")
    )
    both = [add_header("X-A", "1"), add_header("X-A", "0")]
    host = FakeHost({"first": Plugin(message=lambda *_: both), "second": Plugin(message=second)}, plugins)
    decision = ask(session(*plugins, host=host), "message", copies)
    assert decision.edits == (AddHeader("X-A", "1"), AddHeader("X-A", "0"), AddHeader("X-B", "2"))
    assert seen == [["1", "0"]]


def test_edits_of_a_refused_message_are_dropped(copies: FakeCopies):
    """5xx to the end of data: nothing is kept, so nothing is edited."""
    both = [add_header("X-A", "1"), deny("5.7.1", "no")]
    hooks, _ = one(everywhere(both), powers=Powers(edit_headers=("*",)))
    decision = ask(hooks, "message", copies)
    assert decision.reply is not None
    assert decision.edits == ()


@pytest.mark.parametrize(
    ("on_failure", "hook", "reply"),
    [
        *(("disconnect", h, b"421 4.3.0 ") for h in BEFORE_COMMIT),
        ("defer", "connect", b"421 4.3.0 "),
        *(("defer", h, b"451 4.3.0 ") for h in BEFORE_COMMIT[1:]),
        ("deny", "connect", b"554 5.3.0 "),
        *(("deny", h, b"550 5.3.0 ") for h in BEFORE_COMMIT[1:]),
        *(("skip", h, None) for h in BEFORE_COMMIT),
    ],
)
def test_failure_is_answered_as_the_admin_says(
    on_failure: str, hook: str, reply: bytes | None, copies: FakeCopies
):
    """on_failure: disconnect, defer, deny, skip (plugins.md)."""
    hooks, host = one(Broken(CallFailed("crash", "signal 11")), on_failure=on_failure)
    decision = ask(hooks, hook, copies)
    assert (decision.reply.encode()[:10] if decision.reply else None) == reply
    [record] = decision.records
    assert (record.failure, record.detail, record.output) == ("crash", "signal 11", "last words")
    assert record.verdict == ("none" if on_failure == "skip" else on_failure)
    assert host.sandboxes("p")[0].closed


def test_failure_reply_names_the_session_and_nothing_else():
    """The client learns neither the plugin's name nor its error (README, principle 9)."""
    hooks, _ = one(Broken(CallFailed("exception", "secret")))
    reply = ask(hooks, "mail").reply
    assert reply is not None
    assert b"(session S1)" in reply.encode()
    assert b"secret" not in reply.encode()


def test_skipped_failure_asks_the_next_plugin():
    """skip: treated as no opinion, never silent."""
    plugins = (FakePlugin("p", ("mail",), on_failure="skip"), FakePlugin("q", ("mail",)))
    host = FakeHost({"p": Broken(CallFailed("cpu")), "q": Plugin(mail=lambda *_: deny("5.7.1", "no"))})
    decision = ask(session(*plugins, host=host), "mail")
    assert decision.reply is not None
    assert decision.reply.code == 550
    assert [r.failure for r in decision.records] == ["cpu", ""]


def test_failed_plugin_is_not_asked_again_in_its_session():
    """A fresh sandbox would not know the earlier hooks: crashing a check would be a way around it."""
    hooks, host = one(Broken(CallFailed("deadline"), at="mail"), on_failure="defer")
    first, second = ask(hooks, "mail"), ask(hooks, "rcpt")
    assert first.reply is not None
    assert second.reply is not None
    assert second.reply.code == 451
    assert second.records[0].failure == "failed earlier"
    assert len(host.taken) == 1


@pytest.mark.parametrize("on_failure", ["disconnect", "deny", "skip"])
@pytest.mark.parametrize(("hook", "reply"), [("mail", b"451 4.3.2 "), ("connect", b"421 4.3.2 ")])
def test_overload_is_always_temporary(on_failure: str, hook: str, reply: bytes):
    """Overload is always 451 4.3.2 (plugins.md): never a skipped check, never a 5xx."""
    hooks, host = one(everywhere(None), on_failure=on_failure)
    host.full = True
    decision = ask(hooks, hook)
    assert decision.reply is not None
    assert decision.reply.encode().startswith(reply)
    assert decision.records[0].failure == "overload"


def test_overload_does_not_break_the_plugin_for_the_session():
    """Nothing has failed: the next command may find a sandbox."""
    hooks, host = one(everywhere(None))
    host.full = True
    ask(hooks, "mail")
    host.full = False
    assert ask(hooks, "mail").reply is None


@pytest.mark.parametrize("error", [Overloaded("budget"), OSError(24, "too many files")])
def test_missing_message_copy_is_overload(error: Exception, copies: FakeCopies):
    """The lack is ours: 451 4.3.2, and the plugin has not failed."""
    copies.error = error
    hooks, host = one(everywhere(None), reads=("body",), on_failure="skip")
    decision = ask(hooks, "message", copies)
    assert decision.reply is not None
    assert (decision.reply.code, decision.reply.enhanced) == (451, "4.3.2")
    assert host.taken == []


@pytest.mark.parametrize(
    ("reads", "copy"),
    [((), []), (("envelope",), []), (("headers",), ["headers"]), (("headers", "body"), ["full"])],
)
def test_plugin_gets_no_more_of_the_message_than_it_may_read(
    reads: tuple[str, ...], copy: list[str], copies: FakeCopies
):
    """reads: without `body` the descriptor holds the header alone; without both there is none."""
    hooks, host = one(everywhere(None), reads=reads)
    ask(hooks, "message", copies)
    assert copies.asked == copy
    assert (host.sandboxes("p")[0].fds == [-1]) == (not copy)


def test_reads_message_tells_the_worker_what_to_keep():
    """Only plugins with the message hook read a message."""
    message, mail = (
        FakePlugin("a", ("message",), reads=("headers",)),
        FakePlugin("b", ("mail",), reads=("body",)),
    )
    assert dispatcher(message, mail).reads_message == "headers"
    assert dispatcher(mail).reads_message == ""


def test_message_hook_has_its_own_time_limit(copies: FakeCopies):
    """timeout for each call, message_timeout for `message` (plugins.md, limits)."""
    hooks, host = one(everywhere(None), limits=Limits(timeout=3.0, message_timeout=7.0))
    ask(hooks, "mail")
    ask(hooks, "message", copies)
    assert host.sandboxes("p")[0].timeouts == [3.0, 7.0]


def test_disconnect_is_told_to_plugins_that_saw_the_session():
    """A sandbox is not forked to say goodbye to a stranger."""
    plugins = (FakePlugin("seen", ("mail", "disconnect")), FakePlugin("stranger", ("rcpt", "disconnect")))
    host = FakeHost({"seen": everywhere(None), "stranger": everywhere(None)})
    hooks = session(*plugins, host=host)
    ask(hooks, "mail")
    decision = ask(hooks, "disconnect")
    assert [r.plugin for r in decision.records] == ["seen"]
    assert [name for name, _ in host.taken] == ["seen"]


def test_disconnect_answers_nothing():
    """Nobody is there to be refused: a verdict is a breach, a failure has no reply."""
    hooks, _ = one(Plugin(mail=lambda *_: None, disconnect=lambda *_: deny("5.7.1", "no")))
    ask(hooks, "mail")
    decision = ask(hooks, "disconnect")
    assert decision.reply is None
    assert decision.records[0].failure == "protocol"


def test_close_lets_go_of_every_sandbox():
    """Session over: the worker drops channel and leash."""
    hooks, host = one(everywhere(None))
    ask(hooks, "mail")
    hooks.close()
    hooks.close()
    assert [(sandbox.released, sandbox.closed) for _, sandbox in host.taken] == [(True, False)]


def test_plugins_of_a_session_share_nothing():
    """Each plugin has its own sandbox and its own numbering."""
    plugins = (FakePlugin("a", ("mail",)), FakePlugin("b", ("mail", "rcpt")))
    host = FakeHost({"a": everywhere(None), "b": everywhere(None)})
    hooks = session(*plugins, host=host)
    ask(hooks, "mail")
    ask(hooks, "rcpt")
    assert [(name, [f["n"] for f in s.frames]) for name, s in host.taken] == [("a", [1]), ("b", [1, 2])]


def test_record_fits_a_log_line():
    """name/hook=verdict, the cause of a failure, milliseconds."""
    hooks, _ = one(Broken(CallFailed("crash")))
    text = ask(hooks, "mail").records[0].short()
    assert text.startswith("p/mail=disconnect!crash ")
    assert text.endswith("ms")
