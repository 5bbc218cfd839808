"""Which system calls may a zygote and its sandboxes make, and what does each other one meet?

A flat list of rows, read top to bottom, one behaviour each; policy.py compiles it, nothing else does. What
is different with a uid of its own, with threads, and for programs: profiles.py.
Habits get the errno that makes ordinary code degrade (EACCES for files and sockets, EPERM for
processes, ENOTTY for ioctl); exploits, which no innocent program makes, get KILL; what the table does
not name gets ENOSYS, so that a newer libc falls back to an older call. A test compares the names with
libseccomp's: a call the library knows and the table does not is a failure of the test.

LOAD is the zygote's filter. It is loaded before the plugin's module, because a hostile plugin runs
first in the zygote: so it is the real wall. CHILD is stacked by each sandbox and takes away what only
a zygote needs (fork, descriptors by number, timers, executable mappings); it protects a well-meant
plugin from hostile mail.

Sources: the lists of OpenSSH, Chromium, gVisor and systemd compared; numbers of arguments from the
man pages, section 2. aarch64 has no open, stat, fork, poll … of its own: such rows vanish there.
"""

from __future__ import annotations

import dataclasses
import errno
import os

ALLOW = "allow"
KILL = "kill"
Action = str | int
"""ALLOW, KILL (the process, by SIGSYS), or the errno the call returns."""

PROT_WRITE, PROT_EXEC = 2, 4
MAP_TYPE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_HUGETLB = 0xF, 0x2, 0x20, 0x40000
INT = 0xFFFF_FFFF
"""Mask of an argument the kernel takes as int: the upper half is ignored there, so it is here."""
LONG = 0xFFFF_FFFF_FFFF_FFFF

FORK_FLAGS = 0x0120_0011
"""What glibc's fork() passes to clone: CHILD_SETTID | CHILD_CLEARTID | SIGCHLD. A thread passes others."""
LEASH_FD = 4
"""The sandbox's end of the leash, after child.py has moved it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Is:
    """Argument number `arg`, seen through `mask`, equals `value`."""

    arg: int
    mask: int
    value: int


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One behaviour: `action` for `names` when all of `given` and `only` hold.

    given       narrows the row; where it does not hold, another row (or ENOSYS) decides.
    only        the condition of the action; where `given` holds and this does not, `otherwise` is met.
    """

    action: Action
    names: str
    why: str
    given: tuple[Is, ...] = ()
    only: tuple[Is, ...] = ()
    otherwise: Action = errno.EACCES


_READ_ONLY = Is(2, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | 0o20000000, os.O_RDONLY)
"""openat's flags: no writing, creating, truncating; 0o20000000 is the kernel's __O_TMPFILE."""

_LISTENER = Is(0, INT, 4)
"""The zygote's listening socket (wire.LISTENER_FD). In a sandbox that number is the leash, a pipe.

The socket itself is master's, and there for every zygote that comes after: what would change it for those
too is refused on it. Options, backlog and ioctl are refused on every descriptor, a copy under another number
likewise; accept() takes what is this plugin's anyhow.
"""

ONE_PROCESS = Is(0, INT, os.PRIO_PROCESS)

NOBODYS: tuple[Row, ...] = (
    Row(KILL, "bpf perf_event_open userfaultfd", "kernel attack surface"),
    Row(KILL, "keyctl add_key request_key", "keys are per uid, not per process"),
    Row(KILL, "mount umount2 pivot_root chroot mount_setattr move_mount", "the view of the file system"),
    Row(KILL, "shmget shmat shmctl shmdt semget semop semctl semtimedop", "memory shared with siblings"),
    Row(KILL, "msgget msgsnd msgrcv msgctl", "likewise"),
    Row(KILL, "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr", "likewise"),
    Row(KILL, "vmsplice", "pages given away"),
    Row(KILL, "swapon swapoff acct quotactl quotactl_fd sethostname setdomainname vhangup", "the system"),
    Row(KILL, "settimeofday clock_settime adjtimex clock_adjtime", "the clock"),
    Row(KILL, "fanotify_init fanotify_mark name_to_handle_at open_by_handle_at", "around path checks"),
    Row(
        KILL, "kexec_load kexec_file_load reboot init_module finit_module delete_module", "the kernel itself"
    ),
)
"""Exploits that no process of ours ever makes, whatever its role (role_syscalls.py)."""

