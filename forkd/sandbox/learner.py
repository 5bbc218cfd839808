"""What does a zygote do so that refused calls can be named (learn mode)? Loaded there in that mode only.

It asks for a listener with its filter and hands it to whoever started it, before the plugin is loaded, and
keeps none: a process that had one could answer its own calls. And it makes a signal write the Python
stack to a socket: learn.py, at the other end, sends that signal to a process whose call waits.
"""

from __future__ import annotations

import _socket
import ctypes
import faulthandler
import json
import os
import struct

from forkd.sandbox import confine, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LEARN_FD = 199
"""The socket, in the zygote and in its sandboxes: out of the way of their other descriptors."""
STACK_SIGNAL = 12
"""SIGUSR2: whoever gets it writes its stack to LEARN_FD."""
_NEW_LISTENER = 1 << 3


def begin(control: Any, spec: dict[str, Any]) -> Callable[[linux.Filter], None]:
    """Before the walls: make the socket, tell the other end what may be read, get ready to dump stacks.

    Returns what stands in the place of confine.load_filter(): the listener goes to the other end at once.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    os.dup2(ours.fileno(), LEARN_FD, inheritable=False)
    ours.close()
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, LEARN_FD)
    readable = [*spec["read_paths"], *confine.interpreter_paths()]
    record = json.dumps({"t": "learn", "pid": os.getpid(), "readable": readable}).encode()
    control.sendmsg([record], [_rights(theirs.fileno())])
    theirs.close()
    faulthandler.register(STACK_SIGNAL, file=LEARN_FD, all_threads=False)

    def load_filter(program: linux.Filter) -> None:
        listener = linux.call("seccomp", linux.SECCOMP_SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
        channel.sendmsg([b"L"], [_rights(listener)])
        channel.detach()
        os.close(listener)

    return load_filter


def _rights(fd: int) -> tuple[int, int, bytes]:
    return _socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd)
