"""Attacks 19 to 44: a plugin cannot touch another process, outlive its session, or widen what it may do."""

from __future__ import annotations

import platform

import pytest

from tests.escapes.attack import Attack, perform
from tests.support.sandboxes import MODES

X86_64 = platform.machine() == "x86_64"

KILLED = [
    "ptrace",
    "process_vm_readv",
    "unshare",
    "mount",
    "setuid",
    "shmget",
    "io_uring_setup",
    "bpf",
    "userfaultfd",
    "keyctl",
    "perf_event_open",
    "personality",
    "name_to_handle_at",
    "seccomp",
    "landlock_create_ruleset",
    "reboot",
    "modify_ldt",
    "fanotify_init",
    "init_module",
    "kexec_load",
    "swapon",
    "acct",
    "setns",
    "pivot_root",
    "chroot",
    "add_key",
    "mq_open",
]
"""Calls that no innocent program makes (numbers 21, 22, 35, 39 to 42, 44)."""

ATTACKS = (
    *(
        Attack(
            name=f"exploit {name}",
            code=f"""
def attack(_):
    return call("{name}", 0, 0, 0, 0, 0, 0)
""",
            fails=("syscall", "refused system call"),
            status="SIGSYS",
        )
        for name in KILLED
    ),
    Attack(
        name="19 kill everybody",
        code="""
def attack(_):
    victims = (os.getppid(), 1, -1, 0, os.getpid())
    return " ".join(sorted({tried(os.kill, pid, s) for pid in victims for s in (9, 0, 19)}))
""",
        says="EPERM",
    ),
    Attack(
        name="20 signal by other calls",
        code="""
def attack(_):
    parent = os.getppid()
    others = call("tgkill", parent, parent, 9), call("pidfd_open", parent, 0), tried(os.killpg, 0, 9)
    return " ".join(others)
""",
        says="EPERM EPERM EPERM",
    ),
    Attack(
        name="23 read other processes",
        code="""
def attack(_):
    whose = ("1", "self", os.getppid())
    paths = [f"/proc/{p}/{n}" for p in whose for n in ("mem", "environ", "maps", "fd/3")]
    return " ".join(sorted({tried(open, path, "rb") for path in paths}))
""",
        says="EACCES( ENXIO)?",  # ENXIO: its own fd/3 is a socket
    ),
    Attack(
        name="24 limits and priority of others, and its own",
        code="""
def attack(_):
    parent = os.getppid()
    return " ".join((
        tried(resource.prlimit, parent, resource.RLIMIT_NOFILE, (1, 1)),
        tried(os.setpriority, os.PRIO_PROCESS, parent, 19),
        tried(os.sched_setaffinity, parent, {0}),
        tried(resource.setrlimit, resource.RLIMIT_NOFILE, (1000, 1000)),
        str(resource.getrlimit(resource.RLIMIT_NPROC)[1]),
    ))
""",
        says="EPERM EPERM EPERM ValueError 0",
    ),
    Attack(
        name="25 leave the session as a daemon",
        code="""
def attack(_):
    return " ".join((tried(os.setsid), tried(os.setpgid, 0, 0), tried(os.fork)))
""",
        says="EPERM EPERM EPERM",
    ),
    Attack(
        name="28 undo what the zygote set",
        code="""
def attack(_):
    libc.prctl(4, 1, 0, 0, 0)
    first = errno.errorcode[ctypes.get_errno()]
    libc.prctl(15, b"sshd", 0, 0, 0)
    return first + " " + errno.errorcode[ctypes.get_errno()]
""",
        says="EPERM EPERM",
    ),
    Attack(
        name="29 lose the leash, and spin",
        code="""
def attack(_):
    said = (
        tried(os.close, 4), call("fcntl", 4, 10, 0), call("fcntl", 4, 4, 0), call("fcntl", 4, 8, 0),
        call("dup3", 0, 4, 0), call("close_range", 4, 4, 0), call("ioctl", 4, 0x5452, 0),
    )
    if said == ("EPERM",) * 6 + ("ENOTTY",):
        while True: pass
    return str(said)
""",
        fails=("deadline", "0.3 s"),
        status="SIGKILL",
        timeout_s=0.3,
    ),
    Attack(
        name="29 wait on the leash itself",
        # A socket's hang-up sends no signal while its owner sleeps in recv(); a pipe's always does.
        code="""
def attack(_):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    tried(os.read, 4, 1)
    while True: pass
""",
        fails=("deadline", "0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
    ),
    Attack(
        name="30 close the channel and linger",
        code="""
def attack(_):
    os.close(3)
    while True: pass
""",
        fails=("crash", "closed its channel"),
        status="SIGKILL",
        timeout_s=4.0,
    ),
    Attack(
        name="31 end the main thread only",
        code="""
def attack(_):
    call("exit", 0)
""",
        fails=("crash", "exit 0 without an answer"),
        status="exit 0",
    ),
    Attack(
        name="34 a call nobody knows",
        code="""
def attack(_):
    return call(9999)
""",
        says="ENOSYS",
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
        call("fcntl", 4 | high, 10 | high, 0),
        call("close", 4 | high),
    ))
""",
        says="ENOTTY EACCES EPERM EPERM EPERM",
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
    ))
""",
        says="EACCES EACCES EACCES EACCES EPERM EACCES",
    ),
    Attack(
        name="43 put words into a terminal",
        code="""
def attack(_):
    return " ".join(call("ioctl", fd, request, 0) for fd in (0, 1, 2, 3) for request in (0x5412, 0x541C))
""",
        says="ENOTTY( ENOTTY){7}",
    ),
)

MACHINE_CODE = {
    # mov eax, 20; int 0x80; ret: getpid of the 32-bit table
    "32 int 0x80": b"\xb8\x14\x00\x00\x00\xcd\x80\xc3",
    # mov eax, 0x40000027; syscall; ret: getpid of x32
    "33 x32": b"\xb8\x27\x00\x00\x40\x0f\x05\xc3",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_plugin_stays_in_its_process(attack: Attack, mode: str):
    """Sandbox.md, "Layers": habits get an errno, exploits die; nothing takes a wall down again."""
    perform(attack, mode)


@pytest.mark.skipif(not X86_64, reason="other architecture: x86_64 machine code")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MACHINE_CODE)
def test_another_system_call_table_kills(name: str, mode: str):
    """A 32-bit or x32 call has other numbers, so it dies whatever it is; the code is mapped in the zygote."""
    code = """
libc.mmap.restype = ctypes.c_void_p
fd = os.open(os.path.dirname(__file__) + "/code.bin", os.O_RDONLY)
page = libc.mmap(None, 4096, 5, 2, fd, 0)
os.close(fd)
def attack(_):
    return ctypes.CFUNCTYPE(ctypes.c_int)(page)()
"""
    attack = Attack(
        name=name,
        code=code,
        fails=("syscall", "refused"),
        status="SIGSYS",
        files={"code.bin": MACHINE_CODE[name].ljust(4096, b"\xcc")},
    )
    perform(attack, mode)
