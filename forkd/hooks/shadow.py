"""What would a plugin say that is only tried? Asked on live traffic, compared; never obeyed, nor waited for.

A shadow plugin is told what it would be told at its place in the order: the edits of the plugins before it,
and the message as they left it. Nobody sees what it edits or exports. It is not asked where a plugin before
it has decided, as it would not be then either.

Its question is put together while the hook runs, and asked when the hook is decided, by a task of the
session's own: a reply never waits for it, not for its sandbox either. At most QUEUE calls wait; those beyond
are dropped and told. The session's end lets it finish what waits. Its sandbox counts against no client
network, is never a reason to end a session, and its failures change nothing for anybody.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from time import perf_counter

from forkd.hooks.asking import Call, KeptFrames, Party, readable
from forkd.hooks.changes import Changes
from forkd.hooks.decision import Decision, PluginRecord
from forkd.hooks.frames import Frames, Seen
from forkd.hooks.given import KeptCopy, Observer, PluginLike, SandboxHost
from forkd.hooks.spec import verdict_reply
from forkd.hooks.walk import FAILED_EARLIER, UNDOES, Walk
from forkd.rpc.calls import Answer, CallFailed, Overloaded
from forkd.smtp.reply import Reply

QUEUE = 16
"""Calls of one session that may wait for their turn."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shadowed:
    """One answer of a shadow plugin, beside what was decided without it.

    would, did  go on | deny | defer | disconnect | discard | quarantine | ok: what it would have made of the
                command, and what was made of it
    reply       its own, where it would have refused
    edits       how many it would have made; by: the member of a group
    log, count  what it logged and counted: those are no effect on mail
    differs     the client, or the mail, would have noticed
    """

    plugin: str
    hook: str
    would: str
    did: str
    differs: bool
    ms: float
    reply: Reply | None = None
    edits: int = 0
    by: str = ""
    log: tuple[str, ...] = ()
    count: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Question:
    """One call that waits for its turn; its copy of the message is held until then."""

    __slots__ = ("before", "call", "changes", "copy", "decision", "frame", "pages")

    def __init__(
        self,
        call: Call,
        changes: Changes,
        *,
        pages: Sequence[bytes],
        frame: bytes,
        before: int,
        copy: KeptCopy | None,
    ) -> None:
        self.call = call
        self.changes = changes
        self.pages = pages
        self.frame = frame
        self.before = before
        self.copy = copy
        self.decision = Decision()

    def drop(self) -> None:
        """It is answered, or never will be."""
        copy, self.copy = self.copy, None
        if copy is not None:
            copy.close()


