"""Which tables of system calls belong to a zygote of which kind? The plain ones, and what differs from them.

A profile is two tables: the zygote's filter, and the one that each sandbox stacks on it. Those of a plain
plugin are LOAD and CHILD of syscalls.py, whose rules for rows hold here as well. Each of the others is
made of them: for a zygote with a uid of its own, for plugins with threads, and for programs (program.py):
their filter must be wider, because the program inherits it.
"""

from __future__ import annotations

import dataclasses
import errno
import os

from forkd.sandbox.syscalls import ALLOW, CHILD, FORK_FLAGS, INT, LOAD, LONG, ONE_PROCESS, Is, Row

THREAD_FLAGS = 0x003D_0F00
"""What glibc's pthread_create() passes: VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID
| CHILD_CLEARTID; musl adds CLONE_DETACHED, so a plugin's interpreter is a glibc one where it has threads."""
VFORK_FLAGS = 0x0000_4111
"""What glibc's posix_spawn() passes: CLONE_VM | CLONE_VFORK | SIGCHLD."""
PROGRAM_LEASH_FD = 200
"""A program's end of the leash, after program.py has moved it (wire.py has the same number)."""
ARCH_SET_FS = 0x1002


def _instead(rows: tuple[Row, ...], new: tuple[Row, ...], *, beside: str = "") -> tuple[Row, ...]:
    """`rows`, then `new`, which stands in the place of what they say of the same calls, but for `beside`."""
    taken = {name for row in new for name in row.names.split()} - {beside}
    return (
        *(
            dataclasses.replace(row, names=" ".join(names))
            for row in rows
            if (names := [name for name in row.names.split() if name not in taken])
        ),
        *new,
    )


LOAD_OWN_UID: tuple[Row, ...] = tuple(
    dataclasses.replace(row, only=(ONE_PROCESS,), why="nice of its sandboxes: nobody else has its uid")
    if row.names == "setpriority"
    else row
    for row in LOAD
)
"""LOAD for a zygote with a uid of its own, or in a PID namespace, where it sees nobody else (crowd.py).
Otherwise, under forkd's uid, it could slow master and workers."""

_A_THREAD = (Is(0, INT, THREAD_FLAGS),)
_THREADS = (Row(ALLOW, "clone", "a thread, where they are granted", given=_A_THREAD),)
THREADS_LOAD: tuple[Row, ...] = (*LOAD, *_THREADS)
"""The zygote's, for plugins that were granted threads: its sandboxes may, it has none (outside.py looks)."""
THREADS_LOAD_OWN_UID: tuple[Row, ...] = (*LOAD_OWN_UID, *_THREADS)
THREADS_CHILD: tuple[Row, ...] = tuple(
    Row(ALLOW, "clone", "a thread, no process", only=_A_THREAD, otherwise=errno.EPERM)
    if row.names == "clone"
    else row
    for row in CHILD
)
"""RLIMIT_NPROC bounds how many (spec.py)."""

# --- profile indimail: compiled plugins (indimail.py) -----------------------------------------------------

INDIMAIL_CHILD: tuple[Row, ...] = tuple(row for row in CHILD if row.names != "mmap")
"""Such a sandbox loads its plugin itself, so that all of that is new in each session: mapping code is left to
what LOAD says, a file's, private and not writable, and Landlock which files these are."""

# --- profile exec: programs (program.py) ---------------------------------------------------------------

_PROGRAM: tuple[Row, ...] = (
    Row(ALLOW, "execve", "starting the program, and what it starts; Landlock says which files"),
    Row(
        ALLOW,
        "arch_prctl",
        "ARCH_SET_FS: where a new program's libc begins",
        given=(Is(0, INT, ARCH_SET_FS),),
    ),
    Row(ALLOW, "set_tid_address", "likewise"),
    Row(ALLOW, "open openat", "Landlock says which files; for writing that is /dev/null alone"),
    Row(ALLOW, "access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir", "looking, not opening"),
    Row(ALLOW, "pipe pipe2 dup dup2 dup3 close_range", "own descriptors"),
    *(
        Row(ALLOW, "fcntl", why, given=(Is(1, INT, command),))
        for command, why in (
            (0, "F_DUPFD"),
            (1, "F_GETFD"),
            (2, "F_SETFD"),
            (3, "F_GETFL"),
            (4, "F_SETFL"),
            (1030, "F_DUPFD_CLOEXEC"),
            (8, "F_SETOWN: the leash's owner; taken away before the exec"),
            (10, "F_SETSIG: the leash's signal; likewise"),
        )
    ),
    Row(ALLOW, "setpgid", "a process group of its own; taken away before the exec"),
    Row(
        ALLOW,
        "landlock_create_ruleset landlock_restrict_self",
        "a domain of its own, so that runs do not reach each other; taken away before the exec",
    ),
    Row(ALLOW, "getpgid getpgrp getsid getresuid getresgid getgroups", "who am I"),
    Row(ALLOW, "sysinfo umask getrlimit getpriority", "shells and languages ask at their start"),
    Row(
        0,
        "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid",
        "answered as done, and not done: programs made for root give rights up, and these have none to give",
    ),
    Row(ALLOW, "alarm setitimer getitimer", "own timers"),
    Row(ALLOW, "rt_sigsuspend rt_sigtimedwait pause", "waiting for own children and timers"),
    Row(ALLOW, "wait4 waitid", "own children"),
    Row(ALLOW, "clone", "fork, and no thread", given=(Is(0, INT, FORK_FLAGS),)),
    Row(ALLOW, "clone", "posix_spawn", given=(Is(0, INT, VFORK_FLAGS),)),
    Row(ALLOW, "vfork fork", "the same, by older names"),
)
EXEC_LOAD: tuple[Row, ...] = _instead(LOAD, _PROGRAM)
"""The filter of a zygote that starts a program: LOAD, but for the calls that _PROGRAM has rows for. Such a
zygote has no foreign code in it: its filter is wide because the program inherits it."""

