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
import socket
import tempfile
from pathlib import Path
from typing import Final

from forkd.config.schema import Config, PluginConfig
from forkd.kit.brokered import Broker
from forkd.sandbox import launch, learn, learn_policy
from forkd.sandbox.host import Host, HostPlugin
from forkd.sandbox.policy import PolicyError, compile_policy
from forkd.sandbox.report import Report

_UIDS: Final = (50_000, 10_000)
"""From sandbox.uid_base: behind those that a daemon gives to plugins; so many, by the kit's own pid: two runs
at once must not count each other's processes (RLIMIT_NPROC)."""


class NotStarted(Exception):  # noqa: N818 - a state of the plugin
    """The plugin cannot be loaded behind its walls.

    phase  settings: plugin_init refuses them; load: the text ends with a traceback; else ours.
    """

    def __init__(self, phase: str, text: str) -> None:
        super().__init__(text)
        self.phase = phase


class Stage:
    """One plugin's zygote and the host of its sandboxes, for as long as the context lasts.

    data_dir  a throw-away folder, for its broker's store.
    learning  refused calls are named: refusals().
    reuse     sessions one sandbox may serve; None: as the plugin's limits say.
    """

    def __init__(
        self,
        plugin: PluginConfig,
        config: Config,
        *,
        data_dir: Path,
        learning: bool = False,
        reuse: int | None = None,
    ) -> None:
        self.plugin = plugin
        self._data_dir = data_dir
        self._config = config
        self._learning = learning
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
            except (launch.LaunchError, PolicyError, EOFError, OSError) as error:
                raise NotStarted("start", str(error) or "the zygote died") from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def refusals(self) -> list[learn.Refusal]:
        """The calls that were refused so far, in their order."""
        return [] if self._learner is None else self._learner.refusals()

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
            raise NotStarted("load", "it was not loaded in time (sandbox.start_timeout)") from None
        except EOFError:
            raise NotStarted("load", _said(process) or "the zygote died") from None
        if problems := launch.look(process, layers=spec.layers).problems:
            raise NotStarted("start", f"its walls are not as they should be: {'; '.join(problems)}")
        self.pid = process.pid
        limits = plugin.limits
        self.host = Host(
            asyncio.get_running_loop(),
            [
                HostPlugin(
                    name=plugin.name,
                    socket_path=path,
                    sandboxes=limits.sandboxes or 64 * (os.cpu_count() or 1),
                    spare=limits.spare,
                    cpu_s=float(limits.cpu),
                    memory=int(limits.memory),
                    reuse=self._reuse,
                    broker=plugin.capabilities.brokered,
                )
            ],
            on_report=self.reports.append,
            on_output=lambda _plugin, _session, _pid, text, _dropped: self.outputs.append(text),
            broker=broker,
            overload_wait_s=float(self._config.sandbox.overload_wait),
        )
        stack.push_async_callback(self.host.close)

    def _spec(self) -> launch.ZygoteSpec:
        plugin = self.plugin
        uid = None
        if os.geteuid() == 0:
            first, count = _UIDS
            uid = plugin.uid or self._config.sandbox.uid_base + first + os.getpid() % count
        threads = plugin.capabilities.threads > 0
        self._profile = "pure, threads" if threads else "pure"
        policy = (
            learn_policy.learning_policy(self._profile) if self._learning else compile_policy(threads=threads)
        )
        spec = launch.ZygoteSpec.of(plugin, policy=policy, uid=uid, gid=uid)
        spec = dataclasses.replace(spec, learn=self._learning, reuse=self._reuse)
        if uid is not None and (closed := _closed(spec, uid)):
            self.notes.append(
                f"uid {uid}, as which it would run, cannot read {closed}: it runs as uid 0 here, without "
                f"rights; forkd itself would not start it from there"
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


def _said(process: launch.ZygoteProcess) -> str:
    with contextlib.suppress(BlockingIOError):
        return os.read(process.output, 65_536).decode("utf-8", "backslashreplace").strip()
    return ""


def _end(process: launch.ZygoteProcess) -> None:
    launch.end_all(process)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, 0)
    process.close()
