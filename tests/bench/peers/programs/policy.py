"""A policy service for Postfix, started by spawn(8) for each smtpd: one check at RCPT.

The recipients pabort@, praise@, psleep@ and pspin@ make it misbehave. Standard library only.
"""

from __future__ import annotations

import os
import sys
import time

request: dict[str, str] = {}
for line in sys.stdin:
    name, equals, value = line.rstrip("\n").partition("=")
    if equals:
        request[name] = value
        continue
    word = request.get("recipient", "").split("@", 1)[0]
    if word == "pabort":
        os.abort()
    if word == "praise":
        raise RuntimeError("bug in the policy service")
    if word == "psleep":
        time.sleep(1e6)
    while word == "pspin":
        pass
    sys.stdout.write("action=REJECT\n\n" if word == "bad" else "action=DUNNO\n\n")
    sys.stdout.flush()
    request = {}