_LEASH_FIRST, _LEASH_SECOND = Is(0, INT, PROGRAM_LEASH_FD), Is(1, INT, PROGRAM_LEASH_FD)

EXEC_CHILD: tuple[Row, ...] = (
    Row(errno.EPERM, "close", "the leash stays", given=(_LEASH_FIRST,)),
    Row(errno.EPERM, "fcntl", "armed, and open over an exec", given=(_LEASH_FIRST,)),
    Row(errno.EPERM, "dup dup2 dup3", "under one number: a copy could be disarmed", given=(_LEASH_FIRST,)),
    Row(errno.EPERM, "dup2 dup3", "and is not replaced", given=(_LEASH_SECOND,)),
    Row(errno.EPERM, "close_range", "or closed among others"),
    Row(errno.EPERM, "fcntl", "F_SETOWN: no signal to others", given=(Is(1, INT, 8),)),
    Row(errno.EPERM, "fcntl", "F_SETSIG: likewise", given=(Is(1, INT, 10),)),
    Row(errno.EPERM, "setpgid", "the process group is what the leash kills"),
    Row(errno.EPERM, "landlock_create_ruleset landlock_add_rule landlock_restrict_self", "it has its domain"),
    Row(errno.EPERM, "timer_create timer_settime", "not a program's habit"),
    Row(ALLOW, "prlimit64", "limits are read only", only=(Is(2, LONG, 0),), otherwise=errno.EPERM),
    Row(errno.EPERM, "seccomp", "no further filter"),
)
"""Stacked on EXEC_LOAD before the exec, for programs that may start others (processes > 0)."""

EXEC_CHILD_ALONE: tuple[Row, ...] = (
    *EXEC_CHILD,
    Row(errno.EPERM, "clone vfork fork", "no process beside itself"),
)
"""The same for programs that may not."""

# --- with files: programs that were granted folders to write ------------------------------------------------

_WRITING: tuple[Row, ...] = (
    Row(ALLOW, "mkdir mkdirat rmdir unlink unlinkat", "Landlock, or a mount that is read-only, says where"),
    Row(
        ALLOW,
        "rename renameat renameat2 link linkat",
        "likewise; no symbolic links, devices, modes, owners",
    ),
    Row(ALLOW, "landlock_add_rule", "of its own domain; taken away before the exec"),
    Row(ALLOW, "ftruncate pwrite64 pwritev", "on a file that it could open for writing"),
    Row(
        ALLOW,
        "fallocate",
        "likewise; FALLOC_FL_KEEP_SIZE takes blocks that RLIMIT_FSIZE does not count",
        only=(Is(1, INT, 0),),
        otherwise=errno.EOPNOTSUPP,
    ),
    Row(ALLOW, "fsync fdatasync flock", "mail that is to survive, and mailboxes that others write too"),
    *(
        Row(ALLOW, "fcntl", "a lock on a part of a file", given=(Is(1, INT, command),))
        for command in (5, 6, 7, 36, 37, 38)  # F_GETLK, F_SETLK, F_SETLKW; likewise F_OFD_
    ),
)
WRITING_LOAD: tuple[Row, ...] = _instead(EXEC_LOAD, _WRITING, beside="fcntl")

_RENAME_WHITEOUT = 4
_CREATES = (os.O_CREAT, 0o20000000)
"""O_CREAT, and the kernel's __O_TMPFILE: with these, open(2) gives a file the modes that it is told."""

_WRITING_CHILD: tuple[Row, ...] = (
    *(
        Row(
            errno.EPERM,
            name,
            "no setuid or setgid file: whoever else runs it would be this user, without walls",
            given=(Is(flags, creates, creates), Is(flags + 1, bit, bit)),
        )
        for name, flags in (("open", 1), ("openat", 2))
        for creates in _CREATES
        for bit in (0o4000, 0o2000)
    ),
    Row(
        errno.EPERM,
        "renameat2",
        "what it leaves behind is a device",
        given=(Is(4, _RENAME_WHITEOUT, _RENAME_WHITEOUT),),
    ),
)
"""Stacked on WRITING_LOAD before the exec, beside what is stacked for every program."""

PROFILES: dict[str, tuple[tuple[Row, ...], tuple[Row, ...]]] = {
    "pure": (LOAD, CHILD),
    "pure, own uid": (LOAD_OWN_UID, CHILD),
    "pure, threads": (THREADS_LOAD, THREADS_CHILD),
    "pure, threads, own uid": (THREADS_LOAD_OWN_UID, THREADS_CHILD),
    "indimail": (LOAD, INDIMAIL_CHILD),
    "indimail, own uid": (LOAD_OWN_UID, INDIMAIL_CHILD),
    "exec": (EXEC_LOAD, EXEC_CHILD_ALONE),
    "exec, processes": (EXEC_LOAD, EXEC_CHILD),
    "exec, writing": (WRITING_LOAD, (*EXEC_CHILD_ALONE, *_WRITING_CHILD)),
    "exec, processes, writing": (WRITING_LOAD, (*EXEC_CHILD, *_WRITING_CHILD)),
}
"""Profile -> the zygote's table and the one stacked on it."""
