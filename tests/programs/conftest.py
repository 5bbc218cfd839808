"""The real daemon with program plugins: started as in the system tests."""

from __future__ import annotations

from tests.system.conftest import kept, make_daemon, pytest_generate_tests, share_daemon, who

__all__ = ["kept", "make_daemon", "pytest_generate_tests", "share_daemon", "who"]
