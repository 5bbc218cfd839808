"""Who holds the idle connections? Processes of their own, so that the client that measures is the same with
and without them, and so that no limit of open files counts.

usage: python -m tests.bench.holder PORT COUNT SOURCE
Opens them, prints how many stand; for each line on standard input prints how many still do; ends with it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from tests.bench import client

OPENING: Final = 100
"""Connections being opened at once."""
OPEN_LIMIT_S: Final = 20.0


def fill(loop: client.Loop, port: int, count: int, source: str) -> None:
    """Open `count` connections that have had their greeting and their reply to EHLO; gives up in time."""
    opening = 0

    def idle() -> client.Script:
        nonlocal opening
        try:
            yield client.Connect(port, timeout_s=OPEN_LIMIT_S, source=source)
            yield client.Command("EHLO", b"EHLO idle.test\r\n", timeout_s=OPEN_LIMIT_S)
            opening -= 1
        except client.SessionError:
            opening -= 1
            return
        yield client.Sleep(86_400)

    limit = client.now() + OPEN_LIMIT_S
    begun = 0
    while (begun < count or opening) and client.now() < limit:
        while begun < count and opening < OPENING:
            begun += 1
            opening += 1
            loop.add(idle())
        loop.run(until=client.now() + 0.01)


def main(port: int, count: int, source: str) -> None:
    """Hold until standard input ends."""
    loop = client.Loop()
    fill(loop, port, count, source)
    print(loop.connections(), flush=True)
    for _ in sys.stdin:
        loop.run(until=client.now() + 0.2)  # sees which ones the server has closed
        print(loop.connections(), flush=True)
    loop.close()


class Holders:
    """As many such processes as `count` connections need, `each` at most; close() drops the connections.

    Each has an address of its own, none that of real mail: with half the ports of an address taken, the
    kernel searches for a free one at each connect(), for milliseconds, and the server would seem slow.
    """

    def __init__(self, port: int, count: int, *, each: int) -> None:
        parts = [min(each, count - begun) for begun in range(0, count, each)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.holder", str(port), str(part), f"127.0.0.{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number, part in enumerate(parts, start=2)
        ]

    def opened(self) -> int:
        """Blocks until all have been tried; how many stand."""
        return sum(self._line(process) for process in self._processes)

    def held(self) -> int:
        """How many still stand."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return sum(self._line(process) for process in self._processes)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.communicate()

    def _line(self, process: subprocess.Popen[str]) -> int:
        assert process.stdout is not None
        return int(process.stdout.readline() or 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
