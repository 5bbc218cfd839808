"""Which plugins are asked at this hook, and what is decided? One Dispatcher per worker.

Plugins are asked one after the other in the admin's order; the first verdict ends the hook. A
plugin whose sandbox failed is not asked again in that session: what it remembered is gone, a fresh
sandbox would be a plugin that has not seen the earlier hooks, and a client that can crash a check
could then walk around it. Its on_failure answers at each of its later hooks instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

import msgspec

from forkd.hooks.checks import PowersLike, check_answer
from forkd.hooks.facts import SessionFacts
from forkd.hooks.frames import NO_ARGUMENTS, Frames, Seen
from forkd.hooks.spec import (
    HOOKS,
    ON_FAILURE,
    OVERLOADED,
    FailureSpec,
    HookSpec,
    failure_reply,
    verdict_reply,
)
from forkd.rpc.calls import AddHeader, Answer, CallFailed, Overloaded
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply

__all__ = ["Decision", "Dispatcher", "PluginRecord", "SessionFacts", "SessionHooks"]


class LimitsLike(Protocol):
    """Of forkd.config.schema.PluginLimits: wall time of one call, seconds."""

    @property
    def timeout(self) -> float: ...
    @property
    def message_timeout(self) -> float: ...


class PluginLike(Protocol):
    """Of forkd.config.schema.PluginConfig: what a decision depends on."""

    @property
    def name(self) -> str: ...
    @property
    def hooks(self) -> Sequence[str]: ...
    @property
    def powers(self) -> PowersLike: ...
    @property
    def reads(self) -> Sequence[str]: ...
    @property
    def limits(self) -> LimitsLike: ...
    @property
    def on_failure(self) -> str: ...


class Sandbox(Protocol):
    """The worker's end of one sandbox (forkd.sandbox.host.Sandbox)."""

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        """Raises CallFailed, and is dead then; raises Overloaded."""
        ...

    def close(self) -> None: ...

    @property
    def last_output(self) -> str: ...


class SandboxHost(Protocol):
    """Where sandboxes come from (forkd.sandbox.host.Host)."""

    def take(self, plugin: str, session_id: str) -> Sandbox:
        """Never waits. Raises Overloaded, CallFailed."""
        ...


class MessageCopies(Protocol):
    """The message's sealed copies, made on demand (forkd.worker.copies). Both raise Overloaded, OSError."""

    size: int
    header_size: int

    def headers_fd(self) -> int: ...
    def full_fd(self) -> int: ...


@dataclasses.dataclass(frozen=True, slots=True)
class PluginRecord:
    """What one plugin said, for the log.

    verdict  accept | deny | defer | disconnect | discard | none; after a failure what on_failure made of it
    failure  empty, a cause of CallFailed, `overload`, or `failed earlier`
    detail   for the log, not escaped; `output` the sandbox' last lines on stderr
    """

    plugin: str
    hook: str
    verdict: str
    ms: float
    failure: str = ""
    detail: str = ""
    output: str = ""

    def short(self) -> str:
        """For a log line: `name/hook=verdict 1.2ms`, with the cause of a failure."""
        cause = f"!{self.failure.replace(' ', '_')}" if self.failure else ""
        return f"{self.plugin}/{self.hook}={self.verdict}{cause} {self.ms:.1f}ms"


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """All plugins' answers at one hook taken together.

    reply    what the client gets instead of the usual reply; None: the command goes on.
    discard  the command goes on and takes no effect: the recipient (rcpt) or the message (data,
             message) is dropped behind a 250.
    edits    of the message, in the plugins' order; only where reply is None and discard false.
    """

    reply: Reply | None = None
    discard: bool = False
    edits: tuple[AddHeader, ...] = ()
    records: tuple[PluginRecord, ...] = ()

    @property
    def close(self) -> bool:
        """The connection ends after the reply."""
        return self.reply is not None and self.reply.close


GO_ON = Decision()


class Dispatcher:
    """Which plugins want which hook; made once per worker and configuration."""

    __slots__ = ("_by_hook", "_host", "reads_envelope", "reads_message")

    def __init__(self, plugins: Sequence[PluginLike], host: SandboxHost) -> None:
        """Take the plugins that are on, in the admin's order."""
        self._host = host
        self._by_hook: dict[str, tuple[PluginLike, ...]] = {
            hook: asked for hook in HOOKS if (asked := tuple(p for p in plugins if hook in p.hooks))
        }
        reads = {what for p in self._by_hook.get("message", ()) for what in p.reads}
        self.reads_message: str = "body" if "body" in reads else "headers" if "headers" in reads else ""
        """What plugins read of a message: "body" (all of it), "headers", or nothing."""
        self.reads_envelope = any("envelope" in p.reads for p in plugins)
        """Some plugin wants begin() and add_recipient()."""

    def wants(self, hook: str) -> bool:
        """Is there anybody to ask? One dictionary look-up, so that an unused hook costs nothing."""
        return hook in self._by_hook

    def session(self, facts: SessionFacts) -> SessionHooks:
        """The hooks of one session; cheap: no sandbox is taken before a hook is run."""
        return SessionHooks(self._by_hook, self._host, facts)


class _Party:
    """One plugin in one session."""

    __slots__ = ("failed", "sandbox", "seen")

    def __init__(self) -> None:
        self.sandbox: Sandbox | None = None
        self.seen = Seen()
        self.failed = False


