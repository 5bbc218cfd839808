"""What forkd.toml says about plugins, and what their entries say against each other: does it fit?"""

from __future__ import annotations

import contextlib
import pwd
from collections.abc import Callable, Sequence
from typing import Final

from forkd.config.addresses import parse_server
from forkd.config.checking import Check
from forkd.config.problems import Problems, Source
from forkd.config.reader import nearest
from forkd.config.schema import LAYERS, Config, PluginConfig
from forkd.config.units import format_duration

UIDS: Final = 65_537
"""From sandbox.uid_base on, so many are for forkd to give out: to plugins, checkpassword, the probe."""


def _sandbox(c: Check) -> None:
    """Required layers are layers that exist, and are not switched off."""
    path = ("sandbox", "require")
    if not c.clean(path):
        return
    sandbox = c.config.sandbox
    for layer in sandbox.require:
        if layer not in LAYERS:
            c.bad(path, "no such layer", value=layer, hint=nearest(layer, LAYERS))
        elif layer in ("namespaces", "cgroup") and getattr(sandbox, layer) == "off":
            c.bad(("sandbox", layer), "sandbox.require asks for this layer", value="off", hint='write "auto"')
    walls = Config().sandbox.require
    missing = ", ".join(layer for layer in walls if layer not in sandbox.require)
    if missing:
        c.notes.append(f"sandbox.require leaves out {missing}: plugins may run without these walls")


def _dns(c: Check) -> None:
    """Name servers are addresses: a name would have to be looked up first."""
    if not c.clean(("dns", "servers")):
        return
    for server in c.config.dns.servers:
        try:
            parse_server(server)
        except ValueError as error:
            c.bad(("dns", "servers"), str(error), value=server)


def _crash(c: Check) -> None:
    """Records of failed calls are copies of mail."""
    crash = c.config.crash
    if crash.keep:
        c.notes.append(
            f"crash.keep = {crash.keep}: records of failed calls hold mail, until newer ones push them out"
        )


PLUGIN_CHECKS: Final[tuple[Callable[[Check], None], ...]] = (_sandbox, _dns, _crash)


def budget_and_dns(c: Check, plugins: Sequence[PluginConfig]) -> None:
    """Times of forkd.toml that come before a plugin's own."""
    asked = [plugin for plugin in plugins if "message" in plugin.hooks and plugin.mode == "enforce"]
    slowest = max(asked, key=lambda plugin: plugin.limits.message_timeout, default=None)
    budget = c.config.sandbox.message_budget
    if slowest and slowest.limits.message_timeout > budget:
        c.notes.append(
            f"sandbox.message_budget = {format_duration(budget)} is over before the plugin {slowest.name} "
            f"could be late (its message_timeout is {format_duration(slowest.limits.message_timeout)})"
        )
    timeout = c.config.dns.timeout
    for plugin in plugins:
        if plugin.capabilities.dns and plugin.limits.timeout < timeout:
            c.notes.append(
                f"dns.timeout = {format_duration(timeout)} is longer than the plugin {plugin.name} has for a "
                f"call ({format_duration(plugin.limits.timeout)}): a dead name server makes it late"
            )


def check_uids(
    plugins: Sequence[tuple[Source, PluginConfig]], config: Config, problems: Problems, notes: list[str]
) -> None:
    """A uid is one plugin's, or one group's: who shares it can stop, and read the files of, the other."""
    base = config.sandbox.uid_base
    keys = ("user", "queue_user", "admin_user", "broker_user", "launcher_user")
    owners = {getattr(config.server, key): key for key in keys}
    taken: dict[int, PluginConfig] = {}
    for source, plugin in plugins:
        uid = plugin.uid
        if uid is None:
            continue
        first = taken.setdefault(uid, plugin)
        if first is not plugin and (not plugin.group or plugin.group != first.group):
            rule = f"{first.source} has this uid: two plugins with one could stop each other"
            problems.add(source, ("uid",), rule, value=uid)
        if base <= uid < base + UIDS:
            rule = f"forkd gives out {base} to {base + UIDS - 1} itself (sandbox.uid_base)"
            problems.add(source, ("uid",), rule, value=uid, hint="choose another, or leave it out")
        with contextlib.suppress(KeyError):
            name = pwd.getpwuid(uid).pw_name
            if name in owners:
                rule = f"this is {name}, as whom forkd itself runs (server.{owners[name]})"
                problems.add(source, ("uid",), rule, value=uid)
            else:
                notes.append(f"{plugin.source}: uid {uid} is the user {name}: the plugin may do what he may")