class Shadow(Party):
    """One shadow plugin in one session."""

    __slots__ = ("_asking", "_ending", "_host", "_observer", "_session", "_waiting", "_working")
    shadow = True

    def __init__(
        self,
        plugin: PluginLike,
        host: SandboxHost,
        observer: Observer,
        *,
        session: str,
        keep_frames: bool = False,
    ) -> None:
        super().__init__(plugin, keep_frames=keep_frames)
        self._host = host
        self._observer = observer
        self._session = session
        self._waiting: deque[Question] = deque()
        self._asking: Question | None = None
        self._working = self._ending = False

    # --- while the hook runs --------------------------------------------------------------------------

    def prepare(self, walk: Walk, frames: Frames) -> Question | None:
        """The question as it stands at this plugin's place; None: it is not asked."""
        if self.failed:
            return None
        plugin, call = self.plugin, walk.call
        if len(self._waiting) >= QUEUE:
            self._drop(call, f"{QUEUE} calls wait already")
            return None
        if plugin.limits.fresh == "call":
            self._seen = Seen()
        seen = self._seen
        copy: KeptCopy | None = None
        what = readable(plugin)
        try:
            if call.copies is not None and what:
                copy = call.copies.keep(what, call.changes.header_edits())
            before = seen.n
            pages, frame = frames.build(
                seen,
                call.spec.name,
                call.args,
                envelope="envelope" in plugin.reads,
                edits=walk.visible(plugin.reads),
            )
        except (Overloaded, OSError) as why:
            if copy is not None:
                copy.close()
            self._drop(call, str(why))
            return None
        self.asked = True
        return Question(
            dataclasses.replace(call, until=None),
            walk.changes,
            pages=pages,
            frame=frame,
            before=before,
            copy=copy,
        )

    def ask_later(self, question: Question, decision: Decision) -> None:
        """The hook is decided, and its reply on its way: now the question may be asked."""
        question.decision = decision
        self._waiting.append(question)
        if not self._working:
            self._working = True
            self._observer.background(self._work())

    def end(self) -> None:
        """The session is over: what waits is still asked, then the sandbox is let go."""
        self._ending = True
        if not self._working:
            super().end()

    # --- beside everything else -----------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._waiting:
                question = self._asking = self._waiting.popleft()
                try:
                    await self._ask(question)
                finally:
                    self._asking = None
                    question.drop()
        finally:
            self._working = False
            while self._waiting:
                self._waiting.popleft().drop()
            if self._ending:
                super().end()

    async def _ask(self, question: Question) -> None:
        if self.failed:
            self._drop(question.call, FAILED_EARLIER)
            return
        if question.before and self._sandbox is None:
            # It tells what is new since a call that was dropped: alone, it would be of an empty session.
            self._drop(question.call, "a call before it was dropped")
            return
        started = perf_counter()
        name, hook = self.plugin.name, question.call.spec.name
        try:
            answer = await self._answer(question)
            # Whether its edits could stand is part of its answer; what becomes of them is not.
            question.changes.taken(answer.edits, smtputf8=question.call.smtputf8)
        except Overloaded as why:
            if self._sandbox is None and self.plugin.limits.fresh != "call":
                # Nothing went over: the next question is the first again, and tells everything.
                self._seen = Seen()
                self.asked = False
            self._drop(question.call, str(why))
        except CallFailed as why:
            self.failed = True
            remains = self.bury(question.call)
            output = "" if remains is None else remains.sandbox.last_output
            ms = (perf_counter() - started) * 1000
            self._observer.shadow_failed(
                self._session,
                PluginRecord(name, hook, "shadow", ms, why.cause, why.detail, output, remains=remains),
            )
        else:
            self.call_over()
            shadowed = compare(name, question, answer, ms=(perf_counter() - started) * 1000)
            self._observer.shadow_answered(self._session, shadowed)

    async def _answer(self, question: Question) -> Answer:
        call = question.call
        ends_by = self._allow(call)
        if self._sandbox is None:
            if self._kept is not None:
                self._kept = KeptFrames()
            # Nobody's share, and nobody gives way for it.
            self._sandbox = await self._host.take(self.plugin.name, self._session)
        fd = -1 if question.copy is None else question.copy.fd
        return await self._exchange(
            call, question.pages, question.frame, before=question.before, fd=fd, ends_by=ends_by
        )

    def _kept_message(self, call: Call) -> tuple[KeptCopy | None, bool]:  # noqa: ARG002 - one shape
        question = self._asking
        if question is None:
            return None, False
        copy, question.copy = question.copy, None
        return copy, False

    def _drop(self, call: Call, why: str) -> None:
        self._observer.shadow_dropped(self._session, plugin=self.plugin.name, hook=call.spec.name, why=why)


def compare(plugin: str, question: Question, answer: Answer, *, ms: float) -> Shadowed:
    """What it would have done beside what was done."""
    spec, decision, verdict = question.call.spec, question.decision, answer.verdict
    did = _did(decision)
    reply = None if verdict is None else verdict_reply(spec, verdict)
    edits = sum(edit.__struct_config__.tag != "export" for edit in answer.edits)
    if verdict is None:
        would = did  # its opinion was none: whatever was decided, would have been
    elif reply is not None:
        would = _kind(reply)
    else:
        would = "go on" if verdict.do == "accept" else verdict.do
    changes_mail = edits > 0 and would not in UNDOES
    return Shadowed(
        plugin,
        spec.name,
        would,
        did,
        would != did or changes_mail,
        ms,
        reply=reply,
        edits=edits,
        by=answer.by,
        log=answer.log,
        count=answer.count,
    )


def _did(decision: Decision) -> str:
    if decision.reply is not None:
        return _kind(decision.reply)
    if decision.discard:
        return "discard"
    if decision.quarantine:
        return "quarantine"
    return "ok" if decision.ok else "go on"


def _kind(reply: Reply) -> str:
    if reply.close:
        return "disconnect"
    return "deny" if reply.code >= 500 else "defer"
