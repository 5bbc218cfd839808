"""Who runs as whom? Decided before anything is started, checked by trying, done in the child.

Started by root, each role drops to the user its row names. Where that cannot work (no such user, or
the user cannot reach the interpreter, our code or data_dir) we do not find out in the middle: with a
configuration file it is an error, without one (a newcomer's first minute) everything runs as root,
and says so with the fix.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import prctl

from forkd.config.schema import Server
from forkd.sandbox import launch

USERS = ("user", "queue_user", "admin_user")
"""The keys of [server] that name users; roles.py refers to them."""
BROKER_USER = "broker_user"
LAUNCHER_USER = "launcher_user"
"""Those that there need not be: the broker runs for some plugins only, the launcher for some transports."""


_EVERY_ID = 2**32 - 1
"""Numbers of users there are; -1 is none."""
_OVERFLOW = 65_534
"""DEFAULT_OVERFLOWUID, and GID."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Whom a process becomes. Supplementary groups are dropped altogether."""

    uid: int
    gid: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Identities:
    """Key of [server] -> identity; empty: nobody changes ids. `problem` says why it is empty for root."""

    by_key: Mapping[str, Identity]
    problem: str = ""

    def uid(self, key: str) -> int:
        """The uid of that key's processes, -1 where nothing is to be changed (as for os.chown)."""
        return self.by_key[key].uid if key in self.by_key else -1

    def gid(self, key: str) -> int:
        """As uid()."""
        return self.by_key[key].gid if key in self.by_key else -1


def decide(server: Server, *, must_reach: Iterable[Path] = (), keys: Sequence[str] = USERS) -> Identities:
    """Look the users up and try whether each could work here.

    must_reach   files and folders beside the interpreter and our code
    keys         which users there will be
    Blocks       for one fork per user
    """
    if os.geteuid() != 0:
        return Identities({})
    found: dict[str, Identity] = {}
    for key in keys:
        name = getattr(server, key)
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return Identities(
                {},
                f"there is no user {name!r} (server.{key}); make it with systemd-sysusers "
                f"or `useradd --system {name}`, or start forkd as an ordinary user",
            )
        if entry.pw_uid == 0:
            return Identities({}, f"server.{key} = {name!r} is root; name an ordinary user")
        found[key] = Identity(entry.pw_uid, entry.pw_gid, name)
    if problem := _shared(found):
        return Identities({}, problem)
    paths = [*code_paths(), *must_reach]
    for identity in dict.fromkeys(found.values()):
        if unreachable := launch.unreachable(paths, uid=identity.uid, gid=identity.gid):
            return Identities(
                {},
                f"user {identity.name!r} cannot reach {unreachable[0]}; install forkd where "
                f"every user may read (/opt, /usr/local), or start forkd as an ordinary user",
            )
    return Identities(found)


def _shared(found: Mapping[str, Identity]) -> str:
    """Queue programs run without walls: who else has their uid could be stopped, read and traced by them. Two
    names may have one uid, so the configuration alone cannot tell."""
    launcher = found.get(LAUNCHER_USER)
    for key, identity in found.items():
        if launcher is not None and key != LAUNCHER_USER and identity.uid == launcher.uid:
            return (
                f"server.{LAUNCHER_USER} = {launcher.name!r} and server.{key} = {identity.name!r} are one "
                f"user, uid {launcher.uid}; queue programs need one that nothing else runs as"
            )
    return ""


def code_paths() -> list[Path]:
    """What every process of ours must be able to read: interpreter, standard library, our own package."""
    return [Path(sys.executable), Path(sysconfig.get_path("stdlib")) / "os.py", Path(__file__)]


def drop(identity: Identity) -> None:
    """Become `identity` for good: groups, gid, uid, in that order, each in all its forms.

    The bounding set is emptied first. Raises PermissionError. Afterwards the kernel has emptied the
    capability sets (capabilities(7)).
    """
    launch.drop_ids(identity.uid, identity.gid)
    assert os.getresuid() == (identity.uid,) * 3


def confine(*, may_gain: bool = False) -> None:
    """For every forked role: no new privileges by exec, not to be traced or dumped by its own user.

    may_gain   what it execs may have them: for the launcher, whose queue programs are setuid
    """
    if not may_gain:
        prctl.set_no_new_privs(1)
    prctl.set_dumpable(0)


def overflow() -> tuple[int, int]:
    """The uid and gid by which the kernel shows all those that our user namespace has no number for; -1 each
    where it knows every one, as on a machine without namespaces (user_namespaces(7), "Unmapped user and group
    IDs"). In doubt, as where /proc is not to be read: there are such."""
    return _overflow("uid"), _overflow("gid")


def _overflow(kind: str) -> int:
    try:
        rows = [line.split() for line in Path(f"/proc/self/{kind}_map").read_text().splitlines()]
        if sum(int(count) for _inside, _outside, count in rows) >= _EVERY_ID:
            return -1
        return int(Path(f"/proc/sys/kernel/overflow{kind}").read_text())
    except (OSError, ValueError):
        return _OVERFLOW


def become_subreaper() -> None:
    """Orphans of our descendants (sandboxes that outlived their zygote) come to us to be reaped."""
    with contextlib.suppress(OSError):
        prctl.set_child_subreaper(1)
