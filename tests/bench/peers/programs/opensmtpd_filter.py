"""A filter for OpenSMTPD (smtpd-filters(7)) with three checks: sender, recipient, and the message's lines.

The recipients abort@, exit@, raise@, sleep@ and spin@ make it misbehave. Standard library only.
"""

from __future__ import annotations

import os
import sys
import time

PHASES = ("mail-from", "rcpt-to", "data-line", "commit")


def misbehave(word: str) -> None:
    if word == "abort":
        os.abort()
    if word == "exit":
        os._exit(1)
    if word == "raise":
        raise RuntimeError("bug in the filter")
    if word == "sleep":
        time.sleep(1e6)
    while word == "spin":
        pass


def main() -> None:
    write, flush = sys.stdout.write, sys.stdout.flush
    bad: set[str] = set()
    for line in sys.stdin:
        # filter|version|time|smtp-in|phase|session|token|what
        fields = line.rstrip("\n").split("|", 7)
        if fields[0] == "config":
            if fields[1] == "ready":
                write("".join(f"register|filter|smtp-in|{phase}\n" for phase in PHASES) + "register|ready\n")
                flush()
            continue
        if fields[0] != "filter":
            continue
        phase, session, token = fields[4:7]
        what = fields[7] if len(fields) > 7 else ""
        if phase == "data-line":
            if "EICAR" in what:
                bad.add(session)
            write(f"filter-dataline|{session}|{token}|{what}\n")
            if what == ".":
                flush()
            continue
        verdict = "proceed"
        word = what.strip("<>").split("@", 1)[0]
        if phase == "rcpt-to":
            misbehave(word)
        if (phase == "commit" and session in bad) or (phase != "commit" and word == "bad"):
            verdict = "reject|550 5.7.1 no"
        bad.discard(session)
        write(f"filter-result|{session}|{token}|{verdict}\n")
        flush()


main()
