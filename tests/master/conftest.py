"""Fixtures of more than one file here."""

from tests.support.hostile import start, who  # noqa: F401 - of test_hostile_zygote*.py
