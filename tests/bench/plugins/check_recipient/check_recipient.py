"""check_recipient - the benchmark's check at RCPT: refuses bad@, and misbehaves when asked to

The recipient's local part names the fault: abort, exit, raise, segv, memory, sleep, spin (in Python),
cspin (in one C call that never gives the interpreter back, with every signal blocked).
"""

from __future__ import annotations

import time
from typing import Any

from forkd.sdk import Plugin, Recipient, Session, Verdict, deny


def misbehave(word: str) -> None:
    """Do as the word says; returns for any other word. Imports here cost only the sandbox that trips."""
    if word == "abort":
        import os

        os.abort()
    if word == "exit":
        import os

        os._exit(1)
    if word == "raise":
        raise RuntimeError("bug in the plugin")
    if word == "segv":
        import ctypes

        ctypes.string_at(0)
    if word == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(1 << 20))
    if word == "sleep":
        time.sleep(1e6)
    while word == "spin":
        pass
    if word == "cspin":
        import _signal  # type: ignore[import-not-found]
        from collections import deque
        from itertools import repeat

        _signal.pthread_sigmask(_signal.SIG_BLOCK, range(1, 65))
        deque(repeat(0), maxlen=0)


FAULTS = frozenset(("abort", "exit", "raise", "segv", "memory", "sleep", "spin", "cspin"))


def rcpt(session: Session, recipient: Recipient) -> Verdict | None:
    """Compare the local part."""
    if recipient.local in FAULTS:
        misbehave(recipient.local)
    return deny("5.7.1", "no") if recipient.local == "bad" else None


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Give the table of hooks."""
    return Plugin(rcpt=rcpt)
