"""Fixtures and rules for all tests."""

from __future__ import annotations

import os

import pytest

ALLOWED_LACKS = ("cgroup controllers", "systemd container", "other architecture")
"""In CI a test may be skipped only for these: the reason must begin with one of them."""

os.environ["FORKD_CONFIG"] = ""  # no test reads the configuration of a forkd that this machine has


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What tries a sandbox in several modes: `make test` as an ordinary user, `make test-all` as root too."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        as_root = callspec is not None and callspec.params.get("mode") == "root"
        if as_root and item.get_closest_marker("both_modes") is None:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """A skip in CI for anything but a listed lack of the machine is a failure."""
    outcome = yield
    _refuse_skip(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """So is that of a whole module."""
    outcome = yield
    _refuse_skip(outcome.get_result())


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ALLOWED_LACKS):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, which is not allowed for this reason: {reason}"
