"""Do the plugins' walls stand, and who does each plugin run as? Answered before any plugin is started."""

from __future__ import annotations

import os
from collections.abc import Sequence

from forkd import log
from forkd.config.schema import PluginConfig
from forkd.exits import Exit
from forkd.master import zygotes
from forkd.master.errors import StartError
from forkd.sandbox import policy as policies
from forkd.sandbox import selftest
from forkd.sandbox.launch import ZygoteSpec
from forkd.sandbox.policy import Policy


def compile_policy() -> Policy:
    """The system call filters. Raises StartError where this machine has none to give."""
    try:
        return policies.compile_policy()
    except policies.PolicyError as error:
        raise StartError(Exit.UNCONFINED, str(error)) from error


def spec(plugin: PluginConfig, policy: Policy, uid: int, notes: list[str], *, may_share: bool) -> ZygoteSpec:
    """How that plugin's zygote is started; by root: as a uid of its own.

    may_share   no configuration file: where that uid could not read the code, go on as root behind the
                other walls, and note it. With a file it is an error.
    """
    shared = ZygoteSpec.of(plugin, policy=policy, uid=None, gid=None)
    if os.geteuid() != 0:
        return shared
    try:
        return zygotes.own_ids(shared, uid)
    except StartError as error:
        if not may_share:
            raise
        notes.append(f"{error}; it runs as root behind its other walls")
        return shared


def self_test(
    require: Sequence[str],
    specs: Sequence[ZygoteSpec],
    plugins: Sequence[PluginConfig],
    *,
    programs: bool,
) -> dict[str, str]:
    """Layer -> enforced | absent | failed | unverified, tried by a real sandbox; each is logged.

    programs   such are run too (checkpassword): their filter is another, and is tried as well.
    Blocks for a few hundred milliseconds. Raises StartError when a required layer does not hold, unless the
    layer is `files` and every plugin is marked trusted.
    """
    uid = next((spec.uid for spec in specs), None)
    found = selftest.examine(uid=uid, gid=uid, programs=programs)
    layers = {finding.layer: finding.result for finding in found}
    wanted = set(require)
    if programs and "seccomp" in wanted:
        # A program has all its walls from the same places, but for its own filter.
        wanted.add(selftest.PROGRAM)
    if plugins and all(plugin.trusted for plugin in plugins):
        wanted.discard("files")
    for finding in found:
        log.self_test(
            layer=finding.layer,
            result=finding.result,
            required=finding.layer in wanted,
            detail=finding.detail,
        )
    log.service(act="self_tested", enforced=[name for name, result in layers.items() if result == "enforced"])
    missing = sorted(layer for layer in wanted if layers.get(layer) != "enforced")
    if missing:
        said = ", ".join(f"{layer} is {layers.get(layer, 'unknown')}" for layer in missing)
        raise StartError(
            Exit.UNCONFINED,
            f"sandbox.require: {said}",
        )
    return layers
