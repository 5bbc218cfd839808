"""How does a plugin get a real sandbox without a daemon? One zygote and a host of its sandboxes.

The walls are those this user gets: started by root the zygote has a uid of its own, else ours. In learn mode
it has no namespaces: the kit must see the pids of who asks. What these would keep from it, the filter
refuses by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Final

from forkd.config.schema import Config, PluginConfig
from forkd.config.units import format_duration
from forkd.kit.brokered import Broker
from forkd.kit.noted import Noted, noted, place
from forkd.sandbox import launch, learn, learn_policy
from forkd.sandbox.host import Host, HostFilter, HostPlugin
from forkd.sandbox.policy import PolicyError, compile_policy
from forkd.sandbox.refusal import Refusal
from forkd.sandbox.report import Report

_UIDS: Final = (50_000, 10_000)
"""From sandbox.uid_base: behind those that a daemon gives to plugins; so many, by the kit's own pid: two runs
at once must not count each other's processes (RLIMIT_NPROC)."""


_LOOKS, _LOOK_S = 100, 0.01
"""For what a process does at once, if it does it at all."""


class NotStarted(Exception):  # noqa: N818 - a state of the plugin
    """The plugin cannot be loaded behind its walls.

    phase    settings: plugin_init refuses them; load: the plugin's fault, with the traceback if there is
             one; else ours.
    refused  calls that were refused meanwhile; in learn mode only.
    printed  what it printed meanwhile.
    """

    def __init__(self, phase: str, text: str) -> None:
        super().__init__(text)
        self.phase = phase
        self.refused: tuple[Noted, ...] = ()
        self.printed = ""


