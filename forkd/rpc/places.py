"""Where in data_dir do our processes meet, and how is all of it removed?

run/lock          held by every forked role (master/runtime.py)
run/control.sock  STREAM     admin's; everybody may connect, admin looks at who it is
run/qmgr.sock     SEQPACKET  qmgr's, for admin
run/workers.sock  SEQPACKET  admin's, for workers: it asks, they answer
run/anvil.sock    SEQPACKET  anvil's, for workers
run/broker.sock   SEQPACKET  broker's, for workers; only where a plugin was granted what it does
run/launcher.sock SEQPACKET  launcher's, for qmgr; only where a transport is a queue program
run/probe.sock    STREAM     the workers', for admin: SMTP (forkd/probe); only where [probe] is enabled
run/proxy.sock    SEQPACKET  qmgr's, for workers; only where a listener has accept = "proxy"
run/metrics.sock  STREAM     admin's, HTTP; everybody may ask; only where [metrics] listen is "auto"
run/plugin/NAME   SEQPACKET  a zygote's, for workers; for qmgr where it starts a transport's program

Of plugin/NAME, broker.sock and launcher.sock there is a second one (NAME~1) while a reload has put another
process beside the one that old sessions go on with.

And beside run/, state/state.db: what plugins keep (the broker's); trace/trace.db: what `forkd explain` knows
(admin's). They stay.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

LOCK = "lock"
CONTROL = "control.sock"
QMGR = "qmgr.sock"
WORKERS = "workers.sock"
ANVIL = "anvil.sock"
BROKER = "broker.sock"
LAUNCHER = "launcher.sock"
PROBE = "probe.sock"
PROXY = "proxy.sock"
METRICS = "metrics.sock"
PLUGINS = "plugin"
PIPE = "@pipe-"
"""Before a transport's name: its zygote's. No plugin's name has an @."""


def run_folder(data_dir: Path) -> Path:
    """The folder of everything that lives only as long as the daemon."""
    return data_dir / "run"


def state_file(data_dir: Path) -> Path:
    """The state store's database; its folder is the broker's alone."""
    return data_dir / "state" / "state.db"


def trace_file(data_dir: Path) -> Path:
    """The database of what happened to sessions and messages; its folder is admin's alone."""
    return data_dir / "trace" / "trace.db"


def plugin_socket(run: Path, plugin: str) -> Path:
    """Where workers ask for that plugin's sandboxes."""
    return run / PLUGINS / plugin


def clear(run: Path) -> None:
    """Remove all of it but the lock. Only for who holds that. Never raises; what is foreign stays."""
    plugins = run / PLUGINS
    beside = [path for name in (BROKER, LAUNCHER) for path in run.glob(f"{name}~*")]
    names = (CONTROL, QMGR, WORKERS, ANVIL, BROKER, LAUNCHER, PROBE, PROXY, METRICS)
    for path in (*(run / name for name in names), *beside):
        with contextlib.suppress(OSError):
            path.unlink()
    with contextlib.suppress(OSError):
        for socket_file in plugins.iterdir():
            with contextlib.suppress(OSError):
                socket_file.unlink()
    with contextlib.suppress(OSError):
        plugins.rmdir()
