"""Attacks 32 to 44: a plugin cannot go around its filter, take a wall down, or widen what it may do."""

from __future__ import annotations

from tests.escapes import native
from tests.escapes.attack import Attack, arguments

NATIVE32 = (
    native.LOAD
    + """
acts.call32.restype = acts.vsyscall_time.restype = acts.vsyscall_getcpu.restype = ctypes.c_long
"""
)


def _exploits(name: str, *calls: str, first: int = 0) -> Attack:
    """Calls that no innocent program makes."""
    return Attack(
        name=name,
        arguments=arguments(*calls),
        code=f"""
def attack(name):
    return call(name, {first}, 0, 0, 0, 0, 0)
""",
        fails=("syscall", "refused system call"),
        status="SIGSYS",
        by=("seccomp",),
    )


X86_64 = (
    Attack(
        name="32 calls of the 32-bit table",  # getpid, execve, fork, socketcall, ptrace
        arguments=("20", "11", "2", "102", "26"),
        code=NATIVE32
        + """
def attack(number):
    return str(acts.call32(int(number)))
""",
        fails=("syscall", "refused system call"),
        status="SIGSYS",
        native=True,
        by=("seccomp", "seccomp child"),
    ),
    Attack(
        name="33 calls of the x32 table",  # getpid, execve, ptrace, write
        arguments=("39", "520", "521", "1"),
        code="""
def attack(number):
    return call(int(number) | 1 << 30, 0, 0, 0)
""",
        fails=("syscall", "refused system call"),
        status="SIGSYS",
        by=("seccomp", "seccomp child"),
    ),
    Attack(
        name="33 calls through the vsyscall page",
        code=NATIVE32
        + """
def attack(_):
    return f"{acts.vsyscall_time() > 1_000_000_000} {acts.vsyscall_getcpu()}"
""",
        # As the filter says, or no such page in this kernel.
        says=r"True -38",
        fails=("crash", "SIGSEGV"),
        native=True,
        by=("seccomp",),
    ),
)

ATTACKS = (
    *(X86_64 if native.X86_64 else ()),
    Attack(
        name="34 calls nobody knows",
        code="""
def attack(_):
    return " ".join(sorted({call(number, 0, 0, 0, 0, 0, 0) for number in (9999, 1000, 700, 463, 0x3FFFFFFF)}))
""",
        says="ENOSYS",
        by=("seccomp", "kernel"),
    ),
    _exploits("35 another filter, other rules", "landlock_create_ruleset", "landlock_restrict_self"),
    Attack(
        name="35 a listener, a log, a laxer filter",
        arguments=("8", "2", "1", "4", "0"),  # NEW_LISTENER, LOG, TSYNC, SPEC_ALLOW, none
        code="""
def attack(flags):
    return call("seccomp", 1, int(flags), 0)
""",
        fails=("syscall", "refused system call"),
        status="SIGSYS",
        by=("seccomp child",),
    ),
    Attack(
        name="36 what the upper half of an argument hides",
        code="""
def attack(_):
    high = 1 << 32
    page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    return " ".join((
        call("ioctl", 0, 0x5412 | high, 0),
        call("mprotect", page, 4096, 4 | high),
        call("clone", 17 | high, 0, 0, 0, 0),
        call("clone", 0x01200011 | high, 0, 0, 0, 0),
        call("fcntl", 4 | high, 10 | high, 0),
        call("close", 4 | high),
        call("prlimit64", high, 7, page, 0),
    ))
""",
        says="ENOTTY EACCES EPERM EPERM EPERM EPERM EPERM",
        by=("seccomp child",),
    ),
    Attack(
        name="37 change an argument while it is looked at",
        # Needs a second thread or shared memory, and a supervisor that looks: none of the three exists.
        code="""
def attack(_):
    return " ".join((
        tried(_thread.start_new_thread, print, ()), tried(mmap.mmap, -1, 4096),
        call("clone", 0x10F00, 0, 0, 0, 0),
    ))
""",
        says="RuntimeError EACCES EPERM",
        by=("seccomp",),
    ),
    Attack(
        name="38 new code",
        code="""
def attack(_):
    page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    fd = os.open(__file__, os.O_RDONLY)
    return " ".join((
        call("mmap", 0, 4096, 7, 0x22, 2**64 - 1, 0),
        call("mmap", 0, 4096, 5, 0x22, 2**64 - 1, 0),
        call("mmap", 0, 4096, 5, 0x2, fd, 0),
        call("mprotect", page, 4096, 5),
        tried(os.memfd_create, "x"),
        tried(os.execv, "/bin/true", ["true"]),
        call("execveat", fd, page, 0, 0, 0x1000),
    ))
""",
        says="EACCES EACCES EACCES EACCES EPERM EACCES EACCES",
        by=("seccomp child",),
    ),
    _exploits(
        "39 the kernel's odd corners", "bpf", "perf_event_open", "userfaultfd", "personality", "modify_ldt"
    ),
    _exploits("39 calls that no filter sees", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    _exploits("39 keys", "keyctl", "add_key", "request_key"),
    _exploits(
        "39 around path checks", "name_to_handle_at", "open_by_handle_at", "fanotify_init", "fanotify_mark"
    ),
    _exploits("39 the system's books and ports", "acct", "quotactl", "iopl", "ioperm", "vmsplice"),
    _exploits("40 the kernel itself", "init_module", "finit_module", "delete_module", "kexec_load", "reboot"),
    _exploits("40 the whole system", "swapon", "swapoff", "sethostname", "settimeofday", "clock_settime"),
    _exploits(
        "41 the view of the file system", "mount", "umount2", "pivot_root", "chroot", "open_tree", "fsopen"
    ),
    _exploits("41 namespaces", "unshare", "setns"),
    Attack(
        name="41 namespaces by clone",
        code="""
def attack(_):
    spaces = (0x10000000, 0x20000000, 0x40000000, 0x20000, 0x8000000, 0x4000000, 0x2000000)
    return " ".join(sorted({call("clone", space | 17, 0, 0, 0, 0) for space in spaces}))
""",
        says="EPERM",
        by=("seccomp child", "seccomp"),
    ),
    _exploits(
        "42 identity", "setuid", "setgid", "setreuid", "setresuid", "setresgid", "setgroups", "setfsuid"
    ),
    _exploits("42 capabilities", "capset"),
    Attack(
        name="42 a program that is setuid",
        code="""
def attack(_):
    programs = ("/bin/su", "/usr/bin/passwd", "/bin/mount", "/usr/bin/sudo")
    return " ".join(sorted({tried(os.execv, program, ["x"]) for program in programs}))
""",
        says="EACCES",
        by=("seccomp", "files", "mount_root"),
    ),
    Attack(
        name="43 put words into a terminal",
        code="""
def attack(_):
    said = {call("ioctl", fd, request, 0) for fd in (0, 1, 2, 3) for request in (0x5412, 0x541C, 0x540E)}
    return " ".join(sorted(said | {tried(os.open, "/dev/tty", os.O_RDWR)}))
""",
        says="EACCES ENOTTY",
        by=("seccomp",),
    ),
    _exploits(
        "44 memory shared with siblings", "shmget", "shmat", "shmctl", "semget", "semop", "semctl", first=1
    ),
    _exploits(
        "44 queues",
        "msgget",
        "msgsnd",
        "msgrcv",
        "mq_open",
        "mq_timedsend",
        "mq_unlink",
        "mq_notify",
        first=1,
    ),
)
