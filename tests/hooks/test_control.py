"""How long, how often, for whom is a plugin asked, and in whose sandbox?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest

from forkd.hooks.asking import KEPT_BYTES
from forkd.hooks.dispatcher import Decision, Dispatcher, PluginRecord, SessionHooks
from forkd.hooks.facts import SessionFacts
from forkd.rpc.calls import AddHeader, CallFailed
from forkd.sdk import (
    Plugin,
    add_header,
    deny,
    export,
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
    FakeObserver,
    FakePlugin,
    Limits,
    Scope,
    dispatcher_for,
    run,
)

FACTS = SessionFacts(id="S1", client_ip="192.0.2.1", client_port=4000, listener="mx")
SENDER, RCPT = Mailbox("a", "example.org"), Mailbox("b", "test.local")
READS = ("envelope", "headers", "body")
CALL = Limits(fresh="call")


@pytest.fixture
def copies() -> Iterator[FakeCopies]:
    made = FakeCopies()
    yield made
    made.close()


def dispatcher(*plugins: FakePlugin, host: FakeHost, **settings: Any) -> Dispatcher:
    return dispatcher_for(plugins, host, **settings)


def ask(hooks: SessionHooks, hook: str, copies: FakeCopies | None = None, **arguments: Any) -> Decision:
    defaults: dict[str, Any] = {
        "helo": {"name": "c.example", "extended": True},
        "mail": {"sender": SENDER, "parameters": {}},
        "rcpt": {"recipient": RCPT, "parameters": {}},
    }.get(hook, {})
    return run(hooks.run(hook, message=copies if hook == "message" else None, **(defaults | arguments)))


# --- fresh = "call" ---------------------------------------------------------------------------------------


def test_each_call_has_a_sandbox_of_its_own(copies: FakeCopies):
    """fresh = "call": nothing is kept between hooks, and a sandbox is let go with its answer."""
    told: list[Any] = []

    def mail(session: Any, sender: Any) -> None:
        session.notes["kept"] = True

    def message(session: Any, envelope: Any, message: Any) -> Any:
        told.append((dict(session.notes), session.helo, str(envelope.sender), len(envelope.recipients)))
        return replace_body("new\n")

    plugin = FakePlugin("p", ("mail", "message"), limits=CALL, reads=READS, powers=EVERY_POWER)
    host = FakeHost({"p": Plugin(mail=mail, message=message)}, (plugin,))
    hooks = dispatcher(plugin, host=host).session(FACTS, FakeHolder())
    hooks.update(helo="c.example")
    ask(hooks, "mail")
    assert [(s.released, s.closed) for s in host.sandboxes("p")] == [(True, False)]
    hooks.begin(SENDER)
    hooks.add_recipient(RCPT)
    assert ask(hooks, "message", copies).body == b"new\r\n"
    assert told == [({}, "c.example", "a@example.org", 1)]
    assert [(s.released, [f["n"] for f in s.frames]) for s in host.sandboxes("p")] == [
        (True, [1]),
        (True, [1, 2]),
    ]


def test_one_sandbox_serves_a_session_otherwise():
    """fresh = "session", the default: one sandbox for all hooks, let go at the end."""
    plugin = FakePlugin("p", ("mail", "rcpt"))
    host = FakeHost({"p": Plugin(mail=lambda *_: None, rcpt=lambda *_: None)})
    hooks = dispatcher(plugin, host=host).session(FACTS, FakeHolder())
    ask(hooks, "mail")
    ask(hooks, "rcpt")
    [sandbox] = host.sandboxes("p")
    assert not sandbox.released
    hooks.close()
    assert (sandbox.released, sandbox.closed) == (True, False)


@pytest.mark.parametrize("fresh", ["session", "call"])
def test_failed_sandbox_is_killed_and_the_plugin_not_asked_again(fresh: str):
    """Never released: whoever crashed must not serve anybody else; the session alone feels it."""
    plugin = FakePlugin("p", ("mail", "rcpt"), limits=Limits(fresh=fresh), on_failure="defer")
    host = FakeHost({"p": Broken(CallFailed("crash"))})
    hooks = dispatcher(plugin, host=host).session(FACTS, FakeHolder())
    ask(hooks, "mail")
    assert ask(hooks, "rcpt").records[0].failure == "failed earlier"
    hooks.close()
    [sandbox] = host.sandboxes("p")
    assert (sandbox.released, sandbox.closed) == (False, True)


def test_disconnect_has_a_sandbox_too():
    """A plugin with fresh = "call" hears of the end as it heard of the rest: in a new sandbox."""
    plugin = FakePlugin("p", ("mail", "disconnect"), limits=CALL)
    host = FakeHost({"p": Plugin(mail=lambda *_: None, disconnect=lambda *_: None)})
    hooks = dispatcher(plugin, host=host).session(FACTS, FakeHolder())
    assert ask(hooks, "disconnect").records == ()
    ask(hooks, "mail")
    assert [record.failure for record in ask(hooks, "disconnect").records] == [""]
    assert len(host.sandboxes("p")) == 2


# --- reuse ------------------------------------------------------------------------------------------------


def test_nothing_of_a_session_is_within_reach_of_the_next(copies: FakeCopies):
    """reuse > 1: facts, notes, exports, envelope and edits of session A are not in B's objects."""
    seen: list[Any] = []

    def mail(session: Any, sender: Any) -> Any:
        session.notes["sender"] = str(sender)
        return export("NOTE", "secret")

    def rcpt(session: Any, to: Any) -> Any:
        seen.append({name: getattr(session, name) for name in session.__slots__ if name != "envelope"})
        seen.append((str(session.envelope.sender), [str(r) for r in session.envelope.recipients]))
        return rewrite("other@test.local")

    def message(session: Any, envelope: Any, message: Any) -> Any:
        seen.append((list(message.headers), message.body))
        return [add_header("X-Secret", "a"), replace_body("secret\n")]

    plugin = FakePlugin("p", ("mail", "rcpt", "message"), reads=READS, powers=EVERY_POWER)
    member = Plugin(mail=mail, rcpt=rcpt, message=message)
    for behaviour in (member, (member, Plugin(mail=lambda *_: None))):
        host = FakeHost({"p": behaviour}, (plugin,), reuse=True)
        made = dispatcher(plugin, host=host)
        first = made.session(FACTS, FakeHolder())
        first.update(helo="a.example", user="alice", tls_version="TLSv1.3")
        ask(first, "mail")
        first.begin(SENDER)
        ask(first, "rcpt")
        first.add_recipient(Mailbox("other", "test.local"))
        assert ask(first, "message", copies).reply is None
        first.close()
        seen.clear()
        copies = FakeCopies()
        second = made.session(SessionFacts(id="S2", client_ip="198.51.100.9", client_port=1), FakeHolder())
        ask(second, "rcpt")
        ask(second, "message", copies)
        facts, envelope, read = seen
        copies.close()
        assert host.sandboxes("p")[0].runner is host.sandboxes("p")[1].runner
        assert (facts["id"], facts["client_ip"], facts["client_port"]) == ("S2", "198.51.100.9", 1)
        assert {
            name: value for name, value in facts.items() if value and not name.startswith(("id", "client_"))
        } == {}
        assert envelope == ("", [])
        assert read == (["Subject"], b"the body\r\n")


