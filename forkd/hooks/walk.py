"""One hook, from plugin to plugin: what does each see of the ones before, and when is it decided?"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, perf_counter
from typing import Any

import msgspec

from forkd.hooks.asking import Call, Party
from forkd.hooks.breaker import Breakers
from forkd.hooks.changes import Changes, Routable
from forkd.hooks.decision import Decision, PluginRecord, Remains
from forkd.hooks.frames import NO_ARGUMENTS, Frames
from forkd.hooks.given import Holder, MessageCopies, PluginLike, SandboxHost
from forkd.hooks.spec import (
    ON_FAILURE,
    OVERLOADED,
    FailureSpec,
    HookSpec,
    failure_reply,
    verdict_reply,
)
from forkd.rpc.calls import Answer, CallFailed, Overloaded, ReplaceBody, ReplaceMessage, Verdict
from forkd.smtp.address import Mailbox

MAX_EXPORTS = 64
"""Of one session: they go over in one piece."""

FAILED_EARLIER, BREAKER_OPEN = "failed earlier", "breaker open"
"""Causes of calls that were not made."""

UNDOES = frozenset({"deny", "defer", "disconnect", "discard"})
"""Verdicts after which there is nothing that edits could change."""
_UTF8_HOOKS = frozenset({"mail", "rcpt", "data", "message"})
_encode = msgspec.json.encode


class Walk:
    """The state of one hook between the plugins; made for each, dropped when it is decided.

    until  perf_counter() at which the budget for the message is used up; None at other hooks.
    """

    __slots__ = (
        "_arguments",
        "_body",
        "_breakers",
        "_edits_of_envelope",
        "_edits_of_header",
        "_exports",
        "_frames",
        "_message",
        "_message_size",
        "_smtputf8",
        "_until",
        "call",
        "changes",
        "records",
        "spec",
    )

    def __init__(
        self,
        spec: HookSpec,
        arguments: dict[str, Any],
        message: MessageCopies | None,
        *,
        frames: Frames,
        routable: Routable,
        message_size: int,
        until: float | None,
        smtputf8: bool,
        breakers: Breakers,
    ) -> None:
        self.spec = spec
        self._breakers = breakers
        self._arguments = arguments
        self._message = message
        self._message_size = message_size
        self._frames = frames
        self._until = until
        self._smtputf8 = smtputf8 and spec.name in _UTF8_HOOKS
        self.changes = Changes(frames.recipients, routable)
        self._edits_of_header: list[bytes] = []
        self._edits_of_envelope: list[bytes] = []
        self._exports: dict[str, str] = {}
        self._body: object | None = None
        self.records: list[PluginRecord] = []
        """Of those that were asked so far."""
        self.call = self._encoded()

    def recipients(self) -> Sequence[Mailbox]:
        """Those in question: the one recipient at rcpt, those of the envelope at data and message."""
        if self.spec.name == "rcpt":
            return (self._arguments["recipient"],)
        return self.changes.recipients

    async def ask(self, party: Party, host: SandboxHost, holder: Holder) -> Decision | None:
        """Ask one plugin; the decision, or None: the next one is to be asked."""
        started = perf_counter()
        plugin = party.plugin
        failure: FailureSpec
        remains: Remains | None = None
        try:
            if party.lost:
                raise Overloaded("the message's budget ended an earlier call")
            if party.failed:
                raise CallFailed(FAILED_EARLIER)
            if self._breakers.troubled and not self._admits(plugin, holder):
                raise CallFailed(BREAKER_OPEN)
            edits = self.visible(plugin.reads)
            answer = await party.ask(self.call, self._frames, host, holder, edits=edits)
            if answer.edits:
                await self._take(party, answer)
        except CallFailed as why:
            failure = ON_FAILURE[plugin.on_failure]
            if why.cause != BREAKER_OPEN:
                remains = self._failed(party, why, holder)
            cause, detail = why.cause, why.detail
            said = "none" if failure.code is None or not self.spec.verdicts else plugin.on_failure
        except Overloaded as why:
            failure, cause, detail, said = OVERLOADED, "overload", str(why), "defer"
            if party.failed:
                remains = party.bury(None)
        else:
            party.call_over()
            if self._breakers.troubled:
                self._breakers.succeeded(plugin.name)
            verdict = answer.verdict
            self.records.append(
                PluginRecord(
                    plugin.name,
                    self.spec.name,
                    "none" if verdict is None else verdict.do,
                    (perf_counter() - started) * 1000,
                    edits=len(answer.edits),
                    by=answer.by,
                    log=answer.log,
                    count=answer.count,
                )
            )
            if verdict is None:
                return None
            decision = self.decision(verdict)
            return decision.closing() if plugin.refusal == "session" else decision
        if not party.failed:
            party.call_over()
        output = "" if remains is None else remains.sandbox.last_output
        ms = (perf_counter() - started) * 1000
        self.records.append(
            PluginRecord(plugin.name, self.spec.name, said, ms, cause, detail, output, remains=remains)
        )
        reply = failure_reply(self.spec, failure, self._frames.facts.id)
        if reply is None:
            return None
        return Decision(reply, exports=self._exports, records=tuple(self.records))

    def _admits(self, plugin: PluginLike, holder: Holder) -> bool:
        session = self._frames.facts.id
        return self._breakers.admits(plugin.name, session, network=holder.network, now=monotonic())

    def _failed(self, party: Party, why: CallFailed, holder: Holder) -> Remains | None:
        """The plugin is not asked any more in this session; what is left of its sandbox."""
        earlier, party.failed = party.failed, True
        remains = party.bury(self.call)
        if not earlier and party.plugin.on_failure != "skip":
            # What is skipped has no breaker: it would switch the check off for everyone.
            self._breakers.failed(
                party.plugin.name,
                self._frames.facts.id,
                network=holder.network,
                now=monotonic(),
                untaken=why.cause == "unavailable" and (remains is None or remains.sandbox.untaken),
            )
        return remains

    def decision(self, verdict: Verdict | None = None) -> Decision:
        """What came of the hook: the verdict that ended it, or None of all, and the edits until then."""
        records = tuple(self.records)
        if verdict is not None:
            reply = verdict_reply(self.spec, verdict)
            if reply is not None or verdict.do == "discard":
                return Decision(reply, reply is None, exports=self._exports, records=records)
        changes = self.changes
        return Decision(
            quarantine=verdict.text if verdict is not None and verdict.do == "quarantine" else "",
            ok=verdict is not None and verdict.do == "ok",
            recipient=changes.recipient,
            edits=changes.header_edits(),
            body=self._body,
            add_recipients=changes.added(),
            delete_recipients=changes.deleted(),
            sender=changes.sender,
            exports=self._exports,
            records=records,
        )

    async def _take(self, party: Party, answer: Answer) -> None:
        """An answer's edits; nothing of them where the answer turns out to be a breach, or refuses."""
        after = self.changes.taken(answer.edits, smtputf8=self._smtputf8)
        self._export(after.exports)
        if answer.verdict is not None and answer.verdict.do in UNDOES:
            return
        for edit in answer.edits:
            if isinstance(edit, ReplaceBody | ReplaceMessage):
                whole = isinstance(edit, ReplaceMessage)
                self._body = await self._fetch(party, edit.size, whole=whole)
        self.changes = after
        if after.recipient is not None:
            self._arguments = {**self._arguments, "recipient": after.recipient}
        self._edits_of_header = [_encode(edit) for edit in after.of_header]
        self._edits_of_envelope = [_encode(edit) for edit in after.of_envelope]
        self.call = self._encoded()

    async def _fetch(self, party: Party, size: int, *, whole: bool) -> object:
        message = self._message
        assert message is not None
        kept = 0 if whole else message.header_size
        if kept + size > self._message_size:
            what = "message" if whole else "body"
            raise CallFailed("protocol", f"a {what} of {size} octets is more than limits.message_size allows")
        try:
            sink = message.message_sink(size) if whole else message.body_sink(size)
        except OSError as error:
            raise Overloaded(f"no room for the new body: {error}") from error
        return await party.fetch_body(size, sink)

    def _export(self, exports: dict[str, str]) -> None:
        """Facts of the session from now on, whatever becomes of this command."""
        if not exports:
            return
        known = {**self._frames.facts.exports, **exports}
        if len(known) > MAX_EXPORTS:
            raise CallFailed("protocol", f"more than {MAX_EXPORTS} exports in one session")
        self._exports = {**self._exports, **exports}
        self._frames.update({"exports": known})

    def visible(self, reads: Sequence[str]) -> list[bytes]:
        """The edits of plugins before that this one may see."""
        edits: list[bytes] = []
        if self._edits_of_header and ("headers" in reads or "body" in reads):
            edits += self._edits_of_header
        if self._edits_of_envelope and "envelope" in reads:
            edits += self._edits_of_envelope
        return edits

    def _encoded(self) -> Call:
        """The question as it stands now."""
        arguments, message = self._arguments, self._message
        if message is not None:
            arguments = {"size": message.size, "header_size": message.header_size}
        if self._smtputf8:
            arguments = {**arguments, "smtputf8": True}
        elif "smtputf8" in arguments:
            arguments = {name: value for name, value in arguments.items() if name != "smtputf8"}
        args = _encode(arguments) if arguments else NO_ARGUMENTS
        return Call(self.spec, args, message, self.changes, self._smtputf8, self._until)
