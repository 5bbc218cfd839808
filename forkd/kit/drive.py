"""How does a session go, hook by hook, with what its client would see? As a worker walks through it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import msgspec

from forkd.hooks.breaker import Rule
from forkd.hooks.dispatcher import UNCHANGED, Decision, Dispatcher, PluginRecord, SessionFacts, SessionHooks
from forkd.hooks.given import SandboxHost
from forkd.kit.configured import DOMAINS, Given
from forkd.kit.letter import Letter
from forkd.kit.samples import Mail, Sample, SampleError
from forkd.kit.watch import Cost
from forkd.rpc.calls import AddHeader, ChangeHeader, HeaderEdit
from forkd.smtp import grammar, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply

_numbers: Final = itertools.count(1)


@dataclasses.dataclass(slots=True)
class Step:
    """What came of one hook.

    reply     what the client is sent, as text; of a hook that lets the command go on: what forkd itself says.
    refused   the client is refused: by the plugin, or by on_failure.
    changes   what the plugin made of mail and session, a line each.
    failure   cause and detail; empty: it answered.
    """

    hook: str
    argument: str
    reply: str
    refused: bool
    verdict: str
    changes: tuple[str, ...]
    cost: Cost
    failure: str = ""
    detail: str = ""
    output: str = ""
    close: bool = False


class Meter:
    """Adds up the calls of one hook; told by a WatchedHost."""

    def __init__(self) -> None:
        self._cost = Cost()

    def __call__(self, _frame: bytes, cost: Cost, _failure: str) -> None:
        self._cost.add(cost)

    def take(self) -> Cost:
        """What was spent since the last take()."""
        cost, self._cost = self._cost, Cost()
        return cost


def dispatcher(given: Given, host: SandboxHost) -> Dispatcher:
    """For one plugin: its mode is enforce, and no breaker opens: every failure is to be seen."""
    return Dispatcher(
        [msgspec.structs.replace(given.plugin, mode="enforce")],
        host,
        message_budget_s=float(given.config.sandbox.message_budget),
        message_size=given.config.limits.edited_size,
        routable=lambda _local, domain: domain in DOMAINS,
        observer=Nobody(),
        breaker=Rule(window_s=86_400.0, networks=1000),
    )


class Nobody:
    """Nobody who is to be told of breakers and shadows."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def breaker_changed(self, change: object) -> None:
        pass

    def shadow_answered(self, session: str, shadowed: object) -> None:
        pass

    def shadow_failed(self, session: str, record: object) -> None:
        pass

    def shadow_dropped(self, session: str, *, plugin: str, hook: str, why: str) -> None:
        pass


class Unhurried:
    """A session that nobody asks to give way."""

    network = ""

    def evict(self) -> bool:
        return False

    def in_mail(self) -> bool:
        return False


async def play(
    dispatcher: Dispatcher, sample: Sample, meter: Callable[[], Cost], *, power_auth: bool
) -> list[Step]:
    """Walk a session through all hooks that are wanted; it ends where the client would be turned away.

    meter       gives what was spent since it was asked before.
    power_auth  the plugin has the hook auth: the sample's login is shown to it.
    Raises      SampleError for an address in the sample that is none.
    """
    facts = SessionFacts(
        id=f"KIT{next(_numbers)}",
        hostname="mx.test.local",
        **{name: getattr(sample, name) for name in _FACTS},
    )
    session = _Session(dispatcher.session(facts, Unhurried()), dispatcher, meter)
    try:
        await _whole(session, sample, power_auth=power_auth)
        await session.ask("disconnect", "", ok="")
    finally:
        session.hooks.close()
    return session.steps


async def _whole(session: _Session, sample: Sample, *, power_auth: bool) -> None:
    if not await session.ask("connect", sample.client_ip, ok="220 greeting"):
        return
    if not await session.ask("helo", sample.helo, ok="250", name=sample.helo, extended=True):
        return
    session.hooks.update(helo=sample.helo, esmtp=True)
    if sample.auth is not None and power_auth:
        login = sample.auth
        step = await session.decide("auth", login.user, ok="235", user=login.user, secret=login.secret)
        if step.ok:
            session.hooks.update(user=login.user)
        elif step.reply is None:
            session.steps[-1].reply = "its users and passwords decide"
        if step.close:
            return
    for mail in sample.mail:
        if not await _transaction(session, mail):
            return