def test_first_frame_of_a_session_says_so():
    """`new`: a runner that has served before forgets; later frames do not say it."""
    plugin = FakePlugin("p", ("mail", "rcpt"))
    host = FakeHost({"p": Plugin(mail=lambda *_: None, rcpt=lambda *_: None)})
    hooks = dispatcher(plugin, host=host).session(FACTS, FakeHolder())
    ask(hooks, "mail")
    ask(hooks, "rcpt")
    assert [frame.get("new") for frame in host.sandboxes("p")[0].frames] == [True, None]


# --- groups -----------------------------------------------------------------------------------------------


def test_members_of_a_group_are_asked_in_order_in_one_round_trip(copies: FakeCopies):
    """One sandbox, one frame for each hook; a later member sees the work of the ones before."""
    seen: list[Any] = []

    def first(session: Any, envelope: Any, message: Any) -> Any:
        session.notes["mine"] = 1
        return [add_header("X-A", "1"), replace_body("new\n"), export("NOTE", "x")]

    def second(session: Any, envelope: Any, message: Any) -> Any:
        seen.append((message.headers.get("X-A"), message.body, session.exports, session.notes))
        return replace_body("newer\n")

    members = (Plugin(message=first), Plugin(mail=lambda *_: None), Plugin(message=second))
    group = FakePlugin("group", ("mail", "message"), reads=READS, powers=EVERY_POWER)
    host = FakeHost({"group": members}, (group,))
    hooks = dispatcher(group, host=host).session(FACTS, FakeHolder())
    decision = ask(hooks, "message", copies)
    assert seen == [("1", b"new\r\n", {"NOTE": "x"}, {})]
    assert (decision.edits, decision.body) == ((AddHeader("X-A", "1"),), b"newer\r\n")
    assert [frame["hook"] for frame in host.sandboxes("group")[0].frames] == ["message", "body"]


