"""What does one misbehaving plugin do to everybody else, and how soon is it gone?

While `BYSTANDERS` sessions send ordinary mail in a loop, pausing between commands so that most are in
the middle of a transaction, other sessions name a recipient that makes the check at RCPT misbehave.
Where they come from is a part of it: a client network has a share of a plugin's sandboxes, and
clients that are trusted have none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
from typing import Final, Literal

from tests.bench import client
from tests.bench.forkd import TRUSTED, ForkdFaults, worker_title
from tests.bench.machine import Watch
from tests.bench.process import look, tree
from tests.bench.servers import Server

BYSTANDERS: Final = 20
THINK_S: Final = 0.03
WARM_S: Final = 1.5
STALL_S: Final = 1.0
"""A bystander that waited longer for one reply was stalled."""
GIVE_UP_S: Final = 5.0
"""A bystander that waited longer goes on with a new connection."""
Origin = Literal["one", "many", "trusted"]
"""Where the offenders come from: one client network, as many networks as there are offenders, or, as all the
bystanders then do too, a host that the configuration trusts. Else each bystander has a network of its own."""
ORIGINS: Final[tuple[Origin, ...]] = ("one", "many", "trusted")


def offender_source(origin: Origin, number: int) -> str:
    """The address that the `number`th offender connects from (up to 254 of them)."""
    return {"one": f"127.9.0.{number + 1}", "many": f"127.10.{number + 1}.1", "trusted": TRUSTED}[origin]


def bystander_source(origin: Origin, number: int) -> str:
    """Likewise of a bystander."""
    return TRUSTED if origin == "trusted" else f"127.11.{number + 1}.1"


@dataclasses.dataclass(slots=True)
class Trip:
    """One fault, `trips` times at once, from `origin`.

    failed      bystanders that lost a connection, were refused one, or got 4xx or 5xx
    stalled     bystanders that waited STALL_S or longer, without failing
    worst_ms    longest wait of any bystander for one reply
    after_ms    each offender: from RCPT to its reply or its end
    offenders   what they got
    kinds       what the failed bystanders saw
    """

    server: str
    fault: str
    trips: int
    failed: int = 0
    stalled: int = 0
    worst_ms: float = 0.0
    rate_before: float = 0.0
    rate_after: float = 0.0
    after_ms: list[float] = dataclasses.field(default_factory=list)
    offenders: list[str] = dataclasses.field(default_factory=list)
    origin: Origin = "one"
    kinds: list[str] = dataclasses.field(default_factory=list)
    others: float = 0.0


def trip(server: Server, fault: str, trips: int, *, window_s: float, origin: Origin = "one") -> Trip:
    """Let `trips` sessions misbehave at once and watch the bystanders for `window_s`."""
    result = Trip(server.name, fault, trips, origin=origin)
    content = client.message(4096)
    start = client.now()
    at = start + WARM_S
    end = at + window_s
    delivered: list[float] = []
    failed: set[int] = set()
    stalled: set[int] = set()

    def waited(number: int, seconds: float) -> None:
        if client.now() >= at:
            result.worst_ms = max(result.worst_ms, seconds * 1000)
            if seconds >= STALL_S:
                stalled.add(number)

    def bystander(number: int) -> client.Script:
        yield client.Sleep(number * 0.01)
        while client.now() < end:
            try:
                reply = yield client.Connect(
                    server.port, timeout_s=GIVE_UP_S, source=bystander_source(origin, number)
                )
                waited(number, reply.waited_s if reply else 0)
                for command in client.transaction(content, f"rcpt{number}@test.local"):
                    yield client.Sleep(THINK_S)
                    command.timeout_s = GIVE_UP_S
                    reply = yield command
                    waited(number, reply.waited_s if reply else 0)
                    if command.name == "dot":
                        delivered.append(client.now())
                        server.sent += 1
                yield client.Close()
            except client.SessionError as error:
                waited(number, error.waited_s)
                if error.kind == "timeout":
                    result.kinds.append(f"no reply to {error.step}")
                elif client.now() >= at:
                    failed.add(number)
                    result.kinds.append(f"{error.kind} at {error.step} {error.code or ''}".strip())
                else:
                    result.kinds.append(f"before the fault: {error}")
                yield client.Close()
                yield client.Sleep(0.1)

    def offender(number: int) -> client.Script:
        yield client.Sleep(WARM_S)
        try:
            source = offender_source(origin, number)
            yield client.Connect(server.port, timeout_s=GIVE_UP_S, source=source)
            for command in client.transaction(content, f"{fault}@test.local"):
                command.timeout_s = window_s + GIVE_UP_S
                command.want = 3 if command.name == "DATA" else 2
                reply = yield command
                if command.name == "RCPT":
                    assert reply is not None
                    result.after_ms.append(reply.waited_s * 1000)
                    result.offenders.append(f"RCPT: {reply.code}")
                    break
            yield client.Close()
        except client.SessionError as error:
            if error.step == "RCPT" and error.kind != "timeout":
                result.after_ms.append(error.waited_s * 1000)
            said = str(error.code) if error.code else "no reply" if error.kind == "timeout" else error.kind
            result.offenders.append(f"{error.step}: {said}")

    loop = client.Loop()
    for number in range(BYSTANDERS):
        loop.add(bystander(number))
    if fault != "none":
        for number in range(trips):
            loop.add(offender(number))
    watch = Watch(process.pid for process in server.running.roots)
    loop.run(until=end + GIVE_UP_S + 1)
    loop.close()
    result.others = watch.share()
    if len(result.offenders) < (trips if fault != "none" else 0):
        result.offenders.append("RCPT: no reply")
    result.failed = len(failed)
    result.stalled = len(stalled - failed)
    result.rate_before = sum(start + 0.5 < t < at for t in delivered) / (WARM_S - 0.5)
    result.rate_after = sum(at <= t < end for t in delivered) / window_s
    return result


@dataclasses.dataclass(slots=True)
class Kill:
    """Offenders that run in a loop on an otherwise idle forkd; milliseconds.

    reply_ms   from the deadline to the client's 421, each
    gone_ms    from the deadline until the sandbox's process is dead, each
    """

    fault: str
    at_once: int
    reply_ms: list[float] = dataclasses.field(default_factory=list)
    gone_ms: list[float] = dataclasses.field(default_factory=list)
    problem: str = ""


def kill_time(server: ForkdFaults, fault: str, at_once: int) -> Kill:
    """How soon after its deadline is a sandbox that burns CPU dead, as its pidfd tells?

    The offenders' sandboxes are the processes below forkd that gained most CPU time up to half the
    deadline; nobody else works at that time.
    """
    result = Kill(fault, at_once)
    asked: list[float] = []
    replied: list[float] = []
    died: list[float] = []
    content = client.message(100)

    def offender() -> client.Script:
        commands = client.transaction(content, f"{fault}@test.local")
        try:
            yield client.Connect(server.port)
            yield commands[0]
            yield commands[1]
            asked.append(client.now())
            commands[2].want = 4
            yield commands[2]
            replied.append(client.now())
            yield client.Close()
        except client.SessionError as error:
            result.problem = str(error)

    def finder(loop: client.Loop) -> client.Script:
        before = look()
        yield client.Sleep(server.deadline_s * 0.6)
        after = look()
        gained = {pid: after[pid][1] - before.get(pid, (0, 0, 0))[1] for pid in tree(_roots(server), after)}
        for pid in sorted(gained, key=lambda pid: -gained[pid])[:at_once]:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                pidfds.append(fd)
                if worker_title(pid):
                    result.problem = "a worker burned CPU"
                loop.watch(fd, lambda: died.append(client.now()))
        deadline = client.now() + server.deadline_s + 2
        while len(died) < at_once and client.now() < deadline:
            yield client.Sleep(0.05)

    pidfds: list[int] = []
    loop = client.Loop()
    for _ in range(at_once):
        loop.add(offender())
    loop.add(finder(loop))
    loop.run(until=client.now() + 3 * server.deadline_s + 5)
    loop.close()
    for fd in pidfds:
        if not select.select([fd], [], [], 0)[0]:
            result.problem = "a sandbox lives on"
        os.close(fd)
    # The n-th deadline with the n-th end: which process served which client is not known from outside.
    deadlines = sorted(t + server.deadline_s for t in asked)
    result.reply_ms = [(t - d) * 1000 for t, d in zip(sorted(replied), deadlines, strict=False)]
    result.gone_ms = [(t - d) * 1000 for t, d in zip(sorted(died), deadlines, strict=False)]
    if len(died) < at_once and not result.problem:
        result.problem = f"{at_once - len(died)} sandboxes were not seen dying"
    return result


def _roots(server: Server) -> list[int]:
    return [process.pid for process in server.running.roots]
