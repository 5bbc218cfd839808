"""The daemon of the system tests, and a folder of compiled plugins."""

from __future__ import annotations

from tests.system.conftest import kept, make_daemon, pytest_generate_tests, share_daemon, who

__all__ = ["kept", "make_daemon", "pytest_generate_tests", "share_daemon", "who"]
