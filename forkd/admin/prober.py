"""Is this forkd ready? Asked again and again, so that whoever wants to know is told at once.

Every probe.interval: a probe, a question to qmgr, a question to master. While something is wrong, or forkd
starts, more often, so that a service that came back is in use again within a second.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

from forkd import log
from forkd.admin.peers import Master, Refused
from forkd.admin.probe import probe
from forkd.admin.readiness import Probed, Rule, Seen, first_problem, judge
from forkd.config.probe_schema import Probe
from forkd.rpc.channel import RequestClient, Unavailable
from forkd.rpc.messages import QueueRequest
from forkd.rpc.messages_status import Status

STARTING_S = 0.2
"""Between two looks while forkd starts."""
TROUBLED_S = 1.0
"""Between two while it is not ready."""


class Prober:
    """From run() to its cancellation.

    path     of the workers' socket
    proxied  clients of a listener wait for qmgr
    """

    def __init__(
        self, settings: Probe, master: Master, qmgr: RequestClient, path: Path, *, proxied: bool = False
    ) -> None:
        self._settings = settings
        self._master = master
        self._qmgr = qmgr
        self._path = path
        self._rule = Rule(
            interval_s=float(settings.interval) if settings.enabled else 0.0,
            timeout_s=float(settings.timeout),
            proxied=proxied,
        )
        self._seen = Seen()
        self._looked = asyncio.Event()
        """Once, at a service that is up."""
        self._was = ""
        """The problem that the log has heard of."""

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await self._look()
            await asyncio.sleep(self._pause_s())

    def checks(self) -> dict[str, str]:
        """Check -> why not, by what was seen last."""
        return dict(judge(self._seen, time.monotonic(), self._rule))

    async def checks_now(self) -> dict[str, str]:
        """The same, with master asked again, which may have begun to stop: MASTER_TIMEOUT_S at most.

        An admin that came after a reload, or for one that died, waits for its first probe: that it has seen
        nothing yet is no reason to send clients elsewhere.
        """
        await self._see_state()
        if self._seen.state == "running":
            await self._looked.wait()
        return self.checks()

    async def master_silent(self) -> str:
        """Why master says nothing; empty: it answers. Waits for it as checks_now()."""
        return (await self._status())[1]

    async def shown(self) -> dict[str, Any]:
        """For `forkd status`. Waits as checks_now()."""
        checks, probed = await self.checks_now(), self._seen.probed
        shown: dict[str, Any] = {"ready": not any(checks.values()), "checks": checks}
        if probed is not None:
            shown["probed_at"] = time.time() - (time.monotonic() - probed.at)
            shown["took_ms"] = round(probed.took_s * 1000, 1)
        return shown

    async def _look(self) -> None:
        await self._see_state()
        if self._seen.state != "running":
            if self._seen.silent:
                self._tell()  # while it starts or stops, who asks is told; it is no news for the log
            return
        queue, probed = await asyncio.gather(self._queue(), self._probe())
        self._seen = dataclasses.replace(self._seen, queue=queue, probed=probed)
        if queue:
            await self._see_state()  # it may have been told to end while we waited for it
        self._looked.set()
        self._tell()

    async def _see_state(self) -> None:
        status, silent = await self._status()
        state = "" if status is None else status.state
        replacing = status is not None and _replaces_qmgr(status)
        self._seen = dataclasses.replace(self._seen, state=state, silent=silent, replacing=replacing)

    def _pause_s(self) -> float:
        every_s = float(self._settings.interval)
        if self._seen.state in ("", "starting"):
            return min(every_s, STARTING_S)
        troubled = self._seen.queue or any(self.checks().values())
        return min(every_s, TROUBLED_S) if troubled else every_s

    def _tell(self) -> None:
        """A line when it becomes ready, or is not any more; not for each probe."""
        problem = first_problem(self.checks())
        if bool(problem) != bool(self._was):
            log.readiness(ready=not problem, reason=problem)
        self._was = problem

    async def _status(self) -> tuple[Status | None, str]:
        """What master says, or why it does not."""
        try:
            return await self._master.glance(), ""
        except Refused as why:
            return None, str(why)

    async def _queue(self) -> str:
        try:
            await self._qmgr.request(lambda n: QueueRequest(n=n, act="count"), timeout_s=self._rule.timeout_s)
        except Unavailable:
            return "qmgr does not answer"
        return ""

    async def _probe(self) -> Probed | None:
        return await probe(self._path, self._rule.timeout_s) if self._rule.interval_s else None


def _replaces_qmgr(status: Status) -> bool:
    """A reload has ended it, or is about to, and the next one does not run yet."""
    ours = [each.state for each in status.processes if each.role == "qmgr"]
    return status.reloading and "running" not in ours
