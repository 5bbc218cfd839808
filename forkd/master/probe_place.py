"""The zygote of the probe's plugin (forkd/probe): who is it, and what is around it?"""

from __future__ import annotations

from typing import Final

from forkd.config.schema import Config
from forkd.master import walls
from forkd.master.zygotes import CHECKPASSWORD_UID
from forkd.probe import configured
from forkd.sandbox.launch import ZygoteSpec
from forkd.sandbox.policy import Policy

UID: Final = CHECKPASSWORD_UID + 1
"""Its uid when root starts us, counted from sandbox.uid_base: behind those of all others."""


def spec(config: Config, policy: Policy, notes: list[str]) -> ZygoteSpec | None:
    """How it is started, as any plugin's; None: there is no probe.

    Where a uid of its own could not read forkd's code it runs as root, and that is noted: what it loads is
    forkd's own, and no reason for forkd not to start.
    """
    if not config.probe.enabled:
        return None
    plugin = configured.plugin(config)
    found = walls.spec(plugin, policy, config.sandbox.uid_base + UID, notes, may_share=True)
    return walls.around(found, config.sandbox)
