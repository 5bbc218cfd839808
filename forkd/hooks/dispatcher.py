"""Which plugins are asked at this hook, and what is decided? One Dispatcher per worker.

Plugins are asked one after the other in the admin's order; the first verdict ends the hook. What each
has changed is there for the next one to see; what a plugin changed that then refuses counts for nothing.
walk.py is one hook's walk from plugin to plugin, asking.py how one of them is asked, changes.py what
edits come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from forkd.hooks.asking import Party
from forkd.hooks.breaker import Breakers, Rule
from forkd.hooks.changes import Routable
from forkd.hooks.decision import UNCHANGED, Decision, PluginRecord, Sentinel
from forkd.hooks.facts import SessionFacts
from forkd.hooks.frames import Frames
from forkd.hooks.given import BodySink, Holder, MessageCopies, Observer, PluginLike, Sandbox, SandboxHost
from forkd.hooks.scope import Reach
from forkd.hooks.shadow import Question, Shadow
from forkd.hooks.spec import HOOKS
from forkd.hooks.walk import Walk
from forkd.smtp.address import Mailbox

__all__ = [
    "UNCHANGED",
    "BodySink",
    "Decision",
    "Dispatcher",
    "Holder",
    "MessageCopies",
    "PluginRecord",
    "Sandbox",
    "SandboxHost",
    "Sentinel",
    "SessionFacts",
    "SessionHooks",
]

GO_ON = Decision()


class Dispatcher:
    """Which plugins want which hook; made once per worker and configuration."""

    __slots__ = (
        "_by_hook",
        "_host",
        "breakers",
        "keep_frames",
        "keeps_envelope",
        "message_budget_s",
        "message_size",
        "observer",
        "reach",
        "reads_message",
        "routable",
    )

    def __init__(
        self,
        plugins: Sequence[PluginLike],
        host: SandboxHost,
        *,
        message_budget_s: float = 120.0,
        message_size: int = 50 << 20,
        routable: Routable,
        observer: Observer,
        breaker: Rule,
        keep_frames: bool = False,
    ) -> None:
        """Take the plugins that are on, in the admin's order.

        message_budget_s  wall time of all plugins together on one message (sandbox.message_budget).
        message_size      octets of a message whose body was replaced, at most (limits.edited_size).
        routable          does forkd take mail for local part and domain, whoever the client is? Recipients
                          that a plugin adds or rewrites to must be, whatever it was granted.
        observer          is told of breakers and shadow plugins.
        breaker           when a plugin counts as broken for everyone.
        keep_frames       what a failed call was sent is in its record (crash.keep).
        """
        self.observer = observer
        self.breakers = Breakers(breaker, observer.breaker_changed)
        self.keep_frames = keep_frames
        self._host = host
        self.message_budget_s = message_budget_s
        self.message_size = message_size
        self.routable = routable
        reaches = {plugin.name: Reach(plugin.scope) for plugin in plugins}
        self.reach = {name: reach for name, reach in reaches.items() if not reach.everything}
        """Of the plugins that are not asked about everything."""
        self._by_hook: dict[str, tuple[PluginLike, ...]] = {}
        for hook, spec in HOOKS.items():
            at_once = spec.by_domain or not spec.verdicts
            asked = tuple(
                p for p in plugins if hook in p.hooks and (at_once or not reaches[p.name].by_domain)
            )
            if asked:
                self._by_hook[hook] = asked
        reads = {what for p in self._by_hook.get("message", ()) for what in p.reads}
        self.reads_message: str = "body" if "body" in reads else "headers" if "headers" in reads else ""
        """What plugins read of a message: "body" (all of it), "headers", or nothing."""
        self.keeps_envelope = any(
            "envelope" in p.reads
            or reaches[p.name].by_domain
            or ("message" in p.hooks and (p.powers.add_recipient or p.powers.delete_recipient))
            for p in plugins
        )
        """begin() and add_recipient() matter to somebody."""

    def wants(self, hook: str) -> bool:
        """Is there anybody to ask? One dictionary look-up, so that an unused hook costs nothing."""
        return hook in self._by_hook

    def obeys(self, hook: str) -> bool:
        """Is there anybody whose answer counts there?"""
        return any(plugin.mode != "shadow" for plugin in self._by_hook.get(hook, ()))

    def session(self, facts: SessionFacts, holder: Holder) -> SessionHooks:
        """The hooks of one session; cheap: no sandbox is taken before a hook is run."""
        return SessionHooks(self, self._by_hook, self._host, facts, holder)


class SessionHooks:
    """One session's side of all plugins. Calls come one at a time, in the order of the commands."""

    __slots__ = (
        "_by_hook",
        "_dispatcher",
        "_frames",
        "_holder",
        "_host",
        "_parties",
        "_smtputf8",
        "asking",
        "cut_off",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        by_hook: Mapping[str, tuple[PluginLike, ...]],
        host: SandboxHost,
        facts: SessionFacts,
        holder: Holder,
    ) -> None:
        self._dispatcher = dispatcher
        self._by_hook = by_hook
        self._host = host
        self._holder = holder
        self._frames = Frames(facts)
        self._parties: dict[str, Party] = {}
        self._smtputf8 = False
        self.asking: tuple[str, str] | None = None
        """(plugin, hook) whose answer is awaited; None: nobody's."""
        self.cut_off: Sequence[PluginRecord] = ()
        """Of a hook that raised: what plugins had said until then. Who takes them closes what they keep."""

    def update(self, **facts: Any) -> None:
        """Facts that changed (helo, user, tls_version …); told to each plugin with its next call."""
        self._frames.update(facts)
        if "client_ip" in facts:
            for party in self._parties.values():
                party.in_scope = None

    def begin(self, sender: Mailbox | None, *, smtputf8: bool = False) -> None:
        """MAIL was answered 250: plugins that read the envelope see this sender from now on."""
        self._frames.begin(sender)
        self._smtputf8 = smtputf8

    def add_recipient(self, recipient: Mailbox) -> None:
        """RCPT was answered 250, and the recipient was not discarded; as it was rewritten."""
        self._frames.add_recipient(recipient)

    def reset(self) -> None:
        """The transaction is over: RSET, HELO, a refused DATA, or the end of data answered."""
        self._frames.reset()
        self._smtputf8 = False

    async def run(self, hook: str, *, message: MessageCopies | None = None, **arguments: Any) -> Decision:
        """Ask the plugins that registered this hook, in order; the first verdict ends it.

        arguments  as HOOKS names them: helo(name, extended), auth(user, secret), mail(sender, parameters,
                   size, body, smtputf8), rcpt(recipient, parameters); sender and recipient are Mailbox,
                   the null sender None.
        message    for the message hook; size and header_size are taken from it.
        disconnect goes to the plugins that were asked before in this session, and to no other.
        Blocks     for each plugin at most its limits.timeout (message_timeout at `message`, and
                   message_budget_s for all of them there), and a moment for each sandbox.
        Raises     what a body sink raises, but for OSError; no failure of a plugin. cut_off has the records
                   then, and where it is cancelled.
        """
        spec = HOOKS[hook]
        plugins = self._by_hook.get(hook)
        if plugins is None:
            return GO_ON
        assert arguments.keys() <= spec.arguments, f"{hook} has no {arguments.keys() - spec.arguments}"
        dispatcher = self._dispatcher
        walk = Walk(
            spec,
            arguments,
            message,
            frames=self._frames,
            routable=dispatcher.routable,
            message_size=dispatcher.message_size,
            until=None if message is None else perf_counter() + dispatcher.message_budget_s,
            smtputf8=self._smtputf8 or bool(arguments.get("smtputf8")),
            breakers=dispatcher.breakers,
        )
        questions: list[tuple[Shadow, Question]] = []
        try:
            decision = await self._walk(walk, plugins, questions)
        except BaseException:
            for _, question in questions:
                question.drop()
            self.cut_off = walk.records
            raise
        finally:
            self.asking = None
        for shadow, question in questions:
            shadow.ask_later(question, decision)
        return decision

    async def _walk(
        self, walk: Walk, plugins: Sequence[PluginLike], questions: list[tuple[Shadow, Question]]
    ) -> Decision:
        """From plugin to plugin; `questions` are to be asked when it is decided."""
        reach = self._dispatcher.reach
        for plugin in plugins:
            party = self._parties.get(plugin.name)
            if party is None:
                party = self._parties[plugin.name] = self._party(plugin)
            if not walk.spec.verdicts and (party.failed or not party.asked):
                continue  # disconnect: who has seen nothing of the session has nothing to end
            if reach and not self._concerns(party, walk):
                continue
            if party.shadow:
                assert isinstance(party, Shadow)
                question = party.prepare(walk, self._frames)
                if question is not None:
                    questions.append((party, question))
                continue
            self.asking = (plugin.name, walk.spec.name)
            decision = await walk.ask(party, self._host, self._holder)
            if decision is not None:
                return decision
        return walk.decision()

    def _party(self, plugin: PluginLike) -> Party:
        dispatcher = self._dispatcher
        keep = dispatcher.keep_frames
        if plugin.mode != "shadow":
            return Party(plugin, keep_frames=keep)
        session = self._frames.facts.id
        return Shadow(plugin, self._host, dispatcher.observer, session=session, keep_frames=keep)

    def _concerns(self, party: Party, walk: Walk) -> bool:
        """Has the plugin's scope this session, and at rcpt, data and message a recipient in question?"""
        reach = self._dispatcher.reach.get(party.plugin.name)
        if reach is None:
            return True
        if party.in_scope is None:
            facts = self._frames.facts
            party.in_scope = reach.session(facts.listener, facts.client_ip)
        return party.in_scope and (not walk.spec.by_domain or reach.recipients(walk.recipients()))

    def close(self) -> None:
        """The session is over: let go of every sandbox; one with a call under way is killed. Idempotent."""
        for party in self._parties.values():
            party.end()
