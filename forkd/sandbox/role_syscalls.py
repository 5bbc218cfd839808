"""Which system calls may our own roles not make? A list of refusals over a default of leave.

A plugin's filter (syscalls.py) names what is allowed, because what a plugin needs is little and known. A
role is Python with an event loop, threads, OpenSSL and perhaps SQLite: what it needs is wide and changes
with libraries, so here the rows name what none of them does, and whoever takes a role over would do first.
Habits get an errno, so that a library that tries goes on without; exploits get KILL. Files, TCP, signals
and abstract sockets are Landlock's (role_walls.py); what Landlock does not see of files (modes, owners,
times, attributes) is here. A wrong architecture and an x32 call die (policy.py).

A test holds that whatever is KILL for a plugin is refused here too.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Iterator

from forkd.sandbox.syscalls import ALLOW, INT, KILL, NOBODYS, PROT_EXEC, PROT_WRITE, Is, Row

_CLONE_THREAD = 0x0001_0000
_CLONE_NAMESPACES = 0x7E02_0000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET; NEWTIME is clone3's."""
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_TIOCSTI, _TIOCLINUX, _FIOSETOWN, _SIOCSPGRP = 0x5412, 0x541C, 0x8901, 0x8902
_PR_SET_DUMPABLE, _PR_SET_MM, _PR_SET_PTRACER = 4, 35, 0x5961_6D61
_PROT_BTI = 0x10
_MSG_FASTOPEN = 0x2000_0000
_TYPE = 0xF
_FAMILIES = 46
"""AF_MAX of Linux 6.18: beyond it the kernel itself refuses."""

EVERY: tuple[Row, ...] = (
    # --- no other program, no other process ----------------------------------------------------------
    Row(errno.EACCES, "execve execveat", "programs are started by zygotes, for us"),
    Row(errno.EPERM, "fork vfork", "processes likewise"),
    Row(
        ALLOW,
        "clone",
        "threads alone, in our own namespaces",
        only=(Is(0, _CLONE_THREAD | _CLONE_NAMESPACES, _CLONE_THREAD),),
        otherwise=errno.EPERM,
    ),
    Row(errno.ENOSYS, "clone3", "its flags lie in memory: libc falls back to clone"),
    Row(KILL, "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd", "into others"),
    Row(errno.EPERM, "kcmp process_mrelease", "likewise"),
    Row(errno.EPERM, "rt_sigqueueinfo rt_tgsigqueueinfo tkill pidfd_send_signal", "signals nobody sends"),
    Row(errno.EPERM, "fcntl", "a signal by way of a descriptor", given=(Is(1, INT, _F_SETOWN),)),
    Row(errno.EPERM, "fcntl", "likewise", given=(Is(1, INT, _F_SETSIG),)),
    Row(errno.EPERM, "fcntl", "likewise", given=(Is(1, INT, _F_SETOWN_EX),)),
    Row(errno.EPERM, "ioctl", "likewise", given=(Is(1, INT, _FIOSETOWN),)),
    Row(errno.EPERM, "ioctl", "likewise", given=(Is(1, INT, _SIOCSPGRP),)),
    Row(errno.EPERM, "ioctl", "typing into somebody's terminal", given=(Is(1, INT, _TIOCSTI),)),
    Row(errno.EPERM, "ioctl", "likewise", given=(Is(1, INT, _TIOCLINUX),)),
    Row(ALLOW, "prlimit64", "own limits, not a neighbour's", only=(Is(0, INT, 0),), otherwise=errno.EPERM),
    Row(ALLOW, "setpriority", "own priority", only=(Is(0, INT, 0), Is(1, INT, 0)), otherwise=errno.EPERM),
    Row(ALLOW, "sched_setaffinity", "own processors", only=(Is(0, INT, 0),), otherwise=errno.EPERM),
    Row(errno.EPERM, "sched_setscheduler sched_setattr sched_setparam ioprio_set", "no neighbour is slowed"),
    Row(errno.EPERM, "migrate_pages move_pages", "nor his memory moved"),
    # --- no connection past Landlock ------------------------------------------------------------------
    Row(
        errno.EPERM,
        "sendto sendmmsg",
        "a client's socket, disconnected, would connect anywhere by sending",
        given=(Is(3, _MSG_FASTOPEN, _MSG_FASTOPEN),),
    ),
    Row(errno.EPERM, "sendmsg", "likewise", given=(Is(2, _MSG_FASTOPEN, _MSG_FASTOPEN),)),
    # --- it stays as it is ---------------------------------------------------------------------------
    Row(errno.EPERM, "prctl", "stays non-dumpable", given=(Is(0, INT, _PR_SET_DUMPABLE),)),
    Row(errno.EPERM, "prctl", "untraced", given=(Is(0, INT, _PR_SET_PTRACER),)),
    Row(errno.EPERM, "prctl", "and is what it says it is", given=(Is(0, INT, _PR_SET_MM),)),
    Row(KILL, "setuid setgid setreuid setregid setresuid setresgid", "identity"),
    Row(KILL, "setgroups setfsuid setfsgid capset", "identity"),
    Row(KILL, "unshare setns", "namespaces give new surface"),
    Row(KILL, "landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp", "set before, once"),
    Row(KILL, "personality modify_ldt iopl ioperm", "the machine's odd corners"),
    Row(
        errno.EACCES,
        "mprotect pkey_mprotect",
        "memory does not become code (with PROT_BTI glibc marks the libraries it loads, on aarch64)",
        given=(Is(2, PROT_EXEC | _PROT_BTI, PROT_EXEC),),
    ),
    Row(
        errno.EACCES,
        "mmap",
        "writable and executable",
        given=(Is(2, PROT_EXEC | PROT_WRITE, PROT_EXEC | PROT_WRITE),),
    ),
    # --- files, as far as Landlock does not see them -------------------------------------------------
    Row(errno.EPERM, "chmod fchmodat fchmodat2 chown fchown lchown fchownat", "modes and owners by name"),
    Row(errno.EPERM, "utime utimes futimesat utimensat", "times"),
    Row(errno.EPERM, "setxattr lsetxattr fsetxattr setxattrat", "attributes"),
    Row(errno.EPERM, "removexattr lremovexattr fremovexattr removexattrat file_setattr", "likewise"),
    Row(errno.EACCES, "truncate", "by name; Landlock sees it since ABI 3"),
    Row(errno.EPERM, "mknod mknodat", "devices and pipes with a name"),
    Row(KILL, "open_tree open_tree_attr fsopen fsconfig fsmount fspick", "the view of the file system"),
    # --- the kernel and the machine ------------------------------------------------------------------
    Row(
        errno.ENOSYS,
        "io_uring_setup io_uring_enter io_uring_register",
        "no filter sees them; libuv falls back",
    ),
    Row(errno.ENOSYS, "io_setup io_submit io_destroy io_getevents io_pgetevents io_cancel", "old AIO"),
    *NOBODYS,
    Row(errno.EPERM, "syslog", "the kernel's log"),
)
"""For each role."""