def test_the_member_that_had_the_verdict_is_named():
    """The first verdict ends the hook for the group too; `by` says whose it was."""
    members = [
        Plugin(rcpt=lambda s, to: rewrite("new@test.local")),
        Plugin(rcpt=lambda s, to: deny("5.7.1", f"not {to}")),
        Plugin(rcpt=lambda s, to: 1 / 0),
    ]
    for member, name in zip(members, ("one", "two", "three"), strict=True):
        member.name = name
    group = FakePlugin("group", ("rcpt",), powers=EVERY_POWER)
    hooks = dispatcher(group, host=FakeHost({"group": members})).session(FACTS, FakeHolder())
    decision = ask(hooks, "rcpt")
    assert decision.reply is not None
    assert decision.reply.lines == ("not new@test.local",)
    assert (decision.records[0].plugin, decision.records[0].by) == ("group", "two")
    assert decision.records[0].short().startswith("group.two/rcpt=deny+1 ")


def test_a_failing_member_is_the_groups_failure():
    """Their limits and failures are the group's."""
    members = (Plugin(mail=lambda *_: None), Plugin(mail=lambda *_: 1 / 0))
    group = FakePlugin("group", ("mail",), on_failure="defer")
    decision = ask(dispatcher(group, host=FakeHost({"group": members})).session(FACTS, FakeHolder()), "mail")
    assert decision.reply is not None
    assert (decision.reply.code, decision.records[0].failure) == (451, "exception")


# --- time -------------------------------------------------------------------------------------------------


def test_session_time_is_the_plugins_in_that_session():
    """All its calls together; used up, it has failed: "deadline"."""
    plugin = FakePlugin("p", ("mail", "rcpt"), limits=Limits(session_time=1e-9), on_failure="defer")
    host = FakeHost({"p": Plugin(mail=lambda *_: None, rcpt=lambda *_: None)})
    made = dispatcher(plugin, host=host)
    hooks = made.session(FACTS, FakeHolder())
    assert ask(hooks, "mail").reply is None
    decision = ask(hooks, "rcpt")
    assert decision.reply is not None
    assert decision.records[0].failure == "deadline"
    assert host.sandboxes("p")[0].timeouts == [1e-9]
    assert ask(made.session(FACTS, FakeHolder()), "mail").reply is None


@pytest.mark.parametrize(("session_time", "told"), [(3.0, "its 3 s for one session"), (100.0, "late")])
def test_the_log_names_the_limit_that_ended_a_call(session_time: float, told: str):
    """`no answer within 0.195 s` would leave an admin to search for a limit of 0.195 s."""
    plugin = FakePlugin("p", ("mail",), limits=Limits(session_time=session_time))
    host = FakeHost({"p": Broken(CallFailed("deadline", "late"))})
    decision = ask(dispatcher(plugin, host=host).session(FACTS, FakeHolder()), "mail")
    assert decision.records[0].failure == "deadline"
    assert decision.records[0].detail.startswith(told)