class SessionHooks:
    """One session's side of all plugins. Calls come one at a time, in the order of the commands."""

    __slots__ = ("_by_hook", "_frames", "_host", "_id", "_parties")

    def __init__(
        self, by_hook: Mapping[str, tuple[PluginLike, ...]], host: SandboxHost, facts: SessionFacts
    ) -> None:
        self._by_hook = by_hook
        self._host = host
        self._id = facts.id
        self._frames = Frames(facts)
        self._parties: dict[str, _Party] = {}

    def update(self, **facts: Any) -> None:
        """Facts that changed (helo, esmtp …); told to each plugin with its next call."""
        self._frames.update(facts)

    def begin(self, sender: Mailbox | None) -> None:
        """MAIL was answered 250: plugins that read the envelope see this sender from now on."""
        self._frames.begin(sender)

    def add_recipient(self, recipient: Mailbox) -> None:
        """RCPT was answered 250, and the recipient was not discarded."""
        self._frames.add_recipient(recipient)

    def reset(self) -> None:
        """The transaction is over: RSET, HELO, a refused DATA, or the end of data answered."""
        self._frames.reset()

    async def run(self, hook: str, *, message: MessageCopies | None = None, **arguments: Any) -> Decision:
        """Ask the plugins that registered this hook, in order; the first verdict ends it.

        arguments  as HOOKS names them: helo(name, extended), mail(sender, parameters, size, body),
                   rcpt(recipient, parameters); sender and recipient are Mailbox, the null sender None.
        message    for the message hook; size and header_size are taken from it.
        disconnect goes to the plugins that were asked before in this session, and to no other.
        Blocks     for each plugin at most its limits.timeout (message_timeout at `message`).
        Raises     nothing that a plugin could cause: failures are in the Decision.
        """
        plugins = self._by_hook.get(hook)
        if not plugins:
            return GO_ON
        spec = HOOKS[hook]
        assert arguments.keys() <= spec.arguments, (
            f"{hook} has no argument {arguments.keys() - spec.arguments}"
        )
        if message is not None:
            arguments = {"size": message.size, "header_size": message.header_size}
        args = msgspec.json.encode(arguments) if arguments else NO_ARGUMENTS
        edits: list[AddHeader] = []
        records: list[PluginRecord] = []
        for plugin in plugins:
            started = perf_counter()
            party = self._parties.get(plugin.name)
            if not spec.verdicts and (party is None or party.sandbox is None):
                continue  # disconnect: who has seen nothing of the session has nothing to end
            if party is None:
                party = self._parties[plugin.name] = _Party()
            failure: FailureSpec
            try:
                if party.failed:
                    raise CallFailed("failed earlier")
                answer = await self._ask(plugin, party, spec, args, message)
            except CallFailed as why:
                party.failed = True
                failure = ON_FAILURE[plugin.on_failure]
                cause, detail = why.cause, why.detail
                said = "none" if failure.code is None or not spec.verdicts else plugin.on_failure
            except Overloaded as why:
                failure, cause, detail, said = OVERLOADED, "overload", str(why), "defer"
            else:
                verdict = answer.verdict
                said = "none" if verdict is None else verdict.do
                records.append(PluginRecord(plugin.name, hook, said, (perf_counter() - started) * 1000))
                if answer.edits:
                    edits += answer.edits
                    args = msgspec.json.encode({**arguments, "edits": edits})
                if verdict is None:
                    continue
                reply = verdict_reply(spec, verdict)
                discard = verdict.do == "discard"
                kept = () if reply is not None or discard else tuple(edits)
                return Decision(reply, discard, kept, tuple(records))
            output = self._bury(party)
            ms = (perf_counter() - started) * 1000
            records.append(PluginRecord(plugin.name, hook, said, ms, cause, detail, output))
            reply = failure_reply(spec, failure, self._id)
            if reply is not None:
                return Decision(reply, records=tuple(records))
        return Decision(None, edits=tuple(edits), records=tuple(records))

    def close(self) -> None:
        """The session is over: let go of every sandbox; they are killed at once. Idempotent."""
        for party in self._parties.values():
            if party.sandbox is not None:
                party.sandbox.close()
                party.sandbox = None
            party.failed = True

    async def _ask(
        self, plugin: PluginLike, party: _Party, spec: HookSpec, args: bytes, message: MessageCopies | None
    ) -> Answer:
        reads = plugin.reads
        fd = _descriptor(reads, message)
        sandbox = party.sandbox
        if sandbox is None:
            sandbox = party.sandbox = self._host.take(plugin.name, self._id)
        limits = plugin.limits
        left_s = float(limits.message_timeout if message is not None else limits.timeout)
        seen = party.seen
        pages, frame = self._frames.build(seen, spec.name, args, envelope="envelope" in reads)
        for n, page in enumerate(pages, start=seen.n - len(pages)):
            started = perf_counter()
            check_answer(await sandbox.call(page, n, timeout_s=left_s), spec=_PAGE, powers=plugin.powers)
            left_s = max(0.0, left_s - (perf_counter() - started))
        answer = await sandbox.call(frame, seen.n, timeout_s=left_s, message_fd=fd)
        if answer.n != seen.n:
            raise CallFailed("protocol", f"answer {answer.n} to call {seen.n}")
        check_answer(answer, spec=spec, powers=plugin.powers)
        return answer

    def _bury(self, party: _Party) -> str:
        """Let go of a sandbox that failed; its last words."""
        sandbox = party.sandbox
        if sandbox is None or not party.failed:
            return ""
        party.sandbox = None
        sandbox.close()
        return sandbox.last_output


_PAGE = HookSpec(name="page", verdicts=frozenset())


def _descriptor(reads: Sequence[str], message: MessageCopies | None) -> int:
    """The copy of the message this plugin may read. Raises Overloaded: then it is not asked at all."""
    if message is None:
        return -1
    try:
        if "body" in reads:
            return message.full_fd()
        if "headers" in reads:
            return message.headers_fd()
    except OSError as error:
        raise Overloaded(f"no copy of the message: {error}") from error
    return -1
