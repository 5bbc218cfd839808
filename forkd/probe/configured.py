"""What do worker and master know of the probe's plugin, and by which settings does its session run?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from forkd.config.schema import (
    Aliases,
    Auth,
    Bytes,
    Config,
    Limits,
    Listener,
    Names,
    Networks,
    PluginConfig,
    PluginLimits,
    Powers,
    Seconds,
    Timeouts,
)

NAME: Final = "@probe"
"""Of the plugin, its zygote, and the listener in its sessions; no plugin's name has an @."""
AT_ONCE: Final = 4
"""Sessions in one worker. Admin has one at a time; the others are those of one that was killed meanwhile."""
MEMORY: Final = 64 << 20
CPU_S: Final = 1.0
PEER: Final = ("127.0.0.1", 0)
"""Whom such a session takes its client for: one that is trusted, and whose name is known."""


def plugin(config: Config) -> PluginConfig:
    """The plugin, which no file switches on.

    Its deadline is before admin's: so the log says of a sandbox that does not answer why. A failure is
    skipped, as the word that does not come back tells it: any other way has a breaker, which would have the
    plugin not asked for a while.
    """
    return PluginConfig(
        name=NAME,
        version="",
        folder=Path(__file__).resolve().parent / "plugin",
        module="probe.py",
        order=0,
        hooks=("mail",),
        settings={},
        powers=Powers(),
        reads=(),
        files=(),
        limits=PluginLimits(
            timeout=Seconds(config.probe.timeout / 2),
            cpu=Seconds(CPU_S),
            memory=Bytes(MEMORY),
            spare=0,
            sandboxes=0,
        ),
        on_failure="skip",
    )


def settings(config: Config) -> Config:
    """Those of a probe's session: as for any client of this forkd, but that nobody exists and nothing is
    relayed."""
    return msgspec.structs.replace(
        config,
        listener={NAME: Listener()},
        certificate={},
        auth=Auth(),
        names=Names(resolve=False),
        networks=Networks(),
        limits=Limits(sessions=AT_ONCE),
        timeouts=Timeouts(command=config.probe.timeout, idle_session=config.probe.timeout),
        aliases=Aliases(),
        domain={},
        route={},
        queue=msgspec.structs.replace(config.queue, relay_transport=""),
    )
