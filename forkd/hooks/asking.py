"""How is one plugin asked in one session? Its sandbox, what that has been told, and how much time is left.

A plugin whose sandbox failed is not asked again in that session: what it remembered is gone, a fresh
sandbox would be a plugin that has not seen the earlier hooks, and a client that can crash a check
could then walk around it. Its on_failure answers at each of its later hooks instead.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from time import perf_counter

from forkd.hooks.changes import Changes
from forkd.hooks.checks import check_answer
from forkd.hooks.decision import Remains
from forkd.hooks.frames import Frames, Seen
from forkd.hooks.given import (
    BodySink,
    Holder,
    KeptCopy,
    MessageCopies,
    PluginLike,
    Sandbox,
    SandboxHost,
)
from forkd.hooks.spec import HookSpec
from forkd.rpc.calls import MAX_PIECE_BYTES, Answer, CallFailed, Overloaded

KEPT_BYTES = 262_144
"""Of the frames that one sandbox was sent, for a crash record; beyond it those in the middle are let go."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One hook's question, the same for every plugin but for what each may see of it.

    args       encoded.
    copies     of the message, at its hook.
    changes    by the plugins before: a program's copy has them in it.
    smtputf8   the transaction has SMTPUTF8.
    until      perf_counter() at which the budget for the message is used up; None: there is none.
    """

    spec: HookSpec
    args: bytes
    copies: MessageCopies | None
    changes: Changes
    smtputf8: bool
    until: float | None


class Party:
    """One plugin (or group) in one session.

    failed  it is not asked any more.
    lost    nor has it failed: the message's budget ended a call of it, which is overload to the end.
    asked   it has seen something of the session.
    """

    __slots__ = (
        "_auth",
        "_calling",
        "_kept",
        "_left_s",
        "_sandbox",
        "_seen",
        "_used_s",
        "asked",
        "failed",
        "in_scope",
        "lost",
        "plugin",
    )
    shadow = False

    def __init__(self, plugin: PluginLike, *, keep_frames: bool = False) -> None:
        """A session's side of `plugin`. `keep_frames`: for crash records."""
        self.plugin = plugin
        self._kept = KeptFrames() if keep_frames else None
        self.failed = self.lost = False
        self.asked = False
        self.in_scope: bool | None = None
        """Its scope has this session's listener and client; None: not looked up yet."""
        self._sandbox: Sandbox | None = None
        self._seen = Seen()
        self._used_s = 0.0
        """Wall time of its calls in this session."""
        self._left_s = 0.0
        """Of the call under way."""
        self._calling = False
        self._auth: tuple[bytes, ...] = ()
        """Arguments of its auth calls: what a failure tells is searched for these passwords."""

    async def ask(
        self, call: Call, frames: Frames, host: SandboxHost, holder: Holder, *, edits: Sequence[bytes]
    ) -> Answer:
        """Its checked answer. A sandbox is taken first where it has none.

        edits   of the plugins before, encoded: those it may see.
        Blocks  for limits.timeout at most (message_timeout at `message`), what is left of session_time
                and of the message's budget, and a moment for a sandbox.
        Raises  CallFailed, and is over then; Overloaded: not its fault.
        """
        plugin = self.plugin
        ends_by = self._allow(call)
        fd = _descriptor(plugin, call)
        if self._sandbox is None:
            self._seen = Seen()
            if self._kept is not None:
                self._kept = KeptFrames()
            self._sandbox = await host.take(
                plugin.name,
                frames.facts.id,
                network=holder.network,
                evict=holder.evict,
                in_mail=holder.in_mail,
            )
        self.asked = True
        seen = self._seen
        before = seen.n
        pages, frame = frames.build(
            seen, call.spec.name, call.args, envelope="envelope" in plugin.reads, edits=edits
        )
        return await self._exchange(call, pages, frame, before=before, fd=fd, ends_by=ends_by)

    async def _exchange(
        self, call: Call, pages: Sequence[bytes], frame: bytes, *, before: int, fd: int, ends_by: str
    ) -> Answer:
        """Send pages and frame, numbered from before + 1; the checked answer to the frame."""
        plugin = self.plugin
        n = before
        if call.spec.name == "auth":
            self._auth += (call.args,)
            assert self._sandbox is not None
            self._sandbox.hide(call.args)
        try:
            for n, page in enumerate(pages, start=before + 1):
                check_answer(await self._send(page, n), spec=_PAGE, powers=plugin.powers)
            answer = await self._send(frame, n + 1, fd)
        except CallFailed as why:
            if ends_by is _OWN or not self._late(why):
                raise
            if ends_by is _BUDGET:
                self.failed = self.lost = True
                raise Overloaded("the message's budget ended during the call") from why
            spent = f"its {plugin.limits.session_time:g} s for one session ended during the call"
            raise CallFailed("deadline", spent) from why
        check_answer(answer, spec=call.spec, powers=plugin.powers, smtputf8=call.smtputf8)
        return answer

    def _late(self, why: CallFailed) -> bool:
        """Was it the end of the time we gave that ended the call? Where that time is short, a sandbox that
        was not made in it is no word on its zygote; told before its end, "unavailable" is one."""
        return why.cause == "deadline" or (why.cause == "unavailable" and self._left_s <= 0)

    async def fetch_body(self, size: int, sink: BodySink) -> object:
        """Fetch the body that its last answer spoke of, in what is left of that call's time.

        Raises CallFailed, and what the sink raises (OSError becomes Overloaded).
        """
        at = 0
        seen = self._seen
        while at < size:
            seen.n += 1
            frame = b'{"n":%d,"hook":"body","args":{"offset":%d}}' % (seen.n, at)
            answer = await self._send(frame, seen.n)
            piece = answer.piece
            if answer.verdict is not None or answer.edits or not piece:
                raise CallFailed("protocol", "no piece of the body")
            if len(piece) > min(MAX_PIECE_BYTES, size - at):
                raise CallFailed("protocol", f"{len(piece)} octets of the body, too many")
            at += len(piece)
            try:
                sink.write(piece)
            except OSError as error:
                raise Overloaded(f"no room for the new body: {error}") from error
        try:
            return sink.finish()
        except OSError as error:
            raise Overloaded(f"no room for the new body: {error}") from error

    def call_over(self) -> None:
        """The answer was taken: with fresh = "call" nothing of it stays."""
        if self.plugin.limits.fresh == "call" and self._sandbox is not None:
            sandbox, self._sandbox = self._sandbox, None
            sandbox.release()

    def bury(self, call: Call | None) -> Remains | None:
        """Let go of a sandbox that failed, in `call`; what it leaves. None: there was none.

        call  None: nothing is kept of it.
        """
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is None:
            return None
        sandbox.close()
        kept, self._kept = self._kept, None
        if kept is None or call is None:
            return Remains(sandbox, auth=self._auth)
        message, missing = self._kept_message(call)
        return Remains(sandbox, tuple(kept.frames), message, cut=kept.cut or missing, auth=self._auth)

    def _kept_message(self, call: Call) -> tuple[KeptCopy | None, bool]:
        """(the copy that the call had, whether it had one that cannot be kept)."""
        what = readable(self.plugin)
        if call.copies is None or not what:
            return None, False
        try:
            return call.copies.keep(what, call.changes.header_edits()), False
        except (Overloaded, OSError):
            return None, True

    def end(self) -> None:
        """The session is over, or the plugin may not be asked any more. A call under way is cut off."""
        sandbox, self._sandbox = self._sandbox, None
        self.failed = True
        if sandbox is None:
            return
        if self._calling:
            sandbox.close()
        else:
            sandbox.release()

    def _allow(self, call: Call) -> str:
        """How long may this call take? What ends it then: its own limit, the session's or the message's."""
        limits = self.plugin.limits
        left_s = float(limits.timeout if call.copies is None else limits.message_timeout)
        session_left_s = limits.session_time - self._used_s
        if session_left_s <= 0:
            raise CallFailed("deadline", f"its {limits.session_time:g} s for one session are used up")
        budget_s = left_s if call.until is None else call.until - perf_counter()
        if budget_s <= 0:
            raise Overloaded("the message's budget is used up")
        self._left_s = min(left_s, budget_s, session_left_s)
        if self._left_s == left_s:
            return _OWN
        return _BUDGET if budget_s < session_left_s else _SESSION

    async def _send(self, frame: bytes, n: int, message_fd: int = -1) -> Answer:
        sandbox = self._sandbox
        assert sandbox is not None
        if self._kept is not None:
            self._kept.add(frame)
        started = perf_counter()
        self._calling = True
        try:
            answer = await sandbox.call(frame, n, timeout_s=self._left_s, message_fd=message_fd)
        finally:
            self._calling = False
            spent = perf_counter() - started
            self._used_s += spent
            self._left_s = max(0.0, self._left_s - spent)
        if answer.error:
            raise CallFailed("exception", answer.error)
        if answer.n != n:
            raise CallFailed("protocol", f"answer {answer.n} to call {n}")
        return answer


