"""Attacks 1 to 18: a plugin that takes more than its share hurts its own session and nobody else."""

from __future__ import annotations

import pytest

from tests.escapes.attack import Attack, perform
from tests.support.sandboxes import MODES

ATTACKS = (
    Attack(
        name="1 fork bomb",
        code="""
def attack(_):
    return " ".join(sorted({tried(os.fork) for _ in range(100)} | {call("clone", 17, 0, 0, 0, 0)}))
""",
        says="EPERM",
    ),
    Attack(
        name="2 thread bomb",
        code="""
def attack(_):
    return " ".join(sorted({tried(_thread.start_new_thread, print, ()) for _ in range(100)}))
""",
        says="RuntimeError",
    ),
    Attack(
        name="3 memory bomb in small steps",
        code="""
def attack(_):
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))
""",
        fails=("memory", "MemoryError"),
        spec={"memory": 64 << 20},
    ),
    Attack(
        name="4 one huge allocation",
        code="""
def attack(_):
    return tried(bytearray, 1 << 30) + " " + tried(bytearray, 1 << 40)
""",
        says="MemoryError MemoryError",
    ),
    Attack(
        name="5 C that touches what it did not get",
        code="""
libc.malloc.restype = ctypes.c_void_p
def attack(_):
    ctypes.memset(libc.malloc(ctypes.c_size_t(1 << 40)) or 0, 1, 1 << 20)
""",
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
    ),
    Attack(
        name="6 endless Python loop meets the deadline",
        code="""
def attack(_):
    while True: pass
""",
        fails=("deadline", "0.3 s"),
        status="SIGKILL",
        timeout_s=0.3,
    ),
    Attack(
        name="6 endless Python loop meets the CPU timer",
        code="""
def attack(_):
    while True: pass
""",
        fails=("cpu", "SIGKILL"),
        status="SIGKILL",
        spec={"cpu_s": 0.2},
        host={"cpu_s": 0.2},
    ),
    Attack(
        name="7 C loop that holds the GIL, every signal blocked",
        code="""
def attack(_):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    re.match("(a+)+$", "a" * 60 + "b")
""",
        fails=("deadline", "0.3 s"),
        status="SIGKILL",
        timeout_s=0.3,
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
    ),
    Attack(
        name="9 sleep for ever",
        code="""
def attack(_):
    select.poll().poll()
""",
        fails=("deadline", "0.2 s"),
        status="SIGKILL",
        timeout_s=0.2,
    ),
    Attack(
        name="10 stop itself",
        code="""
def attack(_):
    return tried(os.kill, os.getpid(), signal.SIGSTOP)
""",
        says="EPERM",
    ),
    Attack(
        name="11 hoard descriptors",
        code="""
def attack(_):
    held = []
    def hoard():
        while True: held.append(os.open(__file__, os.O_RDONLY))
    return f"{tried(os.dup, 2)} {tried(hoard)} {max(held)}"
""",
        says="EPERM EMFILE 15",
        spec={"open_files": 16},
    ),
    Attack(
        name="12 fill the disk",
        code="""
def attack(_):
    places = ("/tmp/x", "/dev/shm/x", "/var/tmp/x", "x", os.path.dirname(__file__) + "/x")
    return " ".join(sorted({tried(open, place, "w") for place in places}))
""",
        says="EACCES",
    ),
    Attack(
        name="13 flood the output",
        code="""
def attack(_):
    for _ in range(2000): print("x" * 10_000)
    for _ in range(200): tried(os.write, 2, b"y" * 60_000)
    return "done"
""",
        says="done",
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
    ),
    Attack(
        name="16 timers, and the CPU timer's own",
        code="""
def attack(_):
    return " ".join((
        tried(signal.setitimer, signal.ITIMER_REAL, 0.001, 0.001),
        call("timer_create", 0, 0, 0),
        call("timer_settime", 0, 0, 0, 0),
        tried(resource.setrlimit, resource.RLIMIT_CPU, (1, 1)),
    ))
""",
        says="EPERM EPERM EPERM ValueError",
    ),
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_greedy_plugin_is_bounded(attack: Attack, mode: str):
    """Sandbox.md, "Layers": memory, CPU, descriptors, disk, processes are bounded per sandbox."""
    perform(attack, mode)
