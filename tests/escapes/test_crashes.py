"""Attacks 75 to 80: however a plugin ends, its session alone hears of it, with the cause named."""

from __future__ import annotations

import pytest

from tests.escapes.attack import Attack, perform
from tests.support.sandboxes import MODES

ATTACKS = (
    Attack(
        name="75 SIGSEGV",
        code="""
def attack(_):
    ctypes.string_at(8)
""",
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
    ),
    Attack(
        name="75 abort",
        # raise() is refused, so abort() goes on to its last resort, an instruction that faults.
        code="""
def attack(_):
    os.abort()
""",
        fails=("crash", "SIGSEGV|SIGILL|SIGABRT"),
        status="SIGSEGV|SIGILL|SIGABRT",
    ),
    Attack(
        name="75 SIGBUS",
        code="""
fd = os.open(os.path.dirname(__file__) + "/empty", os.O_RDONLY)
page = libc.mmap(None, 4096, 1, 2, fd, 0)
def attack(_):
    ctypes.string_at(page)
""",
        fails=("crash", "SIGBUS"),
        status="SIGBUS",
        files={"empty": b""},
    ),
    Attack(
        name="75 heap smash",
        code="""
libc.malloc.restype = ctypes.c_void_p
def attack(_):
    blocks = [libc.malloc(64) for _ in range(100)]
    for block in blocks: ctypes.memset(block - 32, 0xff, 128)
    for block in blocks: libc.free(ctypes.c_void_p(block))
    ctypes.string_at(8)
""",
        fails=("crash", "SIG(SEGV|ABRT|ILL|BUS)"),
    ),
    Attack(
        name="76 leave without an answer",
        code="""
def attack(_):
    os._exit(0)
""",
        fails=("crash", "exit 0 without an answer"),
        status="exit 0",
    ),
    Attack(
        name="77 SystemExit",
        code="""
def attack(_):
    sys.exit(7)
""",
        fails=("exception", "SystemExit: 7"),
        status="SIGKILL|exit 122",
    ),
    Attack(
        name="77 KeyboardInterrupt",
        code="""
def attack(_):
    raise KeyboardInterrupt
""",
        fails=("exception", "KeyboardInterrupt"),
    ),
    Attack(
        name="77 an exception whose text raises",
        code="""
class Bad(Exception):
    def __str__(self): raise RuntimeError("no text")
    __repr__ = __str__
def attack(_):
    raise Bad
""",
        fails=("exception", "Bad"),
    ),
    Attack(
        name="77 a bare exception whose text raises",
        code="""
class Bad(BaseException):
    def __str__(self): raise SystemExit
def attack(_):
    raise Bad
""",
        fails=("exception", "Bad"),
    ),
    Attack(
        name="77 an exception whose text hangs",
        code="""
class Bad(Exception):
    def __str__(self):
        while True: pass
def attack(_):
    raise Bad
""",
        fails=("deadline", "0.3 s"),
        timeout_s=0.3,
    ),
    Attack(
        name="78 finalisers that hang",
        code="""
class Sticky:
    def __del__(self):
        while True: pass
def attack(_):
    atexit.register(time.sleep, 60)
    global kept
    kept = Sticky()
    sys.exit(1)
""",
        fails=("exception", "SystemExit"),
    ),
    Attack(
        name="79 replace what the sandbox uses",
        code="""
def attack(_):
    import json.decoder
    from forkd.sdk import runner
    runner.verdict_json = lambda *_: b"nonsense"
    return "x"
""",
        fails=("protocol", "nonsense"),
    ),
    Attack(
        name="80 interpreter switches",
        code="""
def attack(_):
    sys.setswitchinterval(1e-9)
    gc.disable()
    sys.settrace(lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return "done"
""",
        says="done",
    ),
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_crash_is_the_sessions_own(attack: Attack, mode: str):
    """README, "What it is": a plugin can never hurt more than the one session that called it."""
    perform(attack, mode)
