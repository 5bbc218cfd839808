"""What becomes of what nobody waits for: the answers of shadow plugins, the changes of breakers?

A line of the log for each difference and each change (for what is the same, only where somebody looks at
debug lines), and counters: `plugin.NAME.shadow_same`, `.shadow_differs`, `.shadow_dropped`,
`.breaker.STATE`. Nothing here can reach a client.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from forkd import log
from forkd.hooks.breaker import Change, State
from forkd.hooks.decision import PluginRecord
from forkd.hooks.shadow import Shadowed
from forkd.worker.failures import Failures
from forkd.worker.telling import one_line


class Watcher:
    """The worker's forkd.hooks.given.Observer.

    breakers  plugin -> state, of those that are not closed; for `forkd status`.
    """

    def __init__(self, failures: Failures, background: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._failures = failures
        self._background = background
        self.breakers: dict[str, str] = {}

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Beside everything else; waited for a moment when the worker ends."""
        self._background(work)

    def breaker_changed(self, change: Change) -> None:
        """Of one plugin, in this worker."""
        state = change.state.value
        if change.state is State.CLOSED:
            self.breakers.pop(change.plugin, None)
        else:
            self.breakers[change.plugin] = state
        self._failures.count(change.plugin, f"breaker.{state}")
        log.breaker(plugin=change.plugin, state=state, reason=change.reason)

    def shadow_answered(self, session: str, shadowed: Shadowed) -> None:
        """Beside what was decided."""
        self._failures.count(shadowed.plugin, "shadow_differs" if shadowed.differs else "shadow_same")
        if shadowed.log or shadowed.count:
            self._failures.told(session, shadowed)
        log.shadow(
            plugin=f"{shadowed.plugin}.{shadowed.by}" if shadowed.by else shadowed.plugin,
            hook=shadowed.hook,
            session=session,
            differs=shadowed.differs,
            would=shadowed.would,
            did=shadowed.did,
            reply="" if shadowed.reply is None else one_line(shadowed.reply),
            edits=shadowed.edits,
            ms=shadowed.ms,
        )

    def shadow_failed(self, session: str, record: PluginRecord) -> None:
        """As any failure; nobody was answered by it."""
        self._failures.failed(session, record)

    def shadow_dropped(self, session: str, *, plugin: str, hook: str, why: str) -> None:
        """Counted; the first reason that comes to mind is a busy machine, so no line for each."""
        self._failures.count(plugin, "shadow_dropped")
        log.debug("a shadow call was dropped", plugin=plugin, hook=hook, session=session, why=why)
