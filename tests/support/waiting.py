"""How does a test wait for another process? By asking until it is so, never by sleeping a guess."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(predicate: Callable[[], T], *, timeout_s: float = 10, what: str = "") -> T:
    """Ask `predicate` until it returns something true, and return that; AssertionError at the deadline.

    The interval grows from 1 to 50 ms, so that quick things stay quick. An exception of the
    predicate's ends the wait, except OSError (a socket or file that is not there yet).
    """
    deadline = time.monotonic() + timeout_s
    interval_s = 0.001
    last: object = None
    while True:
        try:
            answer = predicate()
            if answer:
                return answer
            last = answer
        except OSError as error:
            last = error
        if time.monotonic() >= deadline:
            name = what or getattr(predicate, "__name__", repr(predicate))
            raise AssertionError(f"not within {timeout_s} s: {name} (last: {last!r})")
        time.sleep(interval_s)
        interval_s = min(interval_s * 1.5, 0.05)
