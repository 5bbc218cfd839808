"""Real zygotes and sandboxes for tests: a plugin's source in, a Host to call it, a clean end checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import select
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyseccomp
import uvloop

from forkd.rpc.calls import Answer, CallFailed, Verdict
from forkd.sandbox import launch, processes, syscalls
from forkd.sandbox.host import Host, HostPlugin, Sandbox
from forkd.sandbox.launch import Member, ZygoteProcess, ZygoteSpec
from forkd.sandbox.policy import compile_policy
from forkd.sandbox.report import Report
from tests.support import leftovers, walls
from tests.support.uids import next_uid
from tests.support.waiting import wait_for

NOBODY = 65_534
ROOT, USER = "root", "user"
MODES = (ROOT, USER) if os.geteuid() == 0 else (USER,)
"""root: forkd started by root, the plugin under a uid of its own; user: all of it under an ordinary uid."""
FURTHER_MODES = tuple(mode for mode in walls.OFF_BY_MODE if mode.partition(",")[0] in MODES)
"""The same without walls that a machine may lack."""

SPACES = ("net", "ipc", "pid", "mnt", "uts")
"""Namespaces, as /proc names them."""

T = TypeVar("T")

NUMBERS = {
    name: number
    for row in syscalls.LOAD
    for name in row.names.split()
    if (number := pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)) >= 0  # type: ignore[operator]
}
"""Every system call that the policy knows and this machine has."""

PRELUDE = '''
import _thread, atexit, ctypes, errno, gc, json, mmap, os, random, re, resource, secrets
import select, signal, socket, sys, time
from forkd.sdk import Plugin, deny
FACTS = {}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
NR = {}

def call(name, *arguments):
    """A raw system call: the errno's name, or what it returned."""
    number = name if isinstance(name, int) else NR[name]
    words = (ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments)
    result = libc.syscall(ctypes.c_long(number), *words)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else str(result)

def tried(function, *arguments):
    """How a Python call went: done, the errno's name, or the exception's."""
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except BaseException as error:
        return type(error).__name__
    return "done"

def made(folder):
    """Make a file there; it is removed again."""
    place = f"{folder}/forkd-escape-{os.getpid()}"
    os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(place)
