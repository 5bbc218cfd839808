"""Attacks 75 to 80 and 94: however a plugin ends, its session alone hears of it, with the cause named."""

from __future__ import annotations

from tests.escapes import native
from tests.escapes.attack import Attack


def _in_c(name: str, call: str, fails: tuple[str, str], status: str) -> Attack:
    return Attack(
        name=name,
        code=native.LOAD + f"\ndef attack(_):\n    {call}\n    time.sleep(60)\n",
        fails=fails,
        status=status,
        native=True,
        by=("process",),
    )


def _raises(name: str, code: str, fails: tuple[str, str], **more: object) -> Attack:
    return Attack(name=name, code=code, fails=fails, by=("interpreter",), **more)  # type: ignore[arg-type]


ATTACKS = (
    _in_c("75 SIGSEGV", "ctypes.string_at(8)", ("crash", "SIGSEGV"), "SIGSEGV"),
    _in_c("75 SIGILL", "acts.die_by_illegal_instruction()", ("crash", "SIGILL"), "SIGILL"),
    _in_c(
        "75 a privileged instruction",
        "acts.die_by_privileged_instruction()",
        ("crash", "SIG(SEGV|ILL)"),
        ".*",
    ),
    _in_c("75 SIGFPE", "acts.die_by_arithmetic()", ("crash", "SIG(FPE|SEGV)"), "SIG(FPE|SEGV)"),
    # raise() is refused, so abort() goes on to its last resort, an instruction that faults.
    _in_c("75 abort", "os.abort()", ("crash", "SIG(SEGV|ILL|ABRT)"), "SIG(SEGV|ILL|ABRT)"),
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
        by=("process",),
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
        by=("process",),
    ),
    _in_c("76 leave without an answer", "os._exit(0)", ("crash", "exit 0 without an answer"), "exit 0"),
    _in_c("76 leave from C", "acts.leave(7)", ("crash", "exit 7 without an answer"), "exit 7"),
    _in_c("94 exit() in a library", "libc.exit(3)", ("crash", "exit 3 without an answer"), "exit 3"),
    _in_c("94 longjmp to nowhere", "acts.jump_nowhere()", ("crash", "SIG(SEGV|BUS|ILL|ABRT)"), ".*"),
    _in_c("94 writes to constants", "acts.write_to_constants()", ("crash", "SIGSEGV"), "SIGSEGV"),
    Attack(
        name="94 returns a pointer to nothing",
        code=native.LOAD
        + """
acts.garbage.restype = ctypes.c_char_p
def attack(_):
    return acts.garbage()
""",
        fails=("crash", "SIGSEGV"),
        status="SIGSEGV",
        native=True,
        by=("process",),
    ),
    Attack(
        name="94 returns a pointer into its stack",
        # Whatever stands there by then: text for the reply, made safe; or no text at all.
        code=native.LOAD
        + """
acts.own_stack.restype = ctypes.c_char_p
def attack(_):
    return len(acts.own_stack()) < 1 << 20
""",
        says="True|False",
        fails=("crash", "SIG"),
        native=True,
        by=("process",),
    ),
    Attack(
        name="94 a constructor attacks at load",
        code=native.LOAD
        + """
acts.told.restype = ctypes.c_char_p
def attack(_):
    return acts.told().decode()
""",
        says=(
            r"write:EACCES socket:EACCES pair:EACCES exec:EACCES kill:EPERM "
            r"shared:EACCES code:EACCES thread:(ENOSYS|EPERM|EAGAIN) "
        ),
        native=True,
        by=("seccomp",),
    ),
    _raises("77 SystemExit", "def attack(_): sys.exit(7)\n", ("exception", "SystemExit: 7")),
    _raises(
        "77 KeyboardInterrupt", "def attack(_): raise KeyboardInterrupt\n", ("exception", "KeyboardInterrupt")
    ),
    _raises("77 StopIteration", "def attack(_): return next(iter(()))\n", ("exception", "StopIteration")),
    _raises(
        "77 an exception whose text raises",
        """
class Bad(Exception):
    def __str__(self): raise RuntimeError("no text")
    __repr__ = __str__
def attack(_):
    raise Bad
""",
        ("exception", "Bad"),
    ),
    _raises(
        "77 a bare exception whose text raises",
        """
class Bad(BaseException):
    def __str__(self): raise SystemExit
def attack(_):
    raise Bad
""",
        ("exception", "Bad"),
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
        fails=("deadline", "no answer within 0.2 s"),
        timeout_s=0.2,
        by=("leash",),
    ),
    _raises(
        "78 finalisers that hang",
        """
class Sticky:
    def __del__(self):
        while True: pass
def attack(_):
    atexit.register(time.sleep, 60)
    global kept
    kept = Sticky()
    sys.exit(1)
""",
        ("exception", "SystemExit"),
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
        by=("worker",),
    ),
    Attack(
        name="80 interpreter switches",
        code="""
def attack(_):
    sys.setswitchinterval(1e-9)
    gc.disable()
    sys.settrace(lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return "nobody else noticed"
""",
        says="nobody else noticed",
        by=("process",),
    ),
)
