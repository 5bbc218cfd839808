"""Which exit statuses are there, what does each mean, and who reacts how?

Two kinds of reader: whoever called the command (a shell, CI, systemd), and master, for its children.
Values above 63 are those of sysexits.h where one fits. Death by a signal is not in here: a shell
shows it as 128 + n.
"""

from __future__ import annotations

import dataclasses
import enum


class Exit(enum.IntEnum):
    """A status a process of ours ends with; EXITS says what each means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    BUG = 70
    SYSTEM = 71
    PLUGIN = 72
    IN_USE = 73
    TEMPORARY = 75
    UNCONFINED = 77
    CONFIG = 78


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What a status says, what whoever ran the command does, what master does when a child ends so."""

    meaning: str
    caller: str
    master: str


EXITS: dict[Exit, Meaning] = {
    Exit.OK: Meaning(
        "done; for a daemon: stopped when asked to",
        "nothing",
        "respawns it, unless it was told to stop",
    ),
    Exit.FAILED: Meaning(
        "the request was understood and could not be done; the message says why",
        "reads the message",
        "respawns it with back-off",
    ),
    Exit.USAGE: Meaning(
        "the command line is wrong (click's value)",
        "reads the usage",
        "never seen",
    ),
    Exit.NO_DAEMON: Meaning(
        "no forkd runs there (3 is `not running` of the LSB's status actions)",
        "starts one, or names the right one by --config or --data-dir",
        "never seen",
    ),
    Exit.BUG: Meaning(
        "an exception of ours reached the top; the traceback is in the log",
        "systemd restarts (EX_SOFTWARE)",
        "respawns it with back-off",
    ),
    Exit.SYSTEM: Meaning(
        "the system refused something: an address, a file, a process",
        "systemd restarts (EX_OSERR)",
        "respawns it with back-off",
    ),
    Exit.PLUGIN: Meaning(
        "a plugin did not start; the log says why: a setting, or a traceback",
        "repairs the plugin or switches it off; systemd does not restart",
        "start-up: stops forkd with the same status; later: tries again with back-off",
    ),
    Exit.IN_USE: Meaning(
        "another forkd has this data_dir or this address",
        "stops the other; systemd does not restart",
        "qmgr with a locked spool: stops forkd with the same status",
    ),
    Exit.TEMPORARY: Meaning(
        "not now: a resource is short, trying again is right (EX_TEMPFAIL)",
        "tries again; systemd restarts",
        "respawns it with back-off",
    ),
    Exit.UNCONFINED: Meaning(
        "a layer of `sandbox.require` does not hold on this machine, or ids could not be dropped",
        "an admin decides; systemd does not restart (EX_NOPERM)",
        "start-up: stops forkd with the same status",
    ),
    Exit.CONFIG: Meaning(
        "the configuration is wrong; every problem was printed",
        "an admin repairs it; systemd does not restart (EX_CONFIG)",
        "stops forkd with the same status: a respawn would read the same",
    ),
}

NO_RESTART: frozenset[Exit] = frozenset({Exit.PLUGIN, Exit.IN_USE, Exit.UNCONFINED, Exit.CONFIG})
"""RestartPreventExitStatus= of forkd.service; trying again would end the same way."""
