"""How does a worker learn that a sandbox is dead, and of what? From a deadline, an end of file, its zygote.

They come in any order, and the first that says why is what the call under way fails with. A client never
waits long for the zygote's word; the log, which has none, does (last_report).
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
import signal
import sys
from typing import TYPE_CHECKING

from forkd.sandbox.report import Report, cause, report
from forkd.sandbox.wire import Death

if TYPE_CHECKING:
    from forkd.sandbox.held import Sandbox

LINGER_S = 0.01
"""End of file on a channel: who ends is reported within that; who only closed it is killed."""
REPORT_WAIT_S = 0.05
"""How long a call whose sandbox was killed for that waits for the zygote's word; its client fails anyway."""
LAST_REPORT_S = 2.0
"""How long last_report() waits for it: no client waits there. Its zygote has said so within 0.1 s where the
machine is not busy."""
_UNTOLD = ("crash", "the sandbox ended without an answer")
"""What is said of a death that its zygote has not told yet."""
_ORPHANED = ("zygote ended", "its zygote ended or broke off, and nobody says how the sandbox did")
"""And of one that it will never tell: it died itself, and took its sandboxes along where they are in its PID
namespace, or master ended it with them. For the client and the breaker such a call failed like any other
(that one opens only where nobody's calls succeed). But nothing is known against the plugin: so a cause of its
own in log and counters, and no crash record (worker/failures.py)."""
_TIOCOUTQ = 0x5411
"""ioctl(2): octets sent that the other end has not read; for unix sockets, the memory they take."""


def late(sandbox: Sandbox, timeout_s: float) -> None:
    """The call under way has had its `timeout_s`."""
    if sandbox.closed and sandbox.failure is None and sandbox.answer is not None:
        # It died, and the zygote has not said how within the call's time.
        ended(sandbox, None)
    elif _unborn(sandbox):
        sandbox.fail("unavailable", f"its zygote made no sandbox within {timeout_s:g} s")
    else:
        sandbox.fail("deadline", f"no answer within {timeout_s:g} s")


def _unborn(sandbox: Sandbox) -> bool:
    """Nobody has read the first frame: there is no sandbox. No client, and no plugin that runs, can feign
    that: who reads is forkd's own code in a child that the zygote forked."""
    if sandbox.pid or sandbox.closed:
        return False
    unread = fcntl.ioctl(sandbox.channel.fileno(), _TIOCOUTQ, bytes(4))
    return int.from_bytes(unread, sys.byteorder) > 0


def lost(sandbox: Sandbox) -> None:
    """End of file: it is dead or has closed its channel. Wait a moment for the zygote's word on how."""
    if sandbox.closed or sandbox.gone:
        return
    sandbox.gone = True
    kennel = sandbox.kennel
    if sandbox.orphaned:
        ended(sandbox, None)
    else:
        kennel.host.forget(sandbox.channel.fileno())
        kennel.unspare(sandbox)
        kennel.host.loop.call_later(LINGER_S, _linger, sandbox)


def _linger(sandbox: Sandbox) -> None:
    """Not reported dead in time: it closed its channel and lives, or the machine is slow."""
    if sandbox.closed:
        return
    sandbox.lingered = True
    sandbox.close()
    sandbox.kennel.host.loop.call_later(REPORT_WAIT_S, ended, sandbox, None)


def ended(sandbox: Sandbox, death: Death | None) -> None:
    """Its death was reported, or will not be in time."""
    if sandbox.failure is not None:
        return
    if death is None:
        sandbox.fail(*(_ORPHANED if sandbox.orphaned else _UNTOLD))
    else:
        sandbox.fail(*_why(sandbox, death))


def orphaned(sandbox: Sandbox) -> None:
    """The zygote that forked it is gone: no word on it will come."""
    sandbox.orphaned = True
    if sandbox.closed or sandbox.gone:
        ended(sandbox, None)
    if sandbox.awaited is not None:
        _settle(sandbox.awaited)


def _why(sandbox: Sandbox, death: Death) -> tuple[str, str]:
    why = cause(death, cpu_s=sandbox.kennel.plugin.cpu_s)
    killed = os.WIFSIGNALED(death.status) and os.WTERMSIG(death.status) == signal.SIGKILL
    if sandbox.lingered and killed and why[0] != "cpu":  # its CPU timer's kill can be told late
        return "crash", "it closed its channel without an answer, and was killed"
    return why


def died(sandbox: Sandbox, death: Death) -> None:
    """The zygote reports its death."""
    if sandbox.answer is not None and not sandbox.closed and not sandbox.gone:
        sandbox.receive()  # its last words may wait in the channel: what they say is known better than this
    ours = sandbox.closed and not sandbox.gone
    sandbox.report = report(death, plugin=sandbox.plugin, session=sandbox.session, pid=sandbox.pid, ours=ours)
    if sandbox.failure == _UNTOLD:
        # The call could not wait for this word; the log can.
        why, detail = _why(sandbox, death)
        sandbox.report = dataclasses.replace(sandbox.report, cause=why, detail=detail)
    sandbox.kennel.host.on_report(sandbox.report)
    if sandbox.awaited is not None:
        _settle(sandbox.awaited)
    if not ours:
        # The end of file may still be to come, or a call may wait for this word.
        sandbox.gone = True
        sandbox.close()
        ended(sandbox, death)


async def last_report(sandbox: Sandbox) -> Report | None:
    """How it ended; after close(). Waits up to LAST_REPORT_S for its zygote's word; None: there was none. One
    whose zygote is gone has a report that says nothing but that.

    Where it was killed for a system call, it waits a moment more for that one's name.
    """
    host = sandbox.kennel.host
    if sandbox.report is None and sandbox.awaited is None and not sandbox.orphaned:
        awaited = sandbox.awaited = host.loop.create_future()
        timer = host.loop.call_later(LAST_REPORT_S, _settle, awaited)
        try:
            await awaited
        finally:
            timer.cancel()
    report_ = sandbox.report
    if report_ is None and sandbox.orphaned:
        cause_, detail = _ORPHANED if sandbox.failure == _UNTOLD else ("", "")
        return Report(
            plugin=sandbox.plugin, session=sandbox.session, pid=sandbox.pid, cause=cause_, detail=detail
        )
    if report_ is not None and report_.status == "SIGSYS":
        call = await host.named.name(sandbox.plugin, sandbox.pid, claimed=report_.claimed_pid)
        return dataclasses.replace(report_, call=call)
    return report_


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
