"""What does the worker's handle on sandboxes need to know of each plugin? From configuration and start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from forkd.config.schema import PluginConfig
from forkd.probe import configured
from forkd.rpc.start import RoleStart
from forkd.sandbox.host import Host, HostFilter, HostPlugin, HostProgram
from forkd.worker.copies import CopyBudget

CHECKPASSWORD = "@checkpassword"
"""The name of its zygote (auth.backend "checkpassword")."""
SANDBOXES_PER_CPU = 64
"""Default of a plugin's limits.sandboxes (plugins.md: 64 times CPUs)."""


def host(start: RoleStart, on_blame: Callable[[str, int, str], None], room: CopyBudget) -> Host:
    """The way to sandboxes: of plugins, and of the program that knows passwords."""
    program = start.plugins.get(CHECKPASSWORD)
    return Host(
        asyncio.get_running_loop(),
        [
            *(
                _host_filter(start, plugin, room) if plugin.kind == "program" else _host_plugin(start, plugin)
                for plugin in start.plugin_configs
            ),
            *_host_probe(start),
        ],
        on_blame=on_blame,
        programs=[HostProgram(name=CHECKPASSWORD, socket_path=program)] if program else [],
        broker=start.broker,
        overload_wait_s=float(start.config.sandbox.overload_wait),
    )


def _host_plugin(start: RoleStart, plugin: PluginConfig) -> HostPlugin:
    """What the worker's handle on a plugin's sandboxes needs to know; the cap is shared by all workers."""
    return HostPlugin(
        name=plugin.name,
        socket_path=start.plugins[plugin.name],
        sandboxes=_share(start, plugin),
        spare=plugin.limits.spare,
        cpu_s=float(plugin.limits.cpu),
        memory=int(plugin.limits.memory),
        reuse=plugin.limits.reuse,
        broker=plugin.capabilities.brokered,
    )


def _host_probe(start: RoleStart) -> list[HostPlugin]:
    """That of the probe's plugin; none where there is no probe. Nobody waits with a warm one for it."""
    if configured.NAME not in start.plugins:
        return []
    return [
        HostPlugin(
            name=configured.NAME,
            socket_path=start.plugins[configured.NAME],
            sandboxes=configured.AT_ONCE,
            spare=0,
            cpu_s=configured.CPU_S,
            memory=configured.MEMORY,
        )
    ]


def _host_filter(start: RoleStart, plugin: PluginConfig, room: CopyBudget) -> HostFilter:
    """The same of a program."""
    return HostFilter(
        name=plugin.name,
        socket_path=start.plugins[plugin.name],
        sandboxes=_share(start, plugin),
        cpu_s=float(plugin.limits.cpu),
        environment=plugin.environment,
        unchanged_if_empty=plugin.unchanged_if_empty,
        message_size=start.config.limits.edited_size,
        room=room,
    )


def _share(start: RoleStart, plugin: PluginConfig) -> int:
    """Of what the plugin may have of sandboxes, this worker's part."""
    over_all = plugin.limits.sandboxes or SANDBOXES_PER_CPU * len(os.sched_getaffinity(0))
    return max(1, over_all // max(1, start.workers))
