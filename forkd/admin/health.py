"""May clients be sent here? `/healthz` and `/readyz`, for balancers and for whoever restarts what is broken.

/healthz  200: admin lives, and master answers it. 503: why not
/readyz   200: every check of readiness.py is passed; 503: some are not. A line for each, with why not.
          Master is asked at once; the rest is as the last probe had it: no client makes work for workers
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from forkd.admin.http import Answer, Paths
from forkd.admin.prober import Prober


def paths(prober: Prober) -> Paths:
    """The rows for the table of paths."""

    async def healthz() -> Answer:
        return alive(await prober.master_silent())

    async def readyz() -> Answer:
        return ready(await prober.checks_now())

    return {"/healthz": healthz, "/readyz": readyz}


def alive(silent: str) -> Answer:
    """`silent`: why master said nothing, empty where it did."""
    return _answer(silent or "ok", well=not silent)


def ready(checks: Mapping[str, str]) -> Answer:
    """Of each check why it is not passed, empty where it is."""
    lines = (f"{name}: {why or 'ok'}" for name, why in checks.items())
    return _answer("\n".join(lines), well=not any(checks.values()))


def _answer(text: str, *, well: bool) -> Answer:
    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(f"{text}\n".encode(), status)
