"""What may each role reach, in this configuration? The names in the roles' table become paths and ports.

Asked anew before each start of a role, so that a folder which was made meanwhile is found. Landlock holds
on to what a path leads to, not to its name: a file that others replace by renaming is granted by its folder.
Paths of unix sockets are not in here: connecting to them is not walled in (before Landlock ABI 9).
"""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import prctl

from forkd.config.schema import Config, Maildir, PluginConfig, QmailQueue
from forkd.exits import Exit
from forkd.master import next_hop_rights
from forkd.master.errors import StartError
from forkd.master.next_hop_rights import DNS_PORT
from forkd.master.privileges import LAUNCHER_USER
from forkd.master.roles import May, Reach
from forkd.queue.spool import spool_root
from forkd.rpc import places
from forkd.rpc.records import crash_folder
from forkd.sandbox import confine, role_syscalls, role_walls
from forkd.sandbox import policy as policies
from forkd.sandbox.role_walls import READ, TIDY, TREE, WRITE, Walls

MOST_LINKS = 10_000
"""Entries of a folder of mailboxes that are looked at for links to other disks."""

Granted = Iterable[tuple[Path, str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What rights depend on. `slot` is the process' number among those of its role."""

    config: Config
    plugins: Sequence[PluginConfig] = ()
    slot: int = 0


def walls(may: May, setting: Setting) -> Walls:
    """The walls of a process whose row says `may`. Raises StartError where this machine has no filter."""
    granted = [*code(), *(each for name in sorted(may.reach) for each in REACHES[name](setting))]
    network = may.network
    ports: Iterable[int] = _ports(setting) if network == "connect" else ()
    if network == "relay":
        ports = sorted(next_hop_rights.ports(setting.config))
        network = "connect" if ports else "none"
    try:
        rows = role_syscalls.rows(network=network, scoped=role_walls.scoped())
        program = policies.compile_refusals(rows)
    except policies.PolicyError as error:
        raise StartError(Exit.UNCONFINED, str(error)) from error
    return Walls(
        paths=tuple((str(path), right) for path, right in granted),
        ports=tuple(ports),
        own_address=may.network == "relay" and next_hop_rights.from_own_address(setting.config),
        udp=network != "none",
        program=program,
    )


def code() -> Granted:
    """What every role reads: the interpreter, the libraries that are loaded or may be, what those read.

    Not all of sys.path: `python -m forkd` puts the current folder there, with whatever lies in it.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(sysconfig.get_path(name)) for name in names}
    folders |= {Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))}
    folders |= set(map(Path, confine.interpreter_paths()))
    for module in tuple(sys.modules.values()):
        name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
        if file and "." not in name and name != "__main__":
            folders.add(Path(file).parent if Path(file).name == "__init__.py" else Path(file))
    files = (
        *(sys.executable, f"{sys.prefix}/pyvenv.cfg", "/etc/localtime", "/usr/share/zoneinfo"),
        *("/etc/ssl/openssl.cnf", "/usr/lib/ssl", "/dev/urandom"),
    )
    reads = folders | set(map(Path, files))
    outermost = sorted(path for path in reads if reads.isdisjoint(path.parents))
    return (*((path, READ) for path in outermost), (Path(os.devnull), WRITE))


def mail_folder(data_dir: Path, path: str) -> Path:
    """The folder that holds all mailboxes of a [transport]'s `path`: the part before the first placeholder;
    the Maildir itself where there is none."""
    fixed, placeholder, _ = path.partition("{")
    return data_dir / (Path(fixed + "x").parent if placeholder else Path(path))


def state_folder(data_dir: Path) -> Path:
    """Where the broker keeps plugins' keys and values."""
    return data_dir / "state"


def trace_folder(data_dir: Path) -> Path:
    """Where admin keeps what happened to sessions and messages."""
    return places.trace_file(data_dir).parent


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if os.path.exists(each))  # noqa: PTH110 - never raises


def notes(config: Config) -> list[str]:
    """What an admin should know of rights that are wider than they need be."""
    return [
        f'[transport.{name}] {key} = "{path}": {folder} is not there: qmgr may write wherever its '
        f"user may; make the folder and restart"
        for name, key, path, folder in mail_folders(config)
        if existing(folder) == Path("/")
    ]


def launcher_notes(config: Config) -> list[str]:
    """Where queue programs are started: that nothing confines who starts them, and what keeps them from
    becoming the users they are meant for."""
    programs = [table.argv[0] for table in config.transport.values() if isinstance(table, QmailQueue)]
    if not programs:
        return []
    unconfined = (
        "process launcher has no walls, and `roles` of the self-test does not speak of it: they would be "
        f"those of {', '.join(dict.fromkeys(programs))} too; its user, server.{LAUNCHER_USER}, is all that "
        "confines it"
    )
    if not prctl.get_no_new_privs():
        return [unconfined]
    return [unconfined] + [
        f"{program} is setuid, and forkd was started with no_new_privs: it will not become its owner"
        "; under systemd set NoNewPrivileges=no (systemctl edit forkd)"
        for program in programs
        if _is_setuid(program)
    ]


def _is_setuid(program: str) -> bool:
    try:
        return bool(os.stat(program).st_mode & (stat.S_ISUID | stat.S_ISGID))  # noqa: PTH116 - any path
    except OSError:
        return False


# --- the names -----------------------------------------------------------------------------------------


def mail_folders(config: Config) -> Iterator[tuple[str, str, str, Path]]:
    """Of each path of a transport's Maildirs: transport, key, the path, and its mail_folder()."""
    for name, transport in {"local": Maildir(), **config.transport}.items():
        if isinstance(transport, Maildir):
            for key in ("path", "catch_all"):
                if path := getattr(transport, key):
                    yield name, key, path, mail_folder(config.server.data_dir, path)


def _mailboxes(setting: Setting) -> Granted:
    for _, _, path, folder in mail_folders(setting.config):
        # Made with the first mail where it is missing, if its user may: then where it will be.
        there = existing(folder)
        yield there, TREE
        if there == folder and "{" in path:
            yield from ((target, TREE) for target in _linked(folder))


def _linked(folder: Path) -> Iterator[Path]:
    """Where domains or users are links to other disks."""
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MOST_LINKS), entries, strict=False):
                if entry.is_symlink() and entry.is_dir():
                    yield Path(entry.path).resolve()
    except OSError:
        return  # what master cannot list, its links lead nowhere for qmgr either


