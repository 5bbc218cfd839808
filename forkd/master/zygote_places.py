"""Which zygotes will there be, who is each, and do the walls around them stand? Before one is started.

One for each plugin, one for the probe's, one for a [auth] checkpassword program, one for each [transport] of
kind "pipe". What
keeps forkd from starting is found here: two with one uid, files that others may write, a layer of
sandbox.require that does not hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

from forkd.config.load import LoadedConfig
from forkd.master import pipes, probe_place, walls, zygotes
from forkd.master.ground import Ground
from forkd.master.zygotes import Wanted, Zygote
from forkd.rpc import places
from forkd.sandbox.selftest import Finding

QMGR = "queue_user"
"""Who asks the zygotes of transports (Zygote.asked_by)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Behind:
    """What zygotes are put beside.

    tried   the walls of the roles
    notes   what an admin should know is added to these
    kept    those of the generation in force: where one is wanted as it is, it stays
    """

    ground: Ground
    tried: Finding
    notes: list[str]
    kept: Sequence[Zygote] = ()


def prepare(loaded: LoadedConfig, behind: Behind) -> tuple[list[Zygote], dict[str, str]]:
    """The zygotes, each with its listening socket, and what the self-test found by layer.

    Blocks   for the self-test, which forks. Raises StartError.
    """
    plugins, config, notes, ground = loaded.plugins, loaded.config, behind.notes, behind.ground
    policy = walls.compile_policy()
    base = config.sandbox.uid_base
    numbers = numbered([plugin.name for plugin in plugins], _taken(ground, lambda uid: uid - base))
    specs = [
        walls.spec(
            plugin,
            policy,
            plugin.uid or base + numbers[plugin.name],
            notes,
            may_share=loaded.file is None,
        )
        for plugin in plugins
    ]
    files = [walls.files(plugin, spec.uid, notes) for plugin, spec in zip(plugins, specs, strict=True)]
    program = zygotes.checkpassword(config.auth, uid_base=base)
    specs = [walls.around(spec, config.sandbox) for spec in specs]
    probe = probe_place.spec(config, policy, notes)
    program = program and walls.around(program, config.sandbox)
    top = base + zygotes.CHECKPASSWORD_UID - 1
    taken = {
        name.removeprefix(places.PIPE): number
        for name, number in _taken(ground, lambda uid: top - uid).items()
    }
    ways = pipes.specs(config, numbered([name for name, _ in pipes.configured(config)], taken))
    ways = [walls.around(spec, config.sandbox) for spec in ways]
    new = [*specs, *filter(None, [program, probe]), *ways]
    names = {spec.name for spec in new}
    walls.distinct([*new, *(z.spec for z in ground.zygotes if z.spec.name not in names)], ground.identities)
    layers = walls.self_test(
        config.sandbox.require,
        [*specs, *ways],
        plugins,
        programs=bool(program or ways) or any(plugin.kind == "program" for plugin in plugins),
        roles=behind.tried,
        sandbox=config.sandbox,
        tested=ground.tested,
    )
    make = functools.partial(Wanted, shown=layers, patience_s=float(config.server.heartbeat))
    wanted = [
        make(spec=spec, files=read, python=str(plugin.python or ""))
        for plugin, spec, read in zip(plugins, specs, files, strict=True)
    ]
    wanted += [make(spec=each) for each in (program, probe) if each is not None]
    wanted += [make(spec=way, asked_by=QMGR) for way in ways]
    return _made(wanted, behind), layers


def _made(wanted: Sequence[Wanted], behind: Behind) -> list[Zygote]:
    """Raises StartError; those that were made are closed again then."""
    found: list[Zygote] = []
    with contextlib.ExitStack() as made:
        for each in wanted:
            zygote = next((kept for kept in behind.kept if kept.still(each)), None)
            if zygote is None:
                zygote = Zygote(each, behind.ground.runtime)
                made.callback(zygote.close)
            found.append(zygote)
        made.pop_all()
    return found


def numbered(names: Sequence[str], taken: Mapping[str, int]) -> dict[str, int]:
    """A number for each: that which the name has already, else, in their order, the lowest that nobody has.

    Uids come of them: whoever goes up or down in the order after a reload keeps his, so that no plugin ever
    runs as another one whose old sessions go on.
    """
    left = (number for number in itertools.count() if number not in set(taken.values()))
    return {name: taken[name] if name in taken else next(left) for name in names}


def _taken(ground: Ground, number: Callable[[int], int]) -> dict[str, int]:
    """Of the zygotes of all living generations."""
    return {
        zygote.spec.name: number(zygote.spec.uid) for zygote in ground.zygotes if zygote.spec.uid is not None
    }