def test_plugins_not_asked_within_the_messages_budget_are_overload(copies: FakeCopies):
    """message_budget: wall time of all plugins on one message; 451 4.3.2, and nobody has failed."""
    plugin = FakePlugin("p", ("message",), on_failure="deny")
    host = FakeHost({"p": Plugin(message=lambda *_: None)})
    hooks = dispatcher(plugin, host=host, message_budget_s=0.0).session(FACTS, FakeHolder())
    decision = ask(hooks, "message", copies)
    assert decision.reply is not None
    assert (decision.reply.code, decision.reply.enhanced) == (451, "4.3.2")
    assert host.taken == []


@pytest.mark.parametrize(
    ("budget_s", "code", "later"), [(1.0, 451, "overload"), (100.0, 550, "failed earlier")]
)
def test_a_call_that_the_budget_ends_is_overload_too(
    budget_s: float, code: int, later: str, copies: FakeCopies
):
    """Its own time was not over: not its fault. Its sandbox is gone all the same."""
    plugin = FakePlugin("p", ("message",), on_failure="deny")
    host = FakeHost({"p": Broken(CallFailed("deadline", "late"))})
    hooks = dispatcher(plugin, host=host, message_budget_s=budget_s).session(FACTS, FakeHolder())
    decision = ask(hooks, "message", copies)
    assert decision.reply is not None
    assert decision.reply.code == code
    assert host.sandboxes("p")[0].timeouts[0] <= budget_s
    assert host.sandboxes("p")[0].closed
    assert ask(hooks, "message", copies).records[0].failure == later


@pytest.mark.parametrize("on_failure", ["deny", "skip"])
def test_who_lost_its_sandbox_to_the_budget_has_not_failed_at_the_next_mail_either(
    on_failure: str, copies: FakeCopies
):
    """Overload is 451 4.3.2 for the rest of the session: no mail is refused for good, or passes unasked."""
    plugin = FakePlugin("p", ("mail", "message"), on_failure=on_failure)
    host = FakeHost({"p": Broken(CallFailed("deadline", "late"), at="message")})
    hooks = dispatcher(plugin, host=host, message_budget_s=1.0).session(FACTS, FakeHolder())
    ask(hooks, "mail")
    ask(hooks, "message", copies)
    for hook in ("mail", "message"):
        decision = ask(hooks, hook, copies)
        assert decision.reply is not None
        assert (decision.reply.code, decision.reply.enhanced) == (451, "4.3.2")
        assert decision.records[0].failure == "overload"
    assert len(host.taken) == 1


class Unborn(FakeHost):
    """No sandbox is made within the time of a call."""

    async def take(self, *args: Any, **named: Any) -> Any:
        sandbox = await super().take(*args, **named)

        async def call(*_: Any, timeout_s: float, **__: Any) -> None:
            until = perf_counter() + timeout_s
            while perf_counter() < until:
                pass
            sandbox.untaken = True
            raise CallFailed("unavailable", "its zygote made no sandbox")

        sandbox.call = call
        return sandbox


@pytest.mark.parametrize(
    ("limits", "budget_s", "cause", "breaker"),
    [
        (Limits(timeout=0.01, message_timeout=0.01), 100.0, "unavailable", [("p", "open")]),
        (Limits(session_time=0.01), 100.0, "deadline", []),
        (Limits(), 0.05, "overload", []),
    ],
    ids=["own", "session", "budget"],
)
def test_a_deadline_shorter_than_the_plugins_own_is_no_word_on_its_zygote(
    limits: Limits, budget_s: float, cause: str, breaker: list[tuple[str, str]], copies: FakeCopies
):
    """One client could leave so little of its time that no sandbox is made in it, twice."""
    plugin = FakePlugin("p", ("message",), limits=limits)
    observer = FakeObserver()
    made = dispatcher(plugin, host=Unborn({"p": Plugin()}), observer=observer, message_budget_s=budget_s)
    for _ in range(2):
        decision = ask(made.session(FACTS, FakeHolder()), "message", copies)
        assert decision.records[0].failure == cause
    assert observer.changes == breaker