def _slot(setting: Setting) -> Granted:
    root = spool_root(setting.config.server.data_dir)
    return [(root / where / f"w{setting.slot}", WRITE) for where in ("tmp", "new", "free")]


def _users(setting: Setting) -> Granted:
    auth = setting.config.auth
    if auth.backend != "users":
        return []
    # Its folder: `forkd user` puts a new file in the place of the old one.
    return [(auth.users.parent, READ), (Path("/etc/machine-id"), READ)]


def _crash(setting: Setting) -> Granted:
    return [(crash_folder(setting.config.server.data_dir), WRITE)] if setting.config.crash.keep else []


def _trace(setting: Setting) -> Granted:
    config = setting.config
    return [(trace_folder(config.server.data_dir), WRITE)] if config.trace.keep else []


def _etc(_: Setting) -> Granted:
    # libc reads resolv.conf again when it was replaced, and on many systems it is a link into /run.
    return [(Path("/etc"), READ), (Path("/etc/resolv.conf").resolve().parent, READ)]


def _named(right: str, *names: str) -> Callable[[Setting], Granted]:
    return lambda _: [(Path(name), right) for name in names]


def _next_hops(setting: Setting) -> Granted:
    if not next_hop_rights.over_ip(setting.config):
        return []
    return _etc(setting) if next_hop_rights.by_system(setting.config) else _RESOLVER(setting)


_RESOLVER = _named(READ, "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf")

REACHES: dict[Reach, Callable[[Setting], Granted]] = {
    "slot": _slot,
    "spool": lambda setting: [(spool_root(setting.config.server.data_dir), TREE)],
    "mailboxes": _mailboxes,
    "crash": _crash,
    "state": lambda setting: [(state_folder(setting.config.server.data_dir), WRITE)],
    "trace": _trace,
    "run": lambda setting: [(places.run_folder(setting.config.server.data_dir), TIDY)],
    "users": _users,
    "resolver": _RESOLVER,
    "next_hops": _next_hops,
    "etc": _etc,
    "accounts": _named(READ, "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    "proc": _named(READ, "/proc"),
}


def _ports(setting: Setting) -> Iterator[int]:
    """TCP: of name servers (answers too large for UDP) and of granted targets."""
    ports = {DNS_PORT}
    targets = [target for plugin in setting.plugins for target in plugin.capabilities.connect.values()]
    for address in (*setting.config.dns.servers, *targets):
        host, _, port = address.rpartition(":")
        bare = ":" in host and not host.startswith("[")  # an IPv6 address, or the path of a unix socket
        if port.isdecimal() and host and not bare and host != "unix" and int(port) < 65_536:
            ports.add(int(port))
    yield from sorted(ports)
