"""forkd/sandbox/{report,output,pool}.py: pure rules on what has been seen."""

from __future__ import annotations

import signal

import pytest

from forkd.sandbox import output, report
from forkd.sandbox.output import BURST_BYTES, RATE_BYTES_S, Meter
from forkd.sandbox.pool import IDLE_S, Demand
from forkd.sandbox.wire import Death


def death(status: int, *, pid: int = 5, cpu_us: int = 0) -> Death:
    return Death(1, pid, status, cpu_us, 0, 1000, 100)


@pytest.mark.parametrize(
    ("how", "cause", "detail"),
    [
        (death(signal.SIGSEGV), "crash", "SIGSEGV"),
        (death(signal.SIGSYS), "syscall", "refused system call"),
        (death(signal.SIGKILL, cpu_us=1_950_000), "cpu", "1950 ms"),
        (death(signal.SIGXCPU, cpu_us=2_000_000), "cpu", "SIGXCPU"),
        (death(signal.SIGKILL), "memory", "SIGKILL"),
        (death(7 << 8), "crash", "exit 7 without an answer"),
        (death(121 << 8), "crash", "wall could not be raised"),
        (death(0, pid=0), "unavailable", "could not fork"),
    ],
)
def test_a_status_names_its_cause(how: Death, cause: str, detail: str):
    """sandbox.md, "What the operator sees": signal, memory, CPU, refused syscall; never a bare number."""
    got, text = report.cause(how, cpu_s=2.0)
    assert got == cause
    assert detail in text


def test_output_is_escaped_line_by_line():
    """Attack 73: no control character of a plugin reaches a terminal or another log line's place."""
    assert output.escape(b"plain\nlines") == "plain\nlines"
    assert output.escape(b"\x1b[31mred\r\n\x00\xff") == "\\x1b[31mred\\r\n\\x00\\xff"
    assert output.last_lines("\n".join(str(n) for n in range(100)) + "\n") == "\n".join(
        map(str, range(90, 100))
    )
    assert len(output.last_lines("x" * 100_000)) == output.LAST_CHARACTERS


def test_output_has_a_rate():
    """A burst passes, a flood is counted, a quiet time gives room again."""
    meter = Meter(0.0)
    assert meter.take(BURST_BYTES, 0.0)
    assert not meter.take(1000, 0.0)
    assert meter.dropped == 1000
    assert not meter.take(RATE_BYTES_S * 2, 1.0)
    assert meter.take(RATE_BYTES_S, 1.0)


def test_spares_follow_the_arrivals():
    """Spares only hide latency: one soon after a session, as many as allowed under load, none if idle."""
    demand = Demand(0.0)
    demand.arrived(1.0)
    assert demand.spares(1.0, 8) == 1
    for n in range(2000):
        demand.arrived(1.0 + n / 500)
    assert 4 <= demand.spares(5.0, 8) <= 8
    assert demand.spares(5.0, 2) == 2
    assert demand.spares(5.0, 0) == 0
    assert demand.spares(15.0, 8) == 1
    assert demand.spares(5.0 + IDLE_S + 1, 8) == 0