_OWN, _SESSION, _BUDGET = "timeout", "session_time", "message_budget"
"""Which limit gives a call its deadline."""
_PAGE = HookSpec(name="page", verdicts=frozenset(), edits=frozenset())


class KeptFrames:
    """What a sandbox was sent, for a crash record; the first and the last are always among it."""

    __slots__ = ("_size", "cut", "frames")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.cut = False
        self._size = 0

    def add(self, frame: bytes) -> None:
        self.frames.append(frame)
        self._size += len(frame)
        while self._size > KEPT_BYTES and len(self.frames) > 2:
            self._size -= len(self.frames[1])
            del self.frames[1]
            self.cut = True


def readable(plugin: PluginLike) -> str:
    """Which copy of a message it is given: "full", "headers", "program", or ""."""
    if plugin.kind == "program":
        return "program"
    return "full" if "body" in plugin.reads else "headers" if "headers" in plugin.reads else ""


def _descriptor(plugin: PluginLike, call: Call) -> int:
    """The copy of the message this plugin may read. Raises Overloaded: then it is not asked at all."""
    copies = call.copies
    if copies is None:
        return -1
    try:
        match readable(plugin):
            case "full":
                return copies.full_fd()
            case "headers":
                return copies.headers_fd()
            case "program":
                return copies.program_fd(call.changes.header_edits())
    except OSError as error:
        raise Overloaded(f"no copy of the message: {error}") from error
    return -1