async def _transaction(session: _Session, mail: Mail) -> bool:
    """One mail; False: the session is over."""
    sender = mailbox(mail.sender) if mail.sender else None
    arguments = {"sender": sender, "parameters": mail.parameters, "body": mail.body}
    if not await session.ask(
        "mail", f"<{mail.sender}>", ok="250", size=len(mail.octets), smtputf8=mail.smtputf8, **arguments
    ):
        return not session.closed
    hooks = session.hooks
    hooks.begin(sender, smtputf8=mail.smtputf8)
    accepted = 0
    for text in mail.recipients:
        to = mailbox(text)
        decision = await session.decide("rcpt", f"<{text}>", ok="250", recipient=to, parameters={})
        if decision.close:
            return False
        if decision.reply is None:
            accepted += 1
            if not decision.discard:
                hooks.add_recipient(decision.recipient or to)
    if not accepted:
        hooks.reset()
        return True
    if not await session.ask("data", "", ok="354"):
        hooks.reset()
        return not session.closed
    letter = Letter(mail.octets)
    try:
        await session.ask("message", f"{letter.size} octets", ok="250 queued", message=letter)
    finally:
        letter.close()
    hooks.reset()
    return not session.closed


class _Session:
    def __init__(self, hooks: SessionHooks, dispatcher: Dispatcher, meter: Callable[[], Cost]) -> None:
        self.hooks = hooks
        self.steps: list[Step] = []
        self.closed = False
        self._dispatcher = dispatcher
        self._meter = meter

    async def ask(self, hook: str, argument: str, *, ok: str, **arguments: Any) -> bool:
        """True: the command goes on."""
        decision = await self.decide(hook, argument, ok=ok, **arguments)
        return decision.reply is None and not (decision.discard and hook == "data")

    async def decide(self, hook: str, argument: str, *, ok: str, **arguments: Any) -> Decision:
        if not self._dispatcher.wants(hook):
            return Decision()
        self._meter()
        decision = await self.hooks.run(hook, **arguments)
        self.closed = decision.close
        if decision.records:  # disconnect has none where no hook was reached
            body = arguments.get("message")
            self.steps.append(_step(hook, argument, ok=ok, decision=decision, cost=self._meter(), body=body))
        return decision


def _step(hook: str, argument: str, *, ok: str, decision: Decision, cost: Cost, body: Any) -> Step:
    record: PluginRecord = decision.records[-1]
    reply = decision.reply
    return Step(
        hook=hook,
        argument=argument,
        reply=ok if reply is None else _shown(reply),
        refused=reply is not None,
        verdict=record.verdict,
        changes=tuple(_changes(decision, body)),
        cost=cost,
        failure=record.failure,
        detail=record.detail,
        output=record.output,
        close=decision.close,
    )


def _shown(reply: Reply) -> str:
    """As one line, with what it does to the connection."""
    text = reply.encode(smtputf8=True).decode("utf-8", "replace").strip().replace("\r\n", " / ")
    return f"{text} (and closes)" if reply.close else text


def _changes(decision: Decision, letter: Letter | None) -> Iterator[str]:
    if decision.discard:
        yield "dropped behind a 250"
    if decision.quarantine:
        yield f"kept and not delivered: {decision.quarantine}"
    if decision.recipient is not None:
        yield f"recipient becomes <{decision.recipient}>"
    for edit in decision.edits:
        yield _edit(edit)
    if decision.body is not None and letter is not None:
        yield f"another body, {len(letter.body)} octets"
    for to in decision.add_recipients:
        yield f"one more recipient <{to}>"
    for to in decision.delete_recipients:
        yield f"no recipient <{to}>"
    if decision.sender is not UNCHANGED:
        yield f"sender becomes <{decision.sender or ''}>"
    for name, value in decision.exports.items():
        yield f"fact {name} = {value}"


def _edit(edit: HeaderEdit) -> str:
    if isinstance(edit, AddHeader):
        return f"+ {edit.name}: {_folded(edit.value)}"
    if isinstance(edit, ChangeHeader):
        return f"~ {edit.name} [{edit.n}]: {_folded(edit.value)}"
    return f"- {edit.name}" + (f" [{edit.n}]" if edit.n else " (all)")


def _folded(value: str) -> str:
    return " ".join(value.split())


def mailbox(text: str) -> Mailbox:
    """An address as a sample has it. Raises SampleError."""
    read = grammar.path(b"<" + text.encode() + b">", replies.BAD_SENDER)
    if isinstance(read, Reply) or read[0] is None or read[1]:
        raise SampleError(f"{text!r} is no address")
    return read[0]


_FACTS: Final = (
    *("client_ip", "client_port", "client_name", "local_ip", "local_port", "listener", "tls_version"),
    *("tls_cipher", "client_certificate", "user", "relay", "proxied", "xclient", "exports"),
)