class Stage:
    """One plugin's zygote and the host of its sandboxes, for as long as the context lasts.

    data_dir  a throw-away folder, for its broker's store.
    learning  refused calls are named: refusals().
    reuse     sessions one sandbox may serve; None: as the plugin's limits say.
    tell      compiled plugins: each answer's log says what every one of them returned.
    """

    def __init__(
        self,
        plugin: PluginConfig,
        config: Config,
        *,
        data_dir: Path,
        learning: bool = False,
        reuse: int | None = None,
        tell: bool = False,
    ) -> None:
        self.plugin = plugin
        self._data_dir = data_dir
        self._config = config
        self._learning = learning
        self._tell = tell
        self._reuse = plugin.limits.reuse if reuse is None else reuse
        self._stack = contextlib.AsyncExitStack()
        self._profile = ""
        self._process: launch.ZygoteProcess | None = None
        self._learner: learn.Learner | None = None
        self.reports: list[Report] = []
        self.outputs: list[str] = []
        self.notes: list[str] = []
        """What is not as it would be in a daemon; one line each."""
        self.pid = 0
        """The zygote's."""
        self.uid: int | None = None
        self.host: Host

    async def __aenter__(self) -> Stage:
        """Start it. Raises NotStarted."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except NotStarted as why:
                why.refused = noted(self.refusals(), self._folders)
                why.printed = self.said()
                raise
            except (launch.LaunchError, PolicyError, EOFError, OSError) as error:
                raise NotStarted("start", str(error) or "the zygote died") from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def refusals(self) -> list[Refusal]:
        """The calls that were refused so far, in their order."""
        return [] if self._learner is None else self._learner.refusals()

    @property
    def _folders(self) -> list[Path]:
        return [member.folder for member in self.plugin.members]

    async def _where(self) -> str:
        """At which line a zygote is that does not get ready; empty where that cannot be seen."""
        if self._learner is None or not self._learner.ask_where():
            return ""
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_S)
            if frames := self._learner.where():
                break
        else:
            return ""
        found = next((f for f in frames if any(Path(f.file).is_relative_to(r) for r in self._folders)), None)
        return f"; it is at {place(found or frames[0], self._folders)}"

    def said(self) -> str:
        """What the zygote itself has printed since this was asked before."""
        return "" if self._process is None else _said(self._process)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        plugin = self.plugin
        folder = Path(tempfile.mkdtemp(prefix="forkd-stage-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        broker = ""
        if plugin.capabilities.brokered:
            beside = Broker(plugin, self._config, self._data_dir, folder)
            stack.callback(beside.close)
            broker = beside.path
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        path = str(folder / "zygote.sock")
        listener.bind(path)
        listener.listen(16)
        spec = self._spec()
        process = self._process = launch.launch(spec, listener=listener)
        stack.callback(_end, process)
        learner = None
        if spec.learn:
            tables = learn_policy.Tables(self._profile, own_uid=spec.uid is not None)
            learner = self._learner = learn.Learner(process.control, tables)
            stack.callback(learner.close)
        try:
            async with asyncio.timeout(float(self._config.sandbox.start_timeout)):
                if learner is not None:
                    await self._connect(learner, process, stack)
                await _ready(process)
        except TimeoutError:
            text = f"it was not loaded in {format_duration(self._config.sandbox.start_timeout)}"
            raise NotStarted("load", text + await self._where()) from None
        except EOFError:
            raise await _dead(process) from None
        if problems := launch.look(process, layers=spec.layers).problems:
            raise NotStarted("start", f"its walls are not as they should be: {'; '.join(problems)}")
        launch.ask(process, 1)
        self.pid = process.pid
        self.host = Host(
            asyncio.get_running_loop(),
            [self._asked(path)],
            on_report=self.reports.append,
            on_output=lambda _plugin, _session, _pid, text, _dropped: self.outputs.append(text),
            broker=broker,
            overload_wait_s=float(self._config.sandbox.overload_wait),
        )
        stack.push_async_callback(self.host.close)

    def _asked(self, path: str) -> HostPlugin | HostFilter:
        plugin, limits = self.plugin, self.plugin.limits
        sandboxes = limits.sandboxes or 64 * (os.cpu_count() or 1)
        if plugin.kind == "program":
            return HostFilter(
                name=plugin.name,
                socket_path=path,
                sandboxes=sandboxes,
                cpu_s=float(limits.cpu),
                environment=plugin.environment,
                unchanged_if_empty=plugin.unchanged_if_empty,
                message_size=self._config.limits.edited_size,
            )
        return HostPlugin(
            name=plugin.name,
            socket_path=path,
            sandboxes=sandboxes,
            spare=limits.spare,
            cpu_s=float(limits.cpu),
            memory=int(limits.memory),
            reuse=self._reuse,
            broker=plugin.capabilities.brokered,
        )

    def _spec(self) -> launch.ZygoteSpec:
        plugin = self.plugin
        uid = None
        if os.geteuid() == 0:
            first, count = _UIDS
            uid = plugin.uid or self._config.sandbox.uid_base + first + os.getpid() % count
        self._profile = _profile(plugin)
        # Of a program no call is noted: the listener would be inherited by whatever it starts.
        learning = self._learning and plugin.kind != "program"
        policy = (
            learn_policy.learning_policy(self._profile) if learning else compile_policy(profile=self._profile)
        )
        spec = launch.ZygoteSpec.of(plugin, policy=policy, uid=uid, gid=uid)
        spec = dataclasses.replace(spec, learn=learning, reuse=self._reuse)
        if self._tell and spec.compiled:
            spec = dataclasses.replace(spec, compiled=dataclasses.replace(spec.compiled, tell=True))
        if uid is not None and (closed := _closed(spec, uid)):
            self.notes.append(
                f"uid {uid}, as which it would run, cannot read {closed}: it runs as uid 0 here, without "
                f"rights. forkd would not start it: let every user read it (chmod o+rX, the folders above "
                f"too), or name one who may in its entry (uid = N)"
            )
            spec = dataclasses.replace(spec, uid=None, gid=None)
        if self._learning and os.geteuid() != 0:
            # So that we may read the names of files it asks for. It may do nothing more by that.
            layers = tuple(layer for layer in spec.layers if layer != "non_dumpable")
            spec = dataclasses.replace(spec, layers=layers)
        self.uid = spec.uid
        return spec

    async def _connect(
        self, learner: learn.Learner, process: launch.ZygoteProcess, stack: contextlib.AsyncExitStack
    ) -> None:
        loop = asyncio.get_running_loop()
        while not learner.take_socket():
            await _readable(process.control.fileno())
        try:
            while (listener := learner.take_listener()) < 0:
                await _readable(learner.socket_fd)
        except launch.LaunchError:
            await _ready(process)  # says why
            raise
        for fd, ready in ((listener, learner.ready), (learner.socket_fd, learner.read_stacks)):
            loop.add_reader(fd, ready)
            stack.callback(loop.remove_reader, fd)


def _profile(plugin: PluginConfig) -> str:
    """The system calls of a plugin like this (forkd.sandbox.profiles)."""
    if plugin.kind == "program":
        return "exec, processes" if plugin.capabilities.processes else "exec"
    if plugin.kind == "indimail":
        return "indimail"
    return "pure, threads" if plugin.capabilities.threads else "pure"


def _closed(spec: launch.ZygoteSpec, uid: int) -> str:
    """The first of what the zygote needs that it could not read; empty: nothing."""
    missing = launch.unreachable([Path(spec.python), *spec.paths()], uid=uid, gid=uid)
    return missing[0] if missing else ""


async def _ready(process: launch.ZygoteProcess) -> None:
    """Wait until it is loaded. Raises NotStarted, EOFError, LaunchError."""
    while (message := launch.read_control(process)) is None:
        await _readable(process.control.fileno())
    if isinstance(message, launch.Failed):
        raise NotStarted(message.phase, message.error.strip())


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(fd, there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(fd)


async def _dead(process: launch.ZygoteProcess) -> NotStarted:
    """How did it end?"""
    ended = None
    for _ in range(_LOOKS):
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is not None:
            break
        await asyncio.sleep(_LOOK_S)
    if ended is None:
        return NotStarted("load", "it closed what it speaks to forkd on")
    if ended.si_code == os.CLD_EXITED and ended.si_status == launch.EXIT_LAUNCH:
        return NotStarted("start", _said(process) or "no process could be made")
    if ended.si_code == os.CLD_EXITED:
        return NotStarted("load", f"it ended while it was loaded: exit {ended.si_status}")
    name = signal.Signals(ended.si_status).name
    why = ", for a refused system call" if name == "SIGSYS" else ""
    return NotStarted("load", f"it was killed while it was loaded: {name}{why}")


def _said(process: launch.ZygoteProcess) -> str:
    with contextlib.suppress(BlockingIOError):
        return os.read(process.output, 65_536).decode("utf-8", "backslashreplace").strip()
    return ""


def _end(process: launch.ZygoteProcess) -> None:
    launch.end_all(process)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, 0)
    process.close()