UNSCOPED: tuple[Row, ...] = (
    Row(
        ALLOW,
        "kill",
        "signal 0: is that process alive (queue/ids.py)?",
        only=(Is(1, INT, 0),),
        otherwise=errno.EPERM,
    ),
    Row(errno.EPERM, "tgkill", "the price: abort() ends in SIGSEGV"),
)
"""Where Landlock cannot bound signals (before ABI 6). With it, a role reaches nobody but itself."""


def _sockets(families: frozenset[int]) -> tuple[Row, ...]:
    return tuple(
        Row(errno.EAFNOSUPPORT, "socket socketpair", "another family", given=(Is(0, INT, family),))
        for family in range(_FAMILIES)
        if family not in families
    )


def _ip(types: dict[int, int]) -> Iterator[Row]:
    """Of each type of socket its one protocol, or 0, which means the same; no other type."""
    for family, kind in itertools.product((socket.AF_INET, socket.AF_INET6), range(_TYPE + 1)):
        given = (Is(0, INT, family), Is(1, _TYPE, kind))
        if kind not in types:
            yield Row(errno.EACCES, "socket", "another type", given=given)
            continue
        why = "MPTCP, SCTP and others pass Landlock, which bounds TCP alone"
        no_other_bit = Is(2, INT & ~types[kind], 0)
        yield Row(ALLOW, "socket", why, given=given, only=(no_other_bit,), otherwise=errno.EPROTONOSUPPORT)
        for part in range(1, types[kind]):
            if part & types[kind] == part:
                yield Row(errno.EPROTONOSUPPORT, "socket", why, given=(*given, Is(2, INT, part)))


_LOCAL = frozenset({int(socket.AF_UNIX)})
_INTERNET = _LOCAL | {int(socket.AF_INET), int(socket.AF_INET6)}
_UDP = {int(socket.SOCK_DGRAM): int(socket.IPPROTO_UDP)}
_TCP = {int(socket.SOCK_STREAM): int(socket.IPPROTO_TCP)}

NETWORKS: dict[str, tuple[Row, ...]] = {
    "none": _sockets(_LOCAL),
    "ask": (*_sockets(_INTERNET), *_ip(_UDP)),
    "connect": (*_sockets(_INTERNET), *_ip(_UDP | _TCP)),
}
"""A role's network -> rows: unix sockets alone; questions by UDP; TCP too (Landlock bounds its ports)."""


def rows(*, network: str, scoped: bool) -> tuple[Row, ...]:
    """The filter of a role.

    scoped   Landlock bounds signals
    """
    return (*EVERY, *NETWORKS[network], *(() if scoped else UNSCOPED))
