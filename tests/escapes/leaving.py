"""Attacks 19 to 31: a plugin cannot touch another process, or outlive its session."""

from __future__ import annotations

from tests.escapes.attack import Attack, arguments

ATTACKS = (
    Attack(
        name="19 kill everybody",
        code="""
def attack(_):
    victims = (os.getppid(), FACTS["worker"], FACTS["master"], 1, -1, 0, os.getpid())
    return " ".join(sorted({tried(os.kill, pid, 0) for pid in victims}))
""",
        says="EPERM",
        by=("seccomp",),
        timeout_s=0.5,
    ),
    Attack(
        name="20 signal by other calls",
        code="""
def attack(_):
    said = set()
    for pid in (os.getppid(), FACTS["worker"], os.getpid()):
        info = ctypes.addressof(ctypes.create_string_buffer(128))
        said |= {
            call("tkill", pid, 0), call("tgkill", pid, pid, 0), call("rt_sigqueueinfo", pid, 0, info),
            call("rt_tgsigqueueinfo", pid, pid, 0, info), call("pidfd_open", pid, 0),
            call("pidfd_send_signal", 0, 0, 0, 0),
        }
    return " ".join(sorted(said | {tried(os.killpg, 0, 0)}))
""",
        says="EPERM",
        by=("seccomp",),
    ),
    Attack(
        name="21-22 read and write other processes' memory",
        arguments=arguments(
            "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd"
        ),
        code="""
def attack(name):
    if name == "ptrace":
        return call(name, 0x4206, FACTS["worker"], 0, 0)
    return call(name, FACTS["worker"], 0, 0, 0, 0, 0)
""",
        fails=("syscall", "refused system call"),
        status="SIGSYS",
        by=("seccomp",),
    ),
    Attack(
        name="23 read other processes' files",
        code="""
def attack(_):
    whose = ("1", os.getppid(), FACTS["worker"], FACTS["master"])
    paths = [f"/proc/{p}/{n}" for p in whose for n in ("mem", "environ", "maps", "fd/0", "status")]
    return " ".join(sorted({tried(open, path, "rb") for path in paths}))
""",
        says="(EACCES|ENOENT)( ENOENT)?",
        by=("files", "mount_root", "uid"),
    ),
    Attack(
        name="23 read its own process' files",
        code="""
def attack(_):
    paths = [f"/proc/self/{name}" for name in ("mem", "environ", "maps", "fd/0", "cmdline")]
    return " ".join(sorted({tried(open, path, "rb") for path in paths}))
""",
        says="EACCES|ENOENT",
        by=("files", "mount_root"),
    ),
    Attack(
        name="24 limits and priority of others, and its own",
        code="""
def attack(_):
    said = set()
    for pid in (os.getppid(), FACTS["worker"]):
        said |= {
            tried(resource.prlimit, pid, resource.RLIMIT_CORE, (0, 0)),
            tried(os.setpriority, os.PRIO_PROCESS, pid, 0),
            tried(os.sched_setaffinity, pid, os.sched_getaffinity(0)),
            tried(os.sched_setscheduler, pid, os.SCHED_OTHER, os.sched_param(0)),
        }
    return " ".join(sorted(said))
""",
        says="EPERM",
        by=("seccomp child",),
    ),
    Attack(
        name="24 its own limits and priority",
        code="""
def attack(_):
    return " ".join((
        tried(resource.setrlimit, resource.RLIMIT_NOFILE, (1, 1)),
        tried(os.setpriority, os.PRIO_PROCESS, 0, 11),
        tried(os.setpriority, os.PRIO_PROCESS, 0, -20),
        tried(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)),
        str(resource.getrlimit(resource.RLIMIT_NPROC)[1]),
    ))
""",
        says="ValueError EPERM EPERM EPERM 0",
        by=("seccomp child",),
    ),
    Attack(
        name="25-26 leave the session as a daemon",
        code="""
def attack(_):
    return " ".join((tried(os.setsid), tried(os.setpgid, 0, 0), tried(os.fork)))
""",
        says="EPERM EPERM EPERM",
        by=("seccomp", "seccomp child"),
    ),
    Attack(
        name="26-27 outlive the session, every signal blocked and ignored",
        code="""
def attack(_):
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        tried(signal.signal, number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True: pass
""",
        fails=("deadline", "no answer within 0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
        by=("leash",),
    ),
    Attack(
        name="28 undo what the zygote set",
        code="""
def attack(_):
    def refused(*arguments):
        libc.prctl(*arguments, 0, 0, 0)
        return errno.errorcode[ctypes.get_errno()]
    return " ".join((refused(4, 1), refused(1, 0), refused(15, b"sshd"), refused(38, 0), refused(22, 0)))
""",
        says="EPERM EPERM EPERM EPERM EPERM",
        by=("seccomp",),
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
        fails=("deadline", "no answer within 0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
        by=("seccomp child",),
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
        fails=("deadline", "no answer within 0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
        by=("leash",),
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
        by=("leash",),
    ),
    Attack(
        name="31 end the main thread only",
        code="""
def attack(_):
    call("exit", 0)
""",
        fails=("crash", "exit 0 without an answer"),
        status="exit 0",
        by=("process",),
    ),
)
