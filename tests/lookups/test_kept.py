"""forkd/lookups/kept.py: what is remembered is bounded in octets, whoever chooses names and answers."""

from __future__ import annotations

import time
import tracemalloc

from forkd.lookups.kept import MAX_ANSWER_BYTES, MAX_BYTES, Kept
from forkd.lookups.resolver import Answer


def found(*records: object) -> Answer:
    return Answer("found", records, time.monotonic() + 1000)


def test_large_answers_are_not_kept():
    """Texts of 63 KB that a plugin is made to ask for do not fill the broker."""
    kept = Kept(10)
    kept.put((("large", "example"), "txt"), found(b"x" * 63_000))
    kept.put((("many", "example"), "mx"), found(*[(10, f"{n:0250}") for n in range(200)]))
    assert (len(kept), kept.octets) == (0, 0)
    kept.put((("x", "example"), "txt"), found(b"x" * 1000))
    kept.put((("x", "example"), "txt"), found(b"x" * MAX_ANSWER_BYTES))
    assert kept.get((("x", "example"), "txt")) is None


def test_octets_are_bounded_and_the_oldest_goes_first():
    """As many as fit; the memory they take is about what is counted."""
    kept = Kept(1_000_000)
    first, last = (("0", "example"), "txt"), (("9999", "example"), "txt")
    tracemalloc.start()
    try:
        for n in range(10_000):
            kept.put(((str(n), "example"), "txt"), found(bytes(8000)))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.octets <= MAX_BYTES
    assert used < MAX_BYTES * 1.1
    assert len(kept) > 3000
    assert kept.get(first) is None
    assert kept.get(last) is not None


def test_long_names_count_too():
    """A hundred labels in a name cost more than its answer."""
    kept = Kept(1_000_000)
    tracemalloc.start()
    try:
        for n in range(5_000):
            name = tuple(f"{n:x}.{label:x}"[:2] + chr(97 + label % 26) for label in range(60))
            kept.put(((f"{n}", *name), "a"), found("192.0.2.1"))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < MAX_BYTES * 1.1


def test_what_has_expired_is_forgotten_with_its_octets():
    """And what is put twice counts once."""
    kept = Kept(10)
    question = (("x", "example"), "a")
    kept.put(question, found("192.0.2.1"))
    once = kept.octets
    kept.put(question, found("192.0.2.2"))
    assert kept.octets == once
    kept.put(question, Answer("found", ("192.0.2.1",), time.monotonic() - 1))
    assert kept.get(question) is None
    assert (len(kept), kept.octets) == (0, 0)
