"""What has one session to do with plugins? It asks them, tells them what changed, and the log how it went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forkd import log
from forkd.hooks.dispatcher import Decision, PluginRecord, SessionFacts, SessionHooks
from forkd.smtp.address import Mailbox
from forkd.worker.services import Services


class SessionPlugins:
    """One session's side of all plugins; costs nothing before the first of them is asked.

    session   its id
    facts     called once, when the first hook is reached
    """

    __slots__ = ("_facts", "_hooks", "_services", "_session", "_stories")

    def __init__(self, services: Services, session: str, facts: Callable[[], SessionFacts]) -> None:
        self._services = services
        self._session = session
        self._facts = facts
        self._hooks: SessionHooks | None = None
        self._stories: list[str] = []

    async def ask(self, hook: str, **arguments: Any) -> Decision:
        """Ask the plugins of a hook, as SessionHooks.run."""
        decision = await self._made().run(hook, **arguments)
        self._remember(decision)
        return decision

    def hello(self, name: str, *, extended: bool) -> None:
        """HELO or EHLO was accepted."""
        if self._hooks is not None:
            self._hooks.update(helo=name, esmtp=extended)

    def begin(self, sender: Mailbox | None) -> None:
        """MAIL was accepted."""
        if self._services.dispatcher.reads_envelope:
            self._made().begin(sender)

    def add_recipient(self, recipient: Mailbox) -> None:
        """RCPT was accepted, and no plugin dropped it."""
        if self._services.dispatcher.reads_envelope:
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
            self._hooks = self._services.dispatcher.session(self._facts())
        return self._hooks

    async def _say_goodbye(self, hooks: SessionHooks) -> None:
        try:
            self._remember(await hooks.run("disconnect"))
        finally:
            hooks.close()

    def _remember(self, decision: Decision) -> None:
        for record in decision.records:
            self._stories.append(record.short())
            if record.failure:
                self._tell_failure(record)

    def _tell_failure(self, record: PluginRecord) -> None:
        counters = self._services.counters
        if record.failure == "overload":
            counters.overloads += 1
            log.overload(what=f"plugin {record.plugin}", detail=record.detail, session=self._session)
            return
        counters.plugin_failures += 1
        log.plugin_failure(
            plugin=record.plugin,
            hook=record.hook,
            cause=record.failure,
            session=self._session,
            detail=record.detail,
            on_failure=record.verdict,
            output=record.output,
        )
