"""Trivial roles, and a forkd made of them: what tests/master starts instead of the real ones.

Run as a program: `python roles.py FOLDER [KEY=VALUE …]` runs the master in FOLDER with those settings of
[server] and the roles named by ROLES=a,b in the environment, with the table [admin] that ADMIN has as JSON.
The roles write what they saw to FOLDER/seen.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from forkd.config.load import LoadedConfig
from forkd.config.schema import (
    Admin,
    Config,
    Listener,
    Maildir,
    PluginConfig,
    PluginLimits,
    Powers,
    Sandbox,
    Seconds,
    Server,
)
from forkd.master.main import run
from forkd.master.roles import ROLES, Role
from forkd.rpc import channel
from forkd.rpc.messages import (
    AskStop,
    Done,
    Heartbeat,
    QueueAnswer,
    QueueEntry,
    QueueRequest,
    Ready,
    Stop,
    ToRole,
)
from forkd.rpc.messages_status import AskStatus, Status
from forkd.rpc.start import RoleStart


def _serve(start: RoleStart, *, beat: bool = True, linger_s: float = 0.0) -> int:
    """Ready, heartbeats, until Stop or end of file."""
    _seen(
        start,
        "start",
        uid=os.getuid(),
        groups=os.getgroups(),
        fds=_descriptors(),
        environment=[name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG", "LISTEN"))],
    )
    channel.send(start.master, Ready())
    start.title("running")
    while True:
        if select.select([start.master], [], [], 0.05)[0]:
            message = channel.receive(start.master, ToRole)
            if message is None:
                _seen(start, "orphaned")
                time.sleep(linger_s)
                return 0
            if isinstance(message, Stop):
                _seen(start, "stop", deadline=message.deadline_s)
                time.sleep(linger_s)
                return 0
        if beat:
            channel.try_send(start.master, Heartbeat(sessions=start.slot + 1))


def good(start: RoleStart) -> int:
    return _serve(start)


def steady(start: RoleStart) -> int:
    """As good, but started in the second phase."""
    return _serve(start)


def lingers(start: RoleStart) -> int:
    """Needs longer to stop than it is given."""
    return _serve(start, linger_s=60)


def stuck(start: RoleStart) -> int:
    """The first one's loop stands still after it was ready, signals blocked; its successors are fine."""
    if _times(start) > 1:
        return _serve(start)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    channel.send(start.master, Ready())
    while True:
        time.sleep(60)


def slow(start: RoleStart) -> int:
    """Not ready for a long time."""
    _seen(start, "slow")
    time.sleep(60)
    return 0


def never_ready(start: RoleStart) -> int:
    return 75


def dies(start: RoleStart) -> int:
    """Ready once for start-up, then its successors die at once, again and again."""
    if _times(start) == 1:
        channel.send(start.master, Ready())
        _service_is_up(start)
        _seen(start, "start")
        return 1
    _seen(start, "start")
    return 1


def crashes(start: RoleStart) -> int:
    """The first one, in C code; its successors are fine."""
    if _times(start) == 1:
        channel.send(start.master, Ready())
        os.kill(os.getpid(), signal.SIGSEGV)
    return _serve(start)


def raises(start: RoleStart) -> int:
    raise RuntimeError("a bug of ours")


def babbles(start: RoleStart) -> int:
    """The first one sends a record that is in no protocol; its successors are fine."""
    if _times(start) == 1:
        channel.send(start.master, Ready())
        _service_is_up(start)
        start.master.send(b"\xc1 not msgpack")
        time.sleep(60)
    return _serve(start)


def presumes(start: RoleStart) -> int:
    """The first one orders a stop, which is not its to order."""
    if _times(start) == 1:
        channel.send(start.master, Ready())
        _service_is_up(start)
        channel.send(start.master, AskStop(n=1, mode="stop", who="nobody"))
        time.sleep(60)
    return _serve(start)


def asks(start: RoleStart) -> int:
    """May ask: writes master's status down, then orders a stop."""
    channel.send(start.master, Ready())
    channel.send(start.master, AskStatus(n=7))
    status = channel.receive(start.master, ToRole)
    assert isinstance(status, Status)
    _seen(start, "status", status=msgspec.to_builtins(status))
    while not (Path(start.config.server.data_dir).parent / "stop-now").exists():
        channel.try_send(start.master, Heartbeat())
        time.sleep(0.02)
    channel.send(start.master, AskStop(n=8, mode="stop", who="tester"))
    assert isinstance(channel.receive(start.master, ToRole), Done)
    channel.receive(start.master, ToRole)
    return 0


