"""What is a process called inside its PID namespace?"""

from __future__ import annotations

from pathlib import Path


def inner(pid: int) -> int:
    """Its pid as it sees it itself; `pid` where it has no PID namespace of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])
