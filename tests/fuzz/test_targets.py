"""A short run of every fuzz target: its corpus, and what hypothesis makes of its seeds."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
TARGETS = ("header_scanner", "spool_file", "call_answer", "smtp_client")
"""The engine's has a test of its own (test_smtp_server.py)."""


def one_input(target: str) -> Callable[[bytes], None]:
    return importlib.import_module(f"tests.fuzz.{target}").one_input


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds(target: str) -> None:
    """Each file reaches something that the others do not, or was once a reason to think."""
    run = one_input(target)
    found = seeds(target)
    assert found
    for data in found:
        run(data)


@pytest.mark.parametrize("target", TARGETS)
def test_what_hypothesis_makes_of_the_seeds_holds(target: str) -> None:
    """Seeds cut, joined and changed: a taste of a long run (explore.py)."""
    run = one_input(target)
    known = seeds(target)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def taste(draw: st.DataObject) -> None:
        data = bytearray(draw.draw(st.sampled_from(known)))
        for _ in range(draw.draw(st.integers(0, 4))):
            at = draw.draw(st.integers(0, len(data)))
            piece = draw.draw(st.binary(max_size=6) | st.sampled_from(known).map(lambda s: s[:40]))
            data[at : at + draw.draw(st.integers(0, 8))] = piece
        run(bytes(data))

    taste()
