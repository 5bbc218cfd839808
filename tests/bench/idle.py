"""What does a connection that only waits cost, and does real mail notice ten thousand of them?"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
from typing import Final

from tests.bench import client
from tests.bench.holder import Holders
from tests.bench.machine import Watch
from tests.bench.memory import kernel_kib, pss_kib
from tests.bench.servers import Server

REAL_SESSIONS: Final = 20
THINK_S: Final = 0.05
"""Between two messages of a real session."""
WINDOW_S: Final = 4.0
"""How long real mail is watched, before and with the idle connections."""
GIVE_UP_S: Final = 3.0
EACH: Final = 10_000
"""Idle connections of one process and address, where its limit of open files allows."""
SPARE_FILES: Final = 200


@dataclasses.dataclass(slots=True)
class Mail:
    """Latencies of real messages, connect to the 250 behind the dot, in ms; `failed` had none."""

    taken_ms: list[float] = dataclasses.field(default_factory=list)
    failed: int = 0

    def median(self) -> float:
        """In ms; not a number without any message."""
        return self._at(0.5)

    def p99(self) -> float:
        """In ms; not a number without any message."""
        return self._at(0.99)

    def _at(self, share: float) -> float:
        found = sorted(self.taken_ms) or [float("nan")]
        return found[min(len(found) - 1, int(len(found) * share))]


@dataclasses.dataclass(slots=True)
class Idle:
    """One server with `asked` idle connections; `held` of them were open at the end.

    kib          PSS of all its processes, per connection
    kernel_kib   what the kernel took meanwhile, per connection, both ends (memory.kernel_kib)
    before, mail real mail without and with them
    """

    server: str
    asked: int
    held: int = 0
    open_s: float = 0.0
    kib: float = 0.0
    kernel_kib: float = 0.0
    before: Mail = dataclasses.field(default_factory=Mail)
    mail: Mail = dataclasses.field(default_factory=Mail)
    others: float = 0.0


def most_files(wanted: int) -> int:
    """Raise this process' limit of open files, for it and for the servers it starts; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def hold(server: Server, asked: int) -> Idle:
    """Watch real mail, open the idle connections, watch it again; takes about 2 × WINDOW_S and the opening.

    An idle connection has had its greeting and its reply to EHLO.
    """
    count = min(asked, server.idle_limit or asked)
    result = Idle(server.name, count)
    watch = Watch(process.pid for process in server.running.roots)
    loop = client.Loop()
    holders = None
    try:
        _real_mail(loop, server, 0.5)  # warm-up: workers, caches, the next hop
        server.running.settle()
        result.before = _real_mail(loop, server, WINDOW_S)
        server.running.settle()
        memory, kernel = pss_kib(server.running.pids()), kernel_kib()
        began = client.now()
        holders = Holders(server.port, count, each=most_files(EACH + SPARE_FILES) - SPARE_FILES)
        opened = holders.opened()
        result.open_s = client.now() - began
        server.running.settle(limit_s=5)
        if opened:
            result.kib = (pss_kib(server.running.pids()) - memory) / opened
            result.kernel_kib = (kernel_kib() - kernel) / opened
        result.mail = _real_mail(loop, server, WINDOW_S)
        result.held = holders.held()
    finally:
        if holders:
            holders.close()
        loop.close()
    result.others = watch.share()
    return result


def _real_mail(loop: client.Loop, server: Server, seconds: float) -> Mail:
    mail = Mail()
    content = client.message(4096)
    end = client.now() + seconds
    running = REAL_SESSIONS

    def session() -> client.Script:
        nonlocal running
        while client.now() < end:
            started = client.now()
            try:
                yield client.Connect(server.port, timeout_s=GIVE_UP_S)
                for command in client.transaction(content, "rcpt@test.local"):
                    command.timeout_s = GIVE_UP_S
                    yield command
                    if command.name == "dot":
                        mail.taken_ms.append((client.now() - started) * 1000)
                        server.sent += 1
            except client.SessionError:
                mail.failed += 1
            yield client.Close()
            yield client.Sleep(THINK_S)
        running -= 1

    for _ in range(REAL_SESSIONS):
        loop.add(session())
    limit = end + GIVE_UP_S + 1
    while running and client.now() < limit:
        loop.run(until=min(limit, client.now() + 0.05))
    return mail
