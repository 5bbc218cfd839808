"""Which of many values does `make test` try? The first few; `make test-all` tries each."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def quick_first(values: Iterable[object], quick: int = 1) -> list[object]:
    """For parametrize(): all values, those behind the first `quick` of them marked slow."""
    return [
        value if place < quick else pytest.param(value, marks=pytest.mark.slow)
        for place, value in enumerate(values)
    ]
