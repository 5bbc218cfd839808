"""What do the log, the counters and the crash records get to know of a plugin's failure?

The client has its answer by then: how its sandbox ended is waited for beside everything else, so that one
line tells it all.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import msgspec

from forkd import log, metrics
from forkd.config.schema import PluginConfig
from forkd.config.units import format_duration, format_size
from forkd.hooks.decision import PluginRecord
from forkd.hooks.given import Ended
from forkd.hooks.shadow import Shadowed
from forkd.metrics_slot import Slot
from forkd.queue.ids import Ids
from forkd.rpc import records
from forkd.rpc.records import CrashRecord
from forkd.sandbox.output import scrubbed
from forkd.worker.crashes import Crashes

NAMES = 500
"""Of counters, in one worker: they go to master in one record. Those beyond are not counted."""
METRICS, ALL_METRICS = 64, 300
"""Of one plugin's own, and of all; what is left of NAMES is for what happens to them."""
NOT_RECORDED = frozenset({"unavailable", "zygote ended"})
"""Causes of which there is nothing to replay; of calls that were not made nothing remains either."""


class Failures:
    """All plugins' failures in this worker.

    tally       what happened so often since the worker started, by names that are made as it happens:
                `plugin.NAME.failed.CAUSE` and others of `plugin.NAME`; they never fall.
    background  runs what nobody waits for.
    slot        where plugins' own counters are counted too; None: nowhere.
    crashes     where records go; None: none are kept. hashes: of plugins' files, for them.
    """

    def __init__(
        self,
        plugins: Iterable[PluginConfig],
        *,
        background: Callable[[Coroutine[Any, Any, None]], None],
        ids: Ids,
        crashes: Crashes | None = None,
        hashes: Mapping[str, str] | None = None,
        slot: Slot | None = None,
    ) -> None:
        self.tally: Counter[str] = Counter()
        self._took: dict[str, list[float]] = {}
        self._plugins = {plugin.name: plugin for plugin in plugins}
        self._background = background
        self._ids = ids
        self._crashes = crashes
        self._hashes = hashes or {}
        self._slot = slot

    def asked(self, plugin: str, ms: float) -> None:
        """A call was made, and took so long: `plugin.NAME.calls`, and `plugin.NAME.us`, of all together."""
        took = self._took.get(plugin)
        if took is None:
            took = self._took[plugin] = [0, 0.0]
        took[0] += 1
        took[1] += ms

    def counters(self) -> dict[str, int]:
        """All that is counted by plugin, for the heartbeat."""
        times = {
            f"plugin.{plugin}.{what}": number
            for plugin, (calls, ms) in self._took.items()
            for what, number in (("calls", int(calls)), ("us", int(ms * 1000)))
        }
        return {**self.tally, **times}

    def count(self, plugin: str, what: str, by: int = 1) -> None:
        """One more of `plugin.NAME.WHAT`."""
        name = f"plugin.{plugin}.{what}"
        if name in self.tally or len(self.tally) < NAMES:
            self.tally[name] += by

    def told(self, session: str, record: PluginRecord | Shadowed) -> None:
        """What a plugin itself has logged and counted; its counters are `plugin.NAME.count.METRIC`."""
        for line in record.log:
            log.plugin_log(plugin=record.plugin, session=session, text=line)
        prefix = f"plugin.{record.plugin}.count."
        for metric, by in record.count.items():
            if prefix + metric in self.tally or self._room(prefix):
                self.count(record.plugin, f"count.{metric}", by)
                if self._slot is not None:
                    self._slot.add(metrics.PLUGIN_COUNTS, record.plugin, metric, by=by)

    def _room(self, prefix: str) -> bool:
        metrics = [name for name in self.tally if ".count." in name]
        return len(metrics) < ALL_METRICS and sum(name.startswith(prefix) for name in metrics) < METRICS

    def failed(self, session: str, record: PluginRecord) -> None:
        """A call brought no usable answer (or was not even made): count, and tell."""
        if record.remains is None:
            self._write(session, record, None)
        else:
            self._background(self._tell(session, record))

    async def _tell(self, session: str, record: PluginRecord) -> None:
        assert record.remains is not None
        ended: Ended | None = None
        try:
            ended = await record.remains.sandbox.last_report()
        finally:  # a worker that stops tells it too
            if ended is not None and ended.cause:
                record = dataclasses.replace(record, failure=ended.cause, detail=ended.detail)
            self._write(session, record, ended)

    def _write(self, session: str, record: PluginRecord, ended: Ended | None) -> None:
        self.count(record.plugin, f"failed.{record.failure.replace(' ', '_')}")
        record = _scrubbed(record)
        plugin = self._plugins[record.plugin]
        call = (ended.call if ended is not None else "") or "number unknown"
        call = call if record.failure == "syscall" else ""
        kept = self._keep(session, record, f"{record.detail}: {call}" if call else record.detail)
        usage: dict[str, Any] = {}
        if ended is not None:
            usage = {
                "pid": ended.pid,
                "claimed_pid": 0 if ended.pid else ended.claimed_pid,
                "status": ended.status,
                "cpu_ms": (ended.user_s + ended.system_s) * 1000,
                "memory_kib": ended.memory >> 10,
            }
        log.plugin_failure(
            plugin=record.plugin,
            version=plugin.version,
            hook=record.hook,
            cause=record.failure,
            session=session,
            detail=record.detail,
            call=call,
            on_failure=record.verdict,
            output=record.output,
            record=kept,
            limit=_limit(plugin, record.failure),
            **usage,
        )

    def _keep(self, session: str, record: PluginRecord, detail: str) -> str:
        """The id of its crash record; empty: there will be none."""
        remains = record.remains
        if remains is None:
            return ""
        message = remains.message
        id_ = ""
        if self._crashes is not None and remains.frames and record.failure not in NOT_RECORDED:
            plugin = self._plugins[record.plugin]
            crash = CrashRecord(
                id=self._ids.new(),
                at=time.time(),
                plugin=plugin.name,
                version=plugin.version,
                hash=self._hashes.get(plugin.name, ""),
                group=plugin.group,
                session=session,
                hook=record.hook,
                cause=record.failure,
                detail=detail,
                output=record.output,
                cut=remains.cut,
                limits=_limits(plugin),
            )
            if self._crashes.submit(crash, remains.frames, message):
                id_, message = crash.id, None
            else:
                self.count(plugin.name, "crash_lost")
        if message is not None:
            message.close()
        return id_


def _scrubbed(record: PluginRecord) -> PluginRecord:
    """Without passwords that the plugin was asked about."""
    if record.remains is None or not record.remains.auth:
        return record
    passwords = records.passwords(record.remains.auth)
    return dataclasses.replace(
        record, detail=scrubbed(record.detail, passwords), output=scrubbed(record.output, passwords)
    )


def _limits(plugin: PluginConfig) -> dict[str, int | float | str]:
    """By name; sizes and times as plain numbers."""
    plain: dict[str, int | float | str] = {}
    for field in msgspec.structs.fields(plugin.limits):
        value = getattr(plugin.limits, field.name)
        plain[field.name] = (
            value if isinstance(value, str) else int(value) if value == int(value) else float(value)
        )
    return plain


def _limit(plugin: PluginConfig, cause: str) -> str:
    """The one of its limits that ended a call; where it was late, the failure's detail says it."""
    if cause == "memory":
        return f"memory = {format_size(plugin.limits.memory)}"
    return f"cpu = {format_duration(plugin.limits.cpu)}" if cause == "cpu" else ""
