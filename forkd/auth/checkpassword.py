"""What is a checkpassword program told, and what does its exit mean? (cr.yp.to/checkpwd/interface.html)

The program reads `login NUL password NUL timestamp NUL` from descriptor 3, to the end of file, 512 octets at
most. It exits with 1 for a wrong password, 111 for a trouble that may pass, 2 when it was started wrongly;
with a right one it becomes the program that its arguments name, whose exit with 0 says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Literal

DESCRIPTOR: Final = 3
MAX_BYTES: Final = 512

Result = Literal["ok", "refused"]


class Trouble(Exception):  # noqa: N818
    """The program did not come to an answer: 454 4.7.0."""


def told(user: str, password: str, *, now: Callable[[], float] = time.time) -> bytes | None:
    """What stands on descriptor 3, or None when it cannot be said (a NUL, too long): nobody has such a
    password here."""
    if "\0" in user or "\0" in password:
        return None
    octets = f"{user}\0{password}\0Y{int(now())}\0".encode("utf-8", "surrogatepass")
    return octets if len(octets) <= MAX_BYTES else None


def meant(wait_status: int) -> Result:
    """What an end of the program says (a status of waitpid(2)). Raises Trouble."""
    if os.WIFSIGNALED(wait_status):
        raise Trouble(f"killed by signal {os.WTERMSIG(wait_status)}")
    code = os.waitstatus_to_exitcode(wait_status)
    match code:
        case 0:
            return "ok"
        case 1:
            return "refused"
        case 2:
            raise Trouble("exit 2: the program was started wrongly")
        case 111:
            raise Trouble("exit 111: temporary trouble")
        case _:
            raise Trouble(f"exit {code}")
