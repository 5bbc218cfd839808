"""Attacks 1 to 17: a plugin that takes more than its share hurts its own session and nobody else."""

from __future__ import annotations

from tests.escapes import native
from tests.escapes.attack import Attack

FILTERS = ("seccomp", "seccomp child")

ATTACKS = (
    Attack(
        name="1 fork bomb",
        code="""
def attack(_):
    return " ".join(sorted({tried(os.fork) for _ in range(100)} | {call("clone", 17, 0, 0, 0, 0)}))
""",
        says="EPERM",
        by=("seccomp child",),
    ),
    Attack(
        name="1 fork bomb in C",
        code=native.LOAD
        + """
acts.clone3_with.argtypes = [ctypes.c_uint64] * 3
acts.clone3_with.restype = ctypes.c_long
def attack(_):
    tries = (0, 17, 88), (0, 0, 64), (0x100, 17, 88), (0x10000, 0, 88), (1 << 33, 17, 88), (0, 17, 4096)
    return " ".join(sorted({errno.errorcode[-acts.clone3_with(*how)] for how in tries}))
""",
        says="ENOSYS",
        by=("seccomp",),
        native=True,
    ),
    Attack(
        name="2 thread bomb",
        code="""
def attack(_):
    return " ".join(sorted({tried(_thread.start_new_thread, print, ()) for _ in range(100)}))
""",
        says="RuntimeError",
        by=("seccomp", "seccomp child", "rlimits"),
    ),
    Attack(
        name="2 thread in C",
        code=native.LOAD
        + """
def attack(_):
    return errno.errorcode[acts.thread()]
""",
        says="EPERM|ENOSYS|EAGAIN",
        by=("seccomp", "seccomp child", "rlimits"),
        native=True,
    ),
    Attack(
        name="3 memory bomb in small steps",
        code="""
def attack(_):
    hoard = [bytearray(1 << 20) for _ in range(200)]
    return f"{len(hoard)} MiB"
""",
        fails=("memory", "MemoryError"),
        spec={"memory": 64 << 20, "cpu_s": 1.0},
        by=("rlimits",),
    ),
    Attack(
        name="4 one huge allocation",
        code="""
def attack(_):
    said = tried(mmap.mmap, -1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), tried(bytearray, 1 << 46)
    return " ".join(said)
""",
        says="ENOMEM MemoryError",
        by=("rlimits",),
    ),
    Attack(
        name="5 C that touches what it did not get",
        code=native.LOAD
        + """
def attack(_):
    acts.touch_all_memory()
""",
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
        spec={"memory": 64 << 20, "cpu_s": 1.0},
        native=True,
        by=("rlimits",),
    ),
    Attack(
        name="6 endless Python loop meets the deadline",
        code="""
def attack(_):
    while True: pass
""",
        fails=("deadline", r"no answer within 0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
        by=("leash",),
    ),
    Attack(
        name="6 endless Python loop meets the CPU timer",
        code="""
def attack(_):
    while True: pass
""",
        fails=("cpu", "SIGKILL"),
        status="SIGKILL",
        cpu_s=1.0,
        spec={"cpu_s": 0.1},
        host={"cpu_s": 0.1},
        by=("cpu timer",),
    ),
    Attack(
        name="7 C loop that holds the GIL, every signal blocked",
        code=native.LOAD
        + """
def attack(_):
    ctypes.PyDLL(acts._name).spin()
""",
        fails=("deadline", "no answer within 0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
        native=True,
        by=("leash",),
    ),
    Attack(
        name="8 catastrophic pattern",
        code="""
def attack(_):
    re.match("(a+)+$", "a" * 60 + "b")
""",
        fails=("deadline", "no answer within 0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
        by=("leash",),
    ),
    Attack(
        name="8 huge number to text",
        code="""
def attack(_):
    sys.set_int_max_str_digits(0)
    return str(len(str(7 ** 10_000_000)))
""",
        fails=("cpu", "SIGKILL"),
        status="SIGKILL",
        cpu_s=1.0,
        spec={"cpu_s": 0.1},
        host={"cpu_s": 0.1},
        by=("cpu timer",),
    ),
    Attack(
        name="8 zip bomb",
        code="""
import zlib
BOMB = zlib.compress(bytes(100 << 20))
def attack(_):
    return zlib.decompress(BOMB)
""",
        fails=("memory", "MemoryError"),
        spec={"memory": 64 << 20},
        by=("rlimits",),
    ),
    Attack(
        name="8 nested MIME",
        code="""
import email
LEVELS = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\\n\\n--b{n}\\n" for n in range(1500))
def attack(_):
    sys.setrecursionlimit(1 << 20)
    return str(len(email.message_from_string(LEVELS * 8).as_string()))
""",
        fails=("cpu", "SIGKILL"),
        status="SIGKILL",
        cpu_s=1.0,
        spec={"cpu_s": 0.1},
        host={"cpu_s": 0.1},
        by=("cpu timer",),
    ),
    Attack(
        name="9 sleep for ever",
        code="""
def attack(_):
    select.poll().poll()
""",
        fails=("deadline", "no answer within 0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
        by=("leash",),
    ),
    Attack(
        name="10 stop itself",
        code="""
def attack(_):
    return tried(os.kill, os.getpid(), signal.SIGSTOP)
""",
        says="EPERM",
        timeout_s=0.5,
        by=("seccomp",),
    ),
    Attack(
        name="11 hoard descriptors",
        code="""
def attack(_):
    held = []
    def hoard():
        while len(held) < 100: held.append(os.open(__file__, os.O_RDONLY))
    return f"{tried(hoard)} {max(held)}"
""",
        says="EMFILE 15",
        spec={"open_files": 16},
        by=("rlimits",),
    ),
    Attack(
        name="11 copy descriptors",
        code="""
def attack(_):
    return " ".join((tried(os.dup, 2), tried(os.dup2, 2, 9), call("dup3", 2, 9, 0), call("fcntl", 2, 0, 9)))
""",
        says="EPERM EPERM EPERM EPERM",
        by=FILTERS,
    ),
    Attack(
        name="12 fill the disk",
        code="""
def attack(_):
    places = ("/tmp", "/dev/shm", "/var/tmp", ".", os.path.dirname(__file__))
    return " ".join(sorted({tried(made, place) for place in places}))
""",
        says="EACCES",
        by=("seccomp", "files"),
    ),
    Attack(
        name="13 flood the output",
        code="""
def attack(_):
    for _ in range(2000): print("x" * 10_000)
    for _ in range(200): tried(os.write, 2, b"y" * 60_000)
    return "lost"
""",
        says="lost",
        by=("worker",),
    ),
    Attack(
        name="14 overflow the C stack",
        code="""
DEEP = "[" * 1_000_000
def attack(_):
    sys.setrecursionlimit(1 << 30)
    json.loads(DEEP)
""",
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
        by=("process",),
    ),
    Attack(
        name="14 endless recursion in C",
        code=native.LOAD
        + """
def attack(_):
    acts.overflow(0)
""",
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
        native=True,
        by=("process",),
    ),
    Attack(
        name="15 lock memory, take huge pages",
        code="""
def attack(_):
    got = [errno.errorcode[ctypes.get_errno()] for _ in range(1) if libc.mlockall(3)]
    for flags in (0x22 | 0x2000, 0x22 | 0x40000):
        got.append(call("mmap", 0, 1 << 21, 3, flags, 2**64 - 1, 0))
    return " ".join(got)
""",
        says="EPERM EPERM EACCES",
        by=("seccomp",),
    ),
    Attack(
        name="16 timers, and the CPU timer's own",
        code="""
def attack(_):
    return " ".join((
        tried(signal.setitimer, signal.ITIMER_REAL, 60, 60),
        call("timer_create", 0, 0, 0),
        call("timer_settime", 0, 0, 0, 0),
        tried(resource.setrlimit, resource.RLIMIT_CPU, (1, 1)),
    ))
""",
        says="EPERM EPERM EPERM ValueError",
        by=("seccomp child",),
    ),
    Attack(
        name="17 zombies",
        code="""
def attack(_):
    ctypes.string_at(8)
""",
        arguments=("a",) * 20,
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
        by=("process",),
    ),
)
