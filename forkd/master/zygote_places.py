"""Which zygotes will there be, who is each, and do the walls around them stand? Before one is started.

One for each plugin, one for the probe's, one for a [auth] checkpassword program, one for each [transport] of
kind "pipe". What
keeps forkd from starting is found here: two with one uid, files that others may write, a layer of
sandbox.require that does not hold.
"""

from __future__ import annotations

import dataclasses
import functools

from forkd.config.load import LoadedConfig
from forkd.master import pipes, probe_place, walls, zygotes
from forkd.master.privileges import Identities
from forkd.master.runtime import Runtime
from forkd.master.zygotes import Zygote
from forkd.sandbox.selftest import Finding

QMGR = "queue_user"
"""Who asks the zygotes of transports (Zygote.asked_by)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Behind:
    """What zygotes are put beside.

    tried   the walls of the roles
    notes   what an admin should know is added to these
    """

    runtime: Runtime
    identities: Identities
    tried: Finding
    notes: list[str]


def prepare(loaded: LoadedConfig, behind: Behind) -> tuple[list[Zygote], dict[str, str]]:
    """The zygotes, each with its listening socket, and what the self-test found by layer.

    Blocks   for the self-test, which forks. Raises StartError.
    """
    plugins, config, notes = loaded.plugins, loaded.config, behind.notes
    policy = walls.compile_policy()
    specs = [
        walls.spec(
            plugin,
            policy,
            plugin.uid or config.sandbox.uid_base + index,
            notes,
            may_share=loaded.file is None,
        )
        for index, plugin in enumerate(plugins)
    ]
    files = [walls.files(plugin, spec.uid, notes) for plugin, spec in zip(plugins, specs, strict=True)]
    program = zygotes.checkpassword(config.auth, uid_base=config.sandbox.uid_base)
    specs = [walls.around(spec, config.sandbox) for spec in specs]
    probe = probe_place.spec(config, policy, notes)
    program = program and walls.around(program, config.sandbox)
    ways = [walls.around(spec, config.sandbox) for spec in pipes.specs(config)]
    walls.distinct([*specs, *filter(None, [program, probe]), *ways], behind.identities)
    layers = walls.self_test(
        config.sandbox.require,
        [*specs, *ways],
        plugins,
        programs=bool(program or ways) or any(plugin.kind == "program" for plugin in plugins),
        roles=behind.tried,
        sandbox=config.sandbox,
    )
    make = functools.partial(
        Zygote,
        runtime=behind.runtime,
        shown=layers,
        patience_s=float(config.server.heartbeat),
    )
    found = [
        make(spec, files=read, python=str(plugin.python or ""))
        for plugin, spec, read in zip(plugins, specs, files, strict=True)
    ]
    found += [make(each) for each in (program, probe) if each is not None]
    return [*found, *(make(way, asked_by=QMGR) for way in ways)], layers