def test_a_zygote_that_is_gone_is_unavailable_whatever_limits_the_call():
    """Told before any deadline."""
    plugin = FakePlugin("p", ("mail",), limits=Limits(session_time=3.0))
    host = FakeHost({"p": Broken(CallFailed("unavailable", "gone"))})
    decision = ask(dispatcher(plugin, host=host).session(FACTS, FakeHolder()), "mail")
    assert decision.records[0].failure == "unavailable"


# --- scope ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        (Scope(), True),
        (Scope(listeners=("mx",)), True),
        (Scope(listeners=("submission", "mx")), True),
        (Scope(listeners=("submission",)), False),
        (Scope(networks=("192.0.2.0/24",)), True),
        (Scope(networks=("192.0.2.1",)), True),
        (Scope(networks=("2001:db8::/32", "198.51.100.0/24")), False),
        (Scope(listeners=("mx",), networks=("198.51.100.0/24",)), False),
        (Scope(listeners=("submission",), networks=("192.0.2.0/24",)), False),
    ],
)
def test_scope_by_listener_and_network(scope: Scope, asked: bool):
    """What is empty matches everything; what is given must all match. Holds from `connect` on."""
    plugin = FakePlugin("p", ("connect", "mail", "disconnect"), scope=scope)
    behaviour = Plugin(connect=lambda *_: None, mail=lambda *_: None, disconnect=lambda *_: None)
    hooks = dispatcher(plugin, host=FakeHost({"p": behaviour})).session(FACTS, FakeHolder())
    for hook in ("connect", "mail", "disconnect"):
        assert bool(ask(hooks, hook).records) is asked


def test_scope_follows_a_client_whose_address_changed():
    """XCLIENT: the session goes on for another client."""
    plugin = FakePlugin("p", ("mail",), scope=Scope(networks=("198.51.100.0/24",)))
    hooks = dispatcher(plugin, host=FakeHost({"p": Plugin(mail=lambda *_: None)})).session(
        FACTS, FakeHolder()
    )
    assert ask(hooks, "mail").records == ()
    hooks.update(client_ip="198.51.100.7")
    assert ask(hooks, "mail").records != ()


ALL_HOOKS = ("connect", "helo", "mail", "rcpt", "data", "message")


@pytest.mark.parametrize(
    ("domain", "hooks_asked"),
    [("test.local", ["rcpt", "data", "message"]), ("other.local", []), ("xn--bcher-kva.local", [])],
)
def test_scope_by_recipients_domain(domain: str, hooks_asked: list[str], copies: FakeCopies):
    """At rcpt for matching ones, at data and message if an accepted one matches, at no earlier hook."""
    plugin = FakePlugin("p", ALL_HOOKS, scope=Scope(domains=("test.local",)))
    behaviour = Plugin(**{hook: lambda *_: None for hook in ALL_HOOKS})
    made = dispatcher(plugin, host=FakeHost({"p": behaviour}))
    assert [hook for hook in ALL_HOOKS if made.wants(hook)] == ["rcpt", "data", "message"]
    hooks = made.session(FACTS, FakeHolder())
    assert made.keeps_envelope
    asked = []
    for hook in ALL_HOOKS:
        to = Mailbox("b", domain)
        if ask(hooks, hook, copies, **({"recipient": to} if hook == "rcpt" else {})).records:
            asked.append(hook)
        if hook == "rcpt":
            hooks.add_recipient(to)
    assert asked == hooks_asked