def fake_qmgr(start: RoleStart) -> int:
    """Answers queue requests with what it was asked; ids: `nothing` is not there, `die` kills it."""
    listener = start.sockets["qmgr"]
    _seen(start, "start")
    channel.send(start.master, Ready())
    clients: list[socket.socket] = []
    while True:
        for sock in select.select([start.master, listener, *clients], [], [], 0.05)[0]:
            if sock is start.master:
                return 0
            if sock is listener:
                clients.append(listener.accept()[0])
                continue
            request = channel.receive(sock, QueueRequest)
            if request is None:
                clients.remove(sock)
                continue
            if request.ids == ("die",):
                return 1
            entry = QueueEntry(
                id=f"{request.after}{request.limit}", sender="", recipients=("a",), more_recipients=0, size=1,
                received_at=1.0, attempts=0, next_try_at=0.0, reason=request.who,
            )  # fmt: skip
            error = "no such message" if request.ids else ""
            channel.send(sock, QueueAnswer(n=request.n, entries=(entry,), count=1, error=error))
        channel.try_send(start.master, Heartbeat())


def _descriptors() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(f"{entry.name} {entry.readlink()}")
        except OSError:
            continue
    return found


def _seen(start: RoleStart, what: str, **more: object) -> None:
    line = {"what": what, "role": start.role, "slot": start.slot, "pid": os.getpid(), "at": time.monotonic()}
    path = Path(start.config.server.data_dir).parent / "seen"
    with path.open("a") as file:
        file.write(json.dumps(line | more) + "\n")


def _service_is_up(start: RoleStart) -> None:
    """Wait until master says so: what goes wrong before that is another story."""
    path = Path(start.config.server.data_dir).parent / "log"
    while "act=ready seconds" not in path.read_text():
        time.sleep(0.01)


def _times(start: RoleStart) -> int:
    """How often this role was started, this time included."""
    path = Path(start.config.server.data_dir).parent / f"times-{start.role}-{start.slot}"
    with path.open("a+") as file:
        file.write(".")
        file.flush()
        return path.stat().st_size


_NEEDS = {"good": ("listeners",), "fake_qmgr": ("qmgr",)}


def _table(names: list[str]) -> list[Role]:
    table = {role.name: role for role in ROLES}
    rows = []
    for position, name in enumerate(names):
        if name in table:
            rows.append(table[name])
            continue
        kind, _, count = name.partition("*")
        rows.append(
            Role(
                name=kind,
                main=f"{__spec__.name if __spec__ else 'roles'}:{kind}",
                count=lambda _config, count=int(count or 1): count,  # type: ignore[misc]
                needs=frozenset(_NEEDS.get(kind, ())),  # type: ignore[arg-type]
                start_phase=0 if kind == "good" else 1,
                stop_phase=position,
                stop_limit_s=None,
                start_limit_s=5,
                may_ask=kind == "asks",
            )
        )
    return rows


def _plugin(path: Path) -> PluginConfig:
    """A plugin as a file of its own; it is asked nothing here, only started."""
    return PluginConfig(
        name=path.stem, version="1", folder=path.parent, module=path.name, order=1, hooks=("mail",),
        settings={},
        powers=Powers(), reads=(), files=(), limits=PluginLimits(),
    )  # fmt: skip


def main() -> int:
    folder = Path(sys.argv[1])
    settings: dict[str, object] = {"data_dir": folder / "var"}
    for argument in sys.argv[2:]:
        key, _, value = argument.partition("=")
        settings[key] = Seconds(value) if value.replace(".", "").isdecimal() else value
    config = Config(
        server=Server(**{"hostname": "mx.test", "workers": 1} | settings),  # type: ignore[arg-type]
        listener={"default": Listener(address=os.environ.get("ADDRESS", "127.0.0.1:0"))},
        transport={"local": Maildir()},
        admin=msgspec.json.decode(os.environ.get("ADMIN", "{}"), type=Admin),
        sandbox=Sandbox(start_timeout=Seconds(os.environ.get("START_TIMEOUT", "30"))),
    )
    plugins = tuple(_plugin(path) for path in sorted(folder.glob("plugins/*.py")))
    file = folder / "forkd.toml" if os.environ.get("WITH_FILE") else None
    loaded = LoadedConfig(config, plugins, file)
    return run(loaded, roles=_table(os.environ["ROLES"].split(",")), read=lambda: loaded)


if __name__ == "__main__":
    sys.exit(main())