LOAD: tuple[Row, ...] = (
    # --- computing ---------------------------------------------------------------------------------
    Row(ALLOW, "munmap brk mremap mincore", "the allocator"),
    Row(
        ALLOW,
        "mmap",
        "private memory; a shared mapping made before a fork would join the sessions",
        given=(Is(2, PROT_EXEC, 0),),
        only=(Is(3, MAP_TYPE | MAP_HUGETLB, MAP_PRIVATE),),
    ),
    Row(
        ALLOW,
        "mmap",
        "C extensions: executable only as a private, unwritable mapping of a file",
        given=(Is(2, PROT_EXEC | PROT_WRITE, PROT_EXEC),),
        only=(Is(3, MAP_TYPE | MAP_HUGETLB | MAP_ANONYMOUS, MAP_PRIVATE),),
    ),
    Row(
        errno.EACCES,
        "mmap",
        "writable and executable",
        given=(Is(2, PROT_EXEC | PROT_WRITE, PROT_EXEC | PROT_WRITE),),
    ),
    Row(ALLOW, "mprotect pkey_mprotect", "never turns memory executable", only=(Is(2, PROT_EXEC, 0),)),
    Row(ALLOW, "madvise", "MADV_DONTNEED", given=(Is(2, INT, 4),)),
    Row(ALLOW, "madvise", "MADV_FREE", given=(Is(2, INT, 8),)),
    Row(ALLOW, "futex set_robust_list rseq sched_yield restart_syscall", "libc's locks and restarts"),
    Row(ALLOW, "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigpending", "own signal state"),
    Row(ALLOW, "exit exit_group", "leaving is always allowed"),
    Row(ALLOW, "getrandom", "seeds"),
    Row(ALLOW, "time gettimeofday clock_gettime clock_getres times getrusage", "clocks"),
    Row(ALLOW, "nanosleep clock_nanosleep", "sleeping; the worker's deadline ends it"),
    Row(ALLOW, "getpid gettid getppid getuid geteuid getgid getegid sched_getaffinity", "who am I"),
    # --- its descriptors ---------------------------------------------------------------------------
    Row(ALLOW, "read readv pread64 write writev close lseek", "on what it was given"),
    Row(ALLOW, "poll ppoll select pselect6", "waiting"),
    Row(ALLOW, "recvfrom recvmsg getsockname getpeername getsockopt", "its channel"),
    Row(
        errno.EPERM,
        "shutdown",
        "but not the listening socket",
        only=(_LISTENER,),
        otherwise=ALLOW,
    ),
    Row(ALLOW, "sendto", "without an address: only to its own peer", only=(Is(4, LONG, 0),)),
    Row(ALLOW, "accept accept4", "the zygote's one listening socket; a sandbox has none"),
    # --- reading files: Landlock decides which -----------------------------------------------------
    Row(ALLOW, "openat", "read-only; imports", only=(_READ_ONLY,)),
    Row(
        ALLOW,
        "open",
        "read-only; old C code",
        only=(dataclasses.replace(_READ_ONLY, arg=1),),
    ),
    Row(
        ALLOW,
        "stat lstat fstat newfstatat statx getdents64",
        "imports look before they open; names and sizes can be seen, content cannot",
    ),
    # --- the zygote's own work; CHILD takes it away ------------------------------------------------
    Row(ALLOW, "clone", "fork, and no thread", given=(Is(0, INT, FORK_FLAGS),)),
    Row(ALLOW, "wait4", "reaping its sandboxes"),
    Row(ALLOW, "close_range", "what loading left open"),
    Row(
        errno.EPERM,
        "dup3",
        "a sandbox's descriptors to fixed numbers; the listening socket keeps its own",
        only=(_LISTENER,),
        otherwise=ALLOW,
    ),
    *(
        Row(errno.EPERM, "fcntl", why, given=(Is(1, INT, command),), only=(_LISTENER,), otherwise=ALLOW)
        for command, why in (
            (4, "F_SETFL: O_ASYNC arms the leash; on the listening socket flags are all zygotes'"),
            (8, "F_SETOWN: the leash's owner; nobody is the listening socket's"),
            (10, "F_SETSIG: the leash's signal; likewise"),
        )
    ),
    Row(ALLOW, "fcntl", "F_GETFD", given=(Is(1, INT, 1),)),
    Row(ALLOW, "fcntl", "F_GETFL", given=(Is(1, INT, 3),)),
    Row(errno.EPERM, "fcntl", "F_DUPFD", given=(Is(1, INT, 0),)),
    Row(errno.EPERM, "fcntl", "F_SETFD", given=(Is(1, INT, 2),)),
    Row(errno.EPERM, "fcntl", "F_DUPFD_CLOEXEC, what os.dup() uses", given=(Is(1, INT, 1030),)),
    Row(ALLOW, "timer_create timer_settime", "a sandbox's CPU timer"),
    Row(
        ALLOW, "prlimit64", "own limits; hard ones only go down", only=(Is(0, INT, 0),), otherwise=errno.EPERM
    ),
    Row(
        ALLOW,
        "seccomp",
        "SECCOMP_SET_MODE_FILTER without flags: filters only add up",
        only=(Is(0, LONG, 1), Is(1, LONG, 0)),
        otherwise=KILL,
    ),
    # --- habits: an errno --------------------------------------------------------------------------
    Row(errno.EACCES, "creat access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir", "files"),
    Row(errno.EACCES, "mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2", "writing files"),
    Row(errno.EACCES, "link linkat symlink symlinkat mknod mknodat truncate ftruncate", "writing files"),
    Row(errno.EACCES, "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat", "writing files"),
    Row(errno.EACCES, "utime utimes futimesat utimensat fallocate", "writing files"),
    Row(errno.EACCES, "pwrite64 pwritev pwritev2 preadv preadv2", "no descriptor of ours has offsets"),
    Row(errno.EACCES, "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr", "files"),
    Row(errno.EACCES, "listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr", "files"),
    Row(errno.EACCES, "getdents statfs fstatfs ustat openat2 flock fsync fdatasync sync syncfs", "files"),
    Row(errno.EACCES, "sync_file_range readahead fadvise64 cachestat", "files"),
    Row(errno.EACCES, "socket socketpair connect bind listen setsockopt", "network and side channels"),
    Row(errno.EACCES, "execve execveat", "programs"),
    Row(errno.EPERM, "fork vfork", "processes"),
    Row(errno.EPERM, "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal", "signals"),
    Row(errno.EPERM, "rt_sigsuspend rt_sigtimedwait pause signalfd signalfd4", "signals"),
    Row(errno.EPERM, "pidfd_open process_mrelease waitid get_robust_list kcmp", "processes"),
    Row(errno.EPERM, "setsid getsid setpgid getpgid getpgrp", "sessions and groups"),
    Row(errno.EPERM, "dup dup2 pipe pipe2 eventfd eventfd2 memfd_create", "new descriptors"),
    Row(errno.EPERM, "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2", "likewise"),
    Row(errno.EPERM, "timerfd_create timerfd_settime timerfd_gettime", "likewise"),
    Row(errno.EPERM, "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch", "likewise"),
    Row(errno.EPERM, "sendmsg sendmmsg recvmmsg", "no descriptor goes up; one record is one call"),
    Row(errno.EPERM, "sendfile splice tee copy_file_range", "read and write do"),
    Row(errno.EPERM, "prctl arch_prctl set_tid_address", "what is set stays set"),
    Row(errno.EPERM, "setrlimit getrlimit", "prlimit64 is libc's way"),
    Row(
        errno.EPERM,
        "getpriority sched_setparam sched_getparam ioprio_set ioprio_get",
        "scheduling",
    ),
    Row(
        ALLOW,
        "setpriority",
        "its own nice value; without CAP_SYS_NICE and with RLIMIT_NICE 0 it only goes up",
        only=(ONE_PROCESS, Is(1, INT, 0)),
        otherwise=errno.EPERM,
    ),
    Row(errno.EPERM, "sched_setscheduler sched_getscheduler sched_setattr sched_getattr", "scheduling"),
    Row(errno.EPERM, "sched_get_priority_max sched_get_priority_min sched_rr_get_interval", "scheduling"),
    Row(
        errno.EPERM,
        "sched_setaffinity mbind set_mempolicy get_mempolicy set_mempolicy_home_node",
        "scheduling",
    ),
    Row(errno.EPERM, "setitimer getitimer alarm timer_gettime timer_getoverrun timer_delete", "timers"),
    Row(ALLOW, "uname", "uuid, platform and many libraries ask while they are imported; it names the kernel"),
    Row(errno.EPERM, "sysinfo umask getresuid getresgid getgroups capget syslog", "not its business"),
    Row(errno.EPERM, "mlock mlock2 munlock mlockall munlockall msync remap_file_pages", "memory"),
    Row(errno.EPERM, "pkey_alloc pkey_free memfd_secret migrate_pages move_pages map_shadow_stack", "memory"),
    Row(errno.EPERM, "io_setup io_submit io_destroy io_getevents io_pgetevents io_cancel", "old AIO"),
    Row(errno.ENOTTY, "ioctl", "every one: terminals, FIOASYNC, FIONBIO"),
    Row(errno.ENOSYS, "clone3 membarrier getcpu", "libc falls back"),
    Row(errno.ENOSYS, "futex_waitv futex_wake futex_wait futex_requeue", "likewise"),
    Row(errno.ENOSYS, "_sysctl sysfs uselib create_module get_kernel_syms query_module nfsservctl", "gone"),
    Row(errno.ENOSYS, "getpmsg putpmsg afs_syscall tuxcall security vserver", "never were"),
    Row(errno.ENOSYS, "epoll_ctl_old epoll_wait_old set_thread_area get_thread_area lookup_dcookie", "gone"),
    # --- exploits: the process dies ----------------------------------------------------------------
    Row(
        KILL, "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd", "into other processes"
    ),
    Row(KILL, "io_uring_setup io_uring_enter io_uring_register", "calls that no filter sees"),
    Row(KILL, "open_tree fsopen fsconfig fsmount fspick", "the view of the file system"),
    Row(KILL, "unshare setns", "namespaces give new surface"),
    Row(KILL, "setuid setgid setreuid setregid setresuid setresgid", "identity"),
    Row(KILL, "setgroups setfsuid setfsgid capset", "identity"),
    Row(KILL, "personality modify_ldt iopl ioperm", "the machine's odd corners"),
    *NOBODYS,
    Row(KILL, "landlock_create_ruleset landlock_add_rule landlock_restrict_self", "set before, once"),
)

CHILD: tuple[Row, ...] = (
    Row(errno.EPERM, "close", "the leash stays", given=(Is(0, INT, LEASH_FD),)),
    Row(errno.EPERM, "fcntl", "and stays armed"),
    Row(errno.EPERM, "dup3 close_range", "and is not replaced"),
    Row(errno.EPERM, "clone", "no process, no thread"),
    Row(errno.EACCES, "mmap", "no new code", given=(Is(2, PROT_EXEC, PROT_EXEC),)),
    Row(errno.EPERM, "timer_create timer_settime", "the CPU timer stays"),
    Row(ALLOW, "prlimit64", "limits are read only", only=(Is(2, LONG, 0),), otherwise=errno.EPERM),
    Row(errno.EPERM, "setpriority", "nor is a neighbour slowed"),
    Row(KILL, "seccomp", "no further filter"),
)
"""Stacked on LOAD with ALLOW as its default: of two filters' answers the kernel takes the stricter."""