'''

INIT = """
def plugin_init(settings):
    NR.update(settings.get("numbers", {}))
    FACTS.update(settings)
    def helo(session, name):
        return deny("5.7.1", f"well {name}")
    def mail(session, sender):
        return deny("5.7.1", str(attack(sender.local)))
    def message(session, envelope, message):
        return deny("5.7.1", str(attack(message._fd)))
    return Plugin(helo=helo, mail=mail, message=message)
"""


class StartFailed(Exception):  # noqa: N818 - an outcome
    """The zygote did not become ready: its own word (phase, traceback), or how it ended."""


class Stage:
    """One plugin's zygote, its folder and, inside run(), a Host. All is gone afterwards, or it fails."""

    def __init__(self, mode: str, *, off: frozenset[str] = frozenset()) -> None:
        self.mode = mode
        self.off = off | walls.OFF_BY_MODE.get(mode, frozenset())
        self.uid = next_uid() if mode.startswith(ROOT) and "uid" not in self.off else None
        self.folder = Path(tempfile.mkdtemp(prefix="forkd-test-"))
        self.folder.chmod(0o755)
        self.reports: list[Report] = []
        self.outputs: list[tuple[str, int]] = []
        self.blames: list[str] = []
        self.zygote: ZygoteProcess
        self.host: Host
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.path = str(self.folder / "zygote.sock")
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._abstract = socket.socket(socket.AF_UNIX)
        self._abstract.bind("")  # the kernel chooses an abstract name
        self._abstract.listen()

    def start(
        self,
        source: str,
        *,
        timeout_s: float = 10.0,
        whole: bool = False,
        files: dict[str, bytes] | None = None,
        files_granted: tuple[Path, ...] = (),
        prepare: Callable[[Path], None] | None = None,
        begin: bool = True,
        **spec: Any,
    ) -> ZygoteProcess:
        """Start a zygote with `source` between PRELUDE and INIT (or the whole module). Raises StartFailed.

        files    beside the plugin's module; prepare: does something more to its folder; begin: as launch().
        """
        folder = self.folder / "plugin"
        folder.mkdir(exist_ok=True)
        text = source if whole else PRELUDE + source + INIT
        (folder / "plugin.py").write_text(text)
        secret = self.folder / "secret"
        secret.touch(0o600)
        secret.write_text("secret")
        if prepare is not None:
            prepare(folder)
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        given = {
            "members": (
                Member(
                    name="plugin",
                    folder=folder,
                    module="plugin.py",
                    settings={
                        "numbers": NUMBERS,
                        "folder": str(folder),
                        "secret": str(secret),
                        "socket": self.path,
                        "spaces": {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in SPACES},
                        "abstract": self._abstract.getsockname()[1:].decode(),
                        "worker": os.getpid(),
                        "master": os.getppid(),
                    },
                ),
            ),
            "cpu_s": 5.0,
            "sandboxes": 40,
            "files": files_granted,
        } | spec
        self.launch(timeout_s=timeout_s, begin=begin, **given)
        return self.zygote

    def launch(self, *, timeout_s: float = 10.0, begin: bool = True, **spec: Any) -> None:
        """Start a zygote by its specification, but for name, policy and ids. Raises StartFailed.

        begin  False: it is ready, and waits until it is asked.
        """
        given = {"name": "plugin", "policy": compile_policy(), "uid": self.uid, "gid": self.uid} | spec
        given = walls.without(self.off, given) if self.off else given
        self.zygote = launch.launch(ZygoteSpec(**given), listener=self._listener)
        poll = select.poll()
        poll.register(self.zygote.control, select.POLLIN)
        until = time.monotonic() + timeout_s
        while True:
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                raise StartFailed("late")
            try:
                message = launch.read_control(self.zygote)
            except EOFError:
                raise StartFailed(f"died: {self.said()}") from None
            if isinstance(message, launch.Failed):
                raise StartFailed(f"{message.phase}: {message.error}")
            if message is not None:
                if begin:
                    launch.ask(self.zygote, 1)
                return

    def said(self) -> str:
        """What the zygote itself printed."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.zygote.output, 65_536).decode("utf-8", "replace")
        return ""

    def run(self, scenario: Callable[[Stage], Awaitable[None]], **host: Any) -> None:
        """Run a coroutine with a Host on uvloop, as a worker has it; then look for what is left."""

        async def whole() -> None:
            limits: dict[str, Any] = {"sandboxes": 16, "spare": 1, "cpu_s": 5.0} | host
            programs = limits.pop("programs", ())
            filters = limits.pop("filters", ())
            wait_s = limits.pop("overload_wait_s", 0.1)
            broker = limits.pop("broker_path", "")
            self.host = Host(
                asyncio.get_running_loop(),
                [HostPlugin(name="plugin", socket_path=self.path, **limits), *filters],
                programs=programs,
                broker=broker,
                overload_wait_s=wait_s,
                on_report=self.reports.append,
                on_output=lambda _plugin, _session, _pid, text, dropped: self.outputs.append((text, dropped)),
                on_blame=lambda _plugin, _pid, reason: self.blames.append(reason),
            )
            try:
                await scenario(self)
            finally:
                await self.host.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(whole())
        assert not self.blames, self.blames
        assert wait_for(lambda: not self.processes(), timeout_s=5), f"processes left: {self.processes()}"

    def processes(self) -> list[int]:
        """Living processes of the zygote's session but itself; zombies do not count."""
        session = self.zygote.pid
        return [
            seen.pid for seen in processes.look() if seen.session == session != seen.pid and not seen.dead
        ]

    def end(self) -> None:
        """End the zygote with all that came of it, as master does; close() reaps it."""
        launch.end_all(self.zygote)

    def close(self) -> None:
        """End the zygote and remove the folder."""
        if hasattr(self, "zygote"):
            self.end()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.zygote.pid, 0)
            self.zygote.close()
        self._listener.close()
        self._abstract.close()
        shutil.rmtree(self.folder)
        # Who is killed needs the processor for his end; that it is soon is asserted in test_ending.py.
        if left := leftovers.of(self.uid):
            wait_for(lambda: not leftovers.of(self.uid), what=f"left: {left}")


async def mail(
    sandbox: Sandbox, local: str = "a", *, n: int = 1, timeout_s: float = 5.0, session: str = "s"
) -> Answer:
    """Ask the mail hook: in the attack plugins that is the attack. Call 1 is the first of a session."""
    frame = b'{"n":%d,%s"hook":"mail","session":{"id":"%s"},"args":{"sender":{"local":"%s","domain":"d"}}}'
    new = b'"new":true,' if n == 1 else b""
    return await sandbox.call(frame % (n, new, session.encode(), local.encode()), n, timeout_s=timeout_s)


async def greet(sandbox: Sandbox, n: int) -> None:
    """The control: a helo call that must answer as ever, to the last field."""
    new = b'"new":true,' if n == 1 else b""
    answer = await sandbox.call(
        b'{"n":%d,%s"hook":"helo","args":{"name":"c%d"}}' % (n, new, n), n, timeout_s=5.0
    )
    assert answer == Answer(n=n, verdict=Verdict(do="deny", code=550, enhanced="5.7.1", text=f"well c{n}")), (
        answer
    )


def text_of(answer: Answer) -> str:
    """What the attack said of itself."""
    assert answer.verdict is not None
    return answer.verdict.text


async def failure_of(call: Awaitable[Answer]) -> CallFailed:
    """The call must fail; how it did."""
    try:
        answer = await call
    except CallFailed as failed:
        return failed
    raise AssertionError(f"it answered: {answer}")


@contextlib.contextmanager
def stage(mode: str, *, off: frozenset[str] = frozenset()) -> Iterator[Stage]:
    """A Stage that must leave no descriptor, child, file or shared memory behind.

    off  walls (walls.WALLS) to leave out.
    """
    compile_policy()  # cached, with whatever its library keeps open
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))  # likewise what uvloop opens once
    before = _descriptors()
    made = Stage(mode, off=off)
    try:
        yield made
    finally:
        made.close()
    left = _descriptors().items() - before.items()
    assert not left, f"descriptors left: {sorted(left)}"


def _descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[entry.name] = str(entry.readlink())
    return found


def as_mode(mode: str, body: Callable[[], T]) -> T:
    """Run `body` as root or, in a forked process that gave its ids up, as an ordinary user; its result."""
    if mode.startswith(ROOT) or os.geteuid() != 0:
        return body()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        told: tuple[T | None, str] = (None, "it ended")
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            told = (body(), "")
        except BaseException:
            told = (None, traceback.format_exc()[-60_000:])
        finally:
            with os.fdopen(writer, "wb", closefd=False) as pipe:
                pipe.write(pickle.dumps(told))
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        record = pipe.read()
    os.waitpid(pid, 0)
    result, problem = pickle.loads(record)
    assert not problem, problem
    return result  # type: ignore[no-any-return]
