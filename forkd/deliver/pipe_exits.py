"""What does the end of a delivery program mean? The table of sysexits.h, as pipe(8) of Postfix reads it.

    0             it has the mail
    64 to 78      EXITS, below: the names are sysexits.h's, the codes of RFC 3463 those of Postfix'
                  global/sys_exits.c, which also says which of them are for good
    100, 111      qmail-command(8): for good; not now
    else, a signal, no end in time: not now. (Postfix returns mail for a status that it does not know; here
                  nothing is for good that nobody has said)

Where it has failed and what it wrote begins with a code of RFC 3463 (`5.2.2 mailbox full`), that code counts
and not the status, as in pipe(8), DIAGNOSTICS.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Final

from forkd.deliver.programs import Ending
from forkd.deliver.transport import Status

NOT_STARTED: Final = 127
"""forkd.sandbox.program.EXIT_EXEC: the sandbox could not start it."""
MAX_SAID: Final = 500
"""Characters of what it wrote that are kept as the reason."""

Meaning = tuple[Status, str, str]
"""Status, code of RFC 3463, in words."""

EXITS: Final[Mapping[int, Meaning]] = {
    64: ("failed", "5.3.0", "usage: it was called wrongly"),
    65: ("failed", "5.6.0", "the message is not as it must be"),
    66: ("failed", "5.3.0", "it cannot open its input"),
    67: ("failed", "5.1.1", "no such user"),
    68: ("failed", "5.1.2", "no such host"),
    69: ("failed", "5.3.0", "unavailable"),
    70: ("failed", "5.3.0", "an error of its own"),
    71: ("deferred", "4.3.0", "an error of the system"),
    72: ("failed", "5.3.0", "a file of the system is missing"),
    73: ("failed", "5.2.0", "it cannot make its output file"),
    74: ("failed", "5.3.0", "an error of input or output"),
    75: ("deferred", "4.3.0", "not now"),
    76: ("failed", "5.5.0", "an error of protocol"),
    77: ("failed", "5.7.0", "permission denied"),
    78: ("failed", "5.3.5", "its configuration is wrong"),
    100: ("failed", "5.3.0", "for good"),
    111: ("deferred", "4.3.0", "not now"),
    NOT_STARTED: ("deferred", "4.3.5", "it could not be started"),
}

_CODE: Final = re.compile(r"([45]\.\d{1,3}\.\d{1,3})(?:\s+|\Z)", re.ASCII)
_SIGNALS: Final[Mapping[int, str]] = {
    signal.SIGXCPU: "it used up its processor time (cpu)",
    signal.SIGXFSZ: "it wrote too large a file (file_size)",
    signal.SIGSYS: "it made a system call that its sandbox does not have",
}


def meaning(ending: Ending, said: bytes, *, timeout_s: float) -> Meaning:
    """What became of its recipients, and why, for log and queue: one line of printable characters.

    said  the beginning of what it wrote to its descriptors 1 and 2.
    """
    line = printable(said)
    if ending.error:
        return "deferred", "4.3.5", f"it could not be started: {ending.error}"
    if ending.late:
        return "deferred", "4.3.0", _joined(f"no end within {timeout_s:g} s: it was killed", line)
    if ending.status < 0:
        return "deferred", "4.3.0", _joined(_killed(-ending.status), line)
    if ending.status == 0:
        return "delivered", "2.0.0", _joined("the program has it", line)
    unknown: Meaning = ("deferred", "4.3.0", "which sysexits.h does not know")
    status, enhanced, words = EXITS.get(ending.status, unknown)
    if code := _CODE.match(line):
        enhanced, line = code[1], line[code.end() :]
        status = "failed" if enhanced.startswith("5") else "deferred"
    return status, enhanced, _joined(f"exit {ending.status} ({words})", line)


def printable(said: bytes) -> str:
    """One line of it, whatever it has in it; empty: it said nothing."""
    line = " ".join(said.decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in line)[:MAX_SAID]


def _killed(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    why = _SIGNALS.get(number)
    return f"killed by {name}" + (f": {why}" if why else "")


def _joined(what: str, said: str) -> str:
    return f"{what}: {said}" if said else what