def test_one_matching_recipient_among_others_suffices(copies: FakeCopies):
    """The message is asked about once, whoever else gets it; U-labels are the same domain."""
    plugin = FakePlugin("p", ("message",), scope=Scope(domains=("xn--bcher-kva.local",)))
    hooks = dispatcher(plugin, host=FakeHost({"p": Plugin(message=lambda *_: None)})).session(
        FACTS, FakeHolder()
    )
    hooks.add_recipient(RCPT)
    assert ask(hooks, "message", copies).records == ()
    hooks.add_recipient(Mailbox("c", "bücher.local"))
    assert ask(hooks, "message", copies).records != ()
    hooks.reset()
    hooks.add_recipient(RCPT)
    assert ask(hooks, "message", copies).records == ()


# --- sharing ----------------------------------------------------------------------------------------------


def test_the_host_is_told_whose_share_a_sandbox_is():
    """network: the client's, or nobody's for a trusted one; evict: the session's own."""
    plugin = FakePlugin("p", ("mail",))
    host = FakeHost({"p": Plugin(mail=lambda *_: None)})
    made = dispatcher(plugin, host=host)
    ask(made.session(FACTS, FakeHolder("192.0.2.0/24")), "mail")
    ask(made.session(FACTS, FakeHolder("")), "mail")
    assert host.networks == ["192.0.2.0/24", ""]


def test_a_call_under_way_is_cut_off_and_its_sandbox_killed():
    """The client has gone in the middle of a call: nobody else may get that sandbox."""

    class Waiting(FakeHost):
        async def take(self, *args: Any, **named: Any) -> Any:
            sandbox = await super().take(*args, **named)

            async def call(*_: Any, **__: Any) -> None:
                await _Never()

            sandbox.call = call
            return sandbox

    class _Never:
        def __await__(self) -> Iterator[None]:
            yield

    plugin = FakePlugin("p", ("mail",))
    host = Waiting({"p": Plugin(mail=lambda *_: None)})
    hooks = dispatcher(plugin, host=host).session(FACTS, FakeHolder())
    asking = hooks.run("mail", sender=SENDER, parameters={})
    asking.send(None)
    hooks.close()
    asking.close()
    [sandbox] = host.sandboxes("p")
    assert (sandbox.released, sandbox.closed) == (False, True)


# --- what a failure leaves ------------------------------------------------------------------------------


def failed(*, keep_frames: bool, calls: int = 2, sender: Mailbox | None = None) -> PluginRecord:
    """The record of the plugin's failure at `rcpt`, after so many calls at `mail`."""
    plugin = FakePlugin("p", ("mail", "rcpt"))
    host = FakeHost({"p": Broken(CallFailed("crash", "SIGSEGV"), at="rcpt")}, (plugin,))
    hooks = dispatcher(plugin, host=host, keep_frames=keep_frames).session(FACTS, FakeHolder())
    for _ in range(calls):
        run(hooks.run("mail", sender=sender, parameters={}))
    [record] = run(hooks.run("rcpt", recipient=Mailbox("b", "test.local"), parameters={})).records
    return record


def test_the_frames_of_a_failed_call_are_kept_where_asked_for():
    """crash.keep: from the first to the one that failed, for `forkd plugin replay`."""
    remains = failed(keep_frames=True).remains
    assert remains is not None
    frames = [json.loads(frame) for frame in remains.frames]
    assert [(frame["n"], frame["hook"]) for frame in frames] == [(1, "mail"), (2, "mail"), (3, "rcpt")]
    assert not remains.cut


def test_otherwise_nothing_is_kept():
    """What is not asked for costs nothing."""
    remains = failed(keep_frames=False).remains
    assert remains is not None
    assert remains.frames == ()


def test_of_many_frames_the_first_and_the_last_are_kept():
    """A session may be long; what it fills is bounded, and the record says that something is missing."""
    sender = Mailbox("x" * 20_000, "example.org")
    remains = failed(keep_frames=True, calls=40, sender=sender).remains
    assert remains is not None
    assert remains.cut
    assert sum(map(len, remains.frames)) <= KEPT_BYTES
    numbers = [json.loads(frame)["n"] for frame in remains.frames]
    assert (numbers[0], numbers[-1]) == (1, 41)
