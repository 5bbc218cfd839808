"""What has one session to do with plugins? It asks them, tells them what changed, and the log how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from forkd import log
from forkd.hooks.dispatcher import Decision, Holder, PluginRecord, SessionFacts, SessionHooks
from forkd.hooks.walk import BREAKER_OPEN, FAILED_EARLIER
from forkd.smtp.address import Mailbox
from forkd.worker.services import Services

NO_CALL = frozenset({"overload", BREAKER_OPEN, FAILED_EARLIER})
"""Failures of a call that was not even made."""


class Asker(Holder, Protocol):
    """The session, as its plugins need it: who it is, and what it tells them."""

    @property
    def id(self) -> str: ...
    def facts(self) -> SessionFacts:
        """Called when the first hook is reached, and again after release()."""
        ...


class SessionPlugins:
    """One session's side of all plugins; costs nothing before the first of them is asked."""

    __slots__ = ("_hooks", "_services", "_session", "_stories")

    def __init__(self, services: Services, session: Asker) -> None:
        self._services = services
        self._session = session
        self._hooks: SessionHooks | None = None
        self._stories: list[str] = []

    async def ask(self, hook: str, **arguments: Any) -> Decision:
        """Ask the plugins of a hook, as SessionHooks.run."""
        decision = await self._run(self._made(), hook, **arguments)
        self._stories += [record.short() for record in decision.records]
        return decision

    @property
    def asking(self) -> str:
        """`clamav message`: who is asked just now, and what; empty: nobody."""
        asking = None if self._hooks is None else self._hooks.asking
        return "" if asking is None else " ".join(asking)

    def update(self, **facts: Any) -> None:
        """Facts have changed; names of SessionFacts. Who is asked later is told them all then."""
        if self._hooks is not None:
            self._hooks.update(**facts)

    def hello(self, name: str, *, extended: bool) -> None:
        """HELO or EHLO was accepted."""
        self.update(helo=name, esmtp=extended)

    def begin(self, sender: Mailbox | None, *, smtputf8: bool = False) -> None:
        """MAIL was accepted."""
        if self._services.dispatcher.keeps_envelope or smtputf8:
            self._made().begin(sender, smtputf8=smtputf8)

    def add_recipient(self, recipient: Mailbox) -> None:
        """RCPT was accepted, and no plugin dropped it; the rewritten one where a plugin rewrote it."""
        if self._services.dispatcher.keeps_envelope:
            self._made().add_recipient(recipient)

    def reset(self) -> None:
        """The transaction is over."""
        if self._hooks is not None:
            self._hooks.reset()

    def release(self, *, cut_off: bool) -> None:
        """The session is over: let the sandboxes go, after their disconnect hook; not when a call was
        cut off in the middle."""
        hooks, self._hooks = self._hooks, None
        if hooks is None:
            return
        if self._services.dispatcher.wants("disconnect") and not cut_off:
            self._services.background(self._say_goodbye(hooks))
        else:
            hooks.close()

    def take_stories(self) -> list[str]:
        """One short text per call since the last log line that told them."""
        stories, self._stories = self._stories, []
        return stories

    def _made(self) -> SessionHooks:
        if self._hooks is None:
            self._hooks = self._services.dispatcher.session(self._session.facts(), self._session)
        return self._hooks

    async def _say_goodbye(self, hooks: SessionHooks) -> None:
        """No story of it: the session's last line has them, and is written by now."""
        try:
            await self._run(hooks, "disconnect")
        finally:
            hooks.close()

    async def _run(self, hooks: SessionHooks, hook: str, **arguments: Any) -> Decision:
        try:
            decision = await hooks.run(hook, **arguments)
        except BaseException:  # the client has left, as a rule: what was said until then is told all the same
            self._tell(hooks.cut_off, _about(hook, arguments))
            raise
        if decision.records:
            self._tell(decision.records, _about(hook, arguments))
        return decision

    def _tell(self, records: Sequence[PluginRecord], about: str) -> None:
        for record in records:
            log.plugin_call(
                session=self._session.id,
                plugin=record.plugin,
                hook=record.hook,
                verdict=record.verdict,
                ms=record.ms,
                by=record.by,
                failure=record.failure,
                edits=record.edits,
                about=about,
            )
            if record.failure not in NO_CALL:
                self._services.failures.asked(record.plugin, record.ms)
            if record.failure:
                self._tell_failure(record)
            elif record.log or record.count:
                self._services.failures.told(self._session.id, record)

    def _tell_failure(self, record: PluginRecord) -> None:
        services = self._services
        if record.failure == "overload":
            services.counters.overloads += 1
            services.failures.count(record.plugin, "overload")
            log.overload(what=f"plugin {record.plugin}", detail=record.detail, session=self._session.id)
        elif record.failure == BREAKER_OPEN:
            # No line for each: that it opened has one, and the refusal's own line says why.
            services.failures.count(record.plugin, "breaker_refused")
        elif record.failure == FAILED_EARLIER:
            # Nor here: the failure itself had one, and a client may go on with a hundred recipients.
            services.counters.plugin_failures += 1
            services.failures.count(record.plugin, "failed.failed_earlier")
        else:
            services.counters.plugin_failures += 1
            services.failures.failed(self._session.id, record)


def _about(hook: str, arguments: Mapping[str, Any]) -> str:
    """Whom a hook is about, for the log; no other argument: passwords are among them."""
    if hook == "rcpt":
        return str(arguments["recipient"])
    return str(arguments["sender"] or "<>") if hook == "mail" else ""
