"""Can these compiled plugins be loaded at all? Tried once at the start, in a throw-away sandbox.

It has the walls and limits of every other one, and a moment's time. What it says goes back over a pipe that
was there before the walls: a letter for each step, so that the file at fault is known however it ended; and
at the end a word that only who came so far knows, since a plugin can write to that pipe as well.
"""

from __future__ import annotations

import ctypes
import os

from forkd.sandbox import linux
from forkd.sandbox.indimail_abi import LoadError
from forkd.sandbox.linux import NUMBER, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from forkd.sandbox.child import Armour
    from forkd.sandbox.indimail import Session

MAX_REPORT = 8192

_REPORT_FD, _LEASH_FD, _OUTPUT_FD = 3, 4, 2
_CLOCK_MONOTONIC, _SIGKILL = 1, 9
_FAILED, _BEGUN = b"F", b"B"


def open_report(spec: dict[str, Any]) -> None:
    """Make the pipe, and the word for its end; they stand in the specification from then on."""
    spec["indimail"]["report"] = os.pipe()
    spec["indimail"]["done"] = b"D" + os.urandom(16).hex().encode()


def run(spec: dict[str, Any], session: Session, armour: Armour) -> None:
    """Load and initialise the plugins in a process of their own.

    Raises LoadError; blocks for `timeout_s` at most.
    """
    told = spec["indimail"]
    reader, writer = told["report"]
    pid = linux.fork()
    if pid == 0:
        _act(writer, session, armour, told)
    os.close(writer)
    report = b""
    while len(report) < MAX_REPORT and (piece := os.read(reader, MAX_REPORT)):
        report += piece
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    files = [plugin.file for plugin in session.plugins]
    problem = judge(report, status, files, told["timeout_s"], done=told["done"])
    if problem:
        raise LoadError(problem)


def _act(report: int, session: Session, armour: Armour, told: dict[str, Any]) -> None:
    """In the new process; never returns."""
    try:
        # The zygote's control and listening sockets make room: nothing of those is a plugin's.
        linux.call("dup3", report, _REPORT_FD, 0)
        linux.call("dup3", _OUTPUT_FD, _LEASH_FD, 0)
        _limit_time(told["timeout_s"])
        for step in armour.steps:
            if syscall(*step) < 0:
                raise OSError(ctypes.get_errno(), "a wall of the sandbox could not be raised")
        session.try_all(lambda number: os.write(_REPORT_FD, _BEGUN + b"%d\n" % number))
        os.write(_REPORT_FD, told["done"])
    except BaseException as error:
        text = str(error) if isinstance(error, LoadError) else f"{type(error).__name__}: {error}"
        os.write(_REPORT_FD, _FAILED + text.encode("utf-8", "backslashreplace")[:4000])
    finally:
        os._exit(0)


def _limit_time(timeout_s: float) -> None:
    """SIGKILL from the kernel when it takes too long: a zygote may not kill."""
    whole, part = divmod(timeout_s, 1)
    timer = ctypes.c_int(0)
    event = linux.SignalEvent(0, _SIGKILL, 0, b"")
    value = linux.TimerValue(0, 0, int(whole), int(part * 1e9))
    zero = ctypes.c_long(0)
    pointers = (ctypes.byref(event), ctypes.byref(timer), ctypes.byref(value))
    if syscall(NUMBER["timer_create"], _CLOCK_MONOTONIC, pointers[0], pointers[1]) < 0:
        raise OSError(ctypes.get_errno(), "no timer")
    if syscall(NUMBER["timer_settime"], timer, zero, pointers[2], ctypes.c_void_p(None)) < 0:
        raise OSError(ctypes.get_errno(), "no timer")


def judge(report: bytes, status: int, files: list[str], timeout_s: float, *, done: bytes) -> str:
    """What is wrong, in words; empty: nothing.

    report  what came over the pipe; the plugin may have written to it as well: it is shown, nothing more.
    done    how it ends when all of them are loaded.
    """
    begun, failed, text = report.partition(_FAILED)
    if failed:
        return text.decode("utf-8", "backslashreplace")
    if report.endswith(done) and status == 0:
        return ""
    last = begun.rpartition(_BEGUN)[2].strip()
    where = files[int(last)] if last.isdigit() and int(last) < len(files) else files[0]
    return f"{where} cannot be loaded: {_ended(status, timeout_s)}"


def _ended(status: int, timeout_s: float) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == _SIGKILL:
            return f"it was not done within {timeout_s:g} s, or used more processor time than a session may"
        return f"it ended the process with {_SIGNALS.get(number, f'signal {number}')}"
    return f"it ended the process with exit status {os.WEXITSTATUS(status)}"


_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV", 31: "SIGSYS"}
