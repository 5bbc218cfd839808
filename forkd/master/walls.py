"""Do the plugins' walls stand, and who does each plugin run as? Answered before any plugin is started."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Protocol

from forkd import log
from forkd.config.schema import PluginConfig
from forkd.exits import Exit
from forkd.master import plugin_files, zygotes
from forkd.master.errors import StartError
from forkd.master.plugin_loaded import Loaded
from forkd.master.privileges import Identities
from forkd.sandbox import launch, selftest
from forkd.sandbox import policy as policies
from forkd.sandbox.launch import ZygoteSpec
from forkd.sandbox.policy import Policy
from forkd.sandbox.selftest import Finding


class SandboxLike(Protocol):
    """What is read of [sandbox] (forkd.config.schema.Sandbox)."""

    @property
    def namespaces(self) -> str: ...
    @property
    def cgroup(self) -> str: ...


def compile_policy() -> Policy:
    """The system call filters. Raises StartError where this machine has none to give."""
    try:
        return policies.compile_policy()
    except policies.PolicyError as error:
        raise StartError(Exit.UNCONFINED, str(error)) from error


def around(spec: ZygoteSpec, sandbox: SandboxLike) -> ZygoteSpec:
    """The specification with what [sandbox] says of namespaces and cgroups."""
    return dataclasses.replace(spec, namespaces=sandbox.namespaces == "auto", cgroup=sandbox.cgroup == "auto")


def spec(plugin: PluginConfig, policy: Policy, uid: int, notes: list[str], *, may_share: bool) -> ZygoteSpec:
    """How that plugin's zygote is started; by root: as a uid of its own.

    policy      of Python plugins without threads; the others' is compiled here.
    may_share   no configuration file: where that uid could not read the code, go on as root behind the
                other walls, and note it. With a file it is an error.
    """
    if plugin.capabilities.threads:
        policy = policies.compile_policy(threads=True)
    elif plugin.kind == "indimail":
        policy = policies.compile_policy(profile="indimail")
    elif plugin.kind == "program":
        profile = "exec, processes" if plugin.capabilities.processes else "exec"
        policy = policies.compile_policy(profile=profile)
    shared = ZygoteSpec.of(plugin, policy=policy, uid=None, gid=None)
    found = shared
    if os.geteuid() == 0:
        try:
            found = zygotes.own_ids(shared, uid)
        except StartError as error:
            if not may_share:
                raise
            notes.append(f"{error}; it runs as root behind its other walls")
    if plugin.kind == "program":
        try:
            launch.check_program(found)
        except launch.LaunchError as error:
            raise StartError(Exit.CONFIG, f"plugin {plugin.name!r}: {error}") from error
    return found


def distinct(specs: Sequence[ZygoteSpec], identities: Identities) -> None:
    """No uid is that of two: of one plugin and another, of checkpassword, of a role. Raises StartError.

    The configuration's own check knows names and ranges; this one the numbers that came of them.
    """
    taken = {identity.uid: f"server.{key} = {identity.name!r}" for key, identity in identities.by_key.items()}
    for spec in specs:
        if spec.uid is None:
            continue
        first = taken.setdefault(spec.uid, shown := zygotes.named(spec.name))
        if first is not shown:
            raise StartError(
                Exit.CONFIG,
                f"{shown} and {first} have one uid, {spec.uid}: they could stop each other; give one of "
                f"them another (its `uid`, or sandbox.uid_base)",
            )


def files(plugin: PluginConfig, uid: int | None, notes: list[str]) -> Loaded:
    """The plugin's files as they are now, when nobody else can write them; `uid`: as whom it will run.

    Raises StartError, also when they cannot be read.
    """
    problems = []
    for found in plugin_files.examine(plugin, uid):
        if found.note:
            notes.append(f"plugin {plugin.name}: {found.text}")
        else:
            problems.append(found.text)
    if problems:
        more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 else ""
        raise StartError(Exit.CONFIG, f"plugin {plugin.name!r} is not started: {problems[0]}{more}")
    notes += plugin_files.examine_entries(plugin)
    try:
        return Loaded.now(plugin)
    except OSError as error:
        raise StartError(
            Exit.CONFIG, f"plugin {plugin.name!r}: {error.filename}: {error.strerror}"
        ) from error


def self_test(
    require: Sequence[str],
    specs: Sequence[ZygoteSpec],
    plugins: Sequence[PluginConfig],
    *,
    programs: bool,
    roles: Finding,
    sandbox: SandboxLike,
    tested: dict[object, list[Finding]],
) -> dict[str, str]:
    """Layer -> enforced | absent | failed | unverified, tried by a real sandbox; each is logged.

    programs   such are run too (checkpassword): their filter is another, and is tried as well.
    roles      what role_trial.py found.
    sandbox    what zygotes are given: what is switched off is not tried.
    tested     what was tried before, which is not tried again.
    Blocks for a few hundred milliseconds. Raises StartError when a required layer does not hold, unless the
    layer is `files` and every plugin is marked trusted.
    """
    uid = next((spec.uid for spec in specs), None)
    key = (uid is None, programs, sandbox.namespaces, sandbox.cgroup)
    if (tried := tested.get(key)) is None:
        tried = tested[key] = selftest.examine(
            uid=uid,
            gid=uid,
            programs=programs,
            namespaces=sandbox.namespaces == "auto",
            cgroup=sandbox.cgroup == "auto",
        )
    found = [*tried, roles]
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
