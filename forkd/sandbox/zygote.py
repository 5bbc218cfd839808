"""The zygote: who loads a plugin, and forks a sandbox of it for each session?

runs as        a uid of its own where root starts it, else forkd's user; exec'd fresh, empty environment
holds          its plugin, one listening socket for workers, a control socket to master, its output pipe;
               what launch.py put around it: namespaces, a mount root, a cgroup
reads from     workers' requests from a fixed table (PROTOCOL.md); master's questions, which it sends back
if taken over  forks and ends its own sandboxes, lies in its reports; it was confined before the plugin
               was loaded, and holds no secret. One that starts a program loads no plugin at all
restart        by master, with back-off; its sandboxes live on and end with their leashes, but for those
               in its PID namespace, whose first process it is: they end with it

Lean on purpose: no threading, logging, asyncio, random, and no Python-level fork. Whatever is loaded
here is copied by every fork, and can be read by a hostile plugin.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would bring nothing more
import _socket
import base64
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import sys

from forkd.sandbox import confine, linux, wire
from forkd.sandbox.crowd import Crowd

TYPE_CHECKING = False  # typing itself would be 0.7 MB, copied with every fork
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object

_SIGCHLD, _SIGINT = 17, 2
_MSG_DONTWAIT, _MSG_CTRUNC, _MSG_TRUNC, _MSG_CMSG_CLOEXEC = 0x40, 0x8, 0x20, 0x4000_0000
_READ_CHUNK = 4096

KINDS = {
    "python": "forkd.sandbox.python",
    "probe": "forkd.sandbox.probe",
    "program": "forkd.sandbox.program",
    "indimail": "forkd.sandbox.indimail",
}
"""Plugin kind -> the module whose load(spec, control=…, title=…) gives the Forker of its sandboxes."""
MAX_FDS = max(wire.MOST_FDS_PER_SANDBOX * wire.MAX_FORKS, wire.FDS_PER_RUN + wire.MAX_PROGRAM_FDS)
"""Descriptors beside one request."""


class Forker(Protocol):
    """What one kind of plugin does with a worker's request."""

    def fork(self, record: bytes, descriptors: list[int]) -> list[tuple[int, int]]:
        """Fork what `record` asks for; its ids, each with the new pid (-1: it could not be forked).

        The descriptors are closed by the caller; in the new process this never returns. Raises WireError.
        """
        ...


class Output:
    """sys.stdout and sys.stderr of a zygote and its sandboxes: a pipe that drops rather than blocks.

    Unbuffered, because a sandbox ends by SIGKILL; never an error, because a plugin that prints must not
    fail when nobody reads.
    """

    encoding, errors, closed, newlines = "utf-8", "backslashreplace", False, None

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, text: str) -> int:
        """Write all, some or none of it; always claims all."""
        try:
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
        except OSError:
            return len(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def fileno(self) -> int:
        """The pipe."""
        return self._fd

    def isatty(self) -> bool:
        """Never."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True


def main() -> None:
    """Take the specification, confine, load, fork on request; ends with master or by a signal."""
    spec = _take_spec()
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, wire.CONTROL_FD)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, wire.LISTENER_FD)
    listener.setblocking(False)
    _signal.signal(_SIGINT, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_SIGCHLD])
    children = linux.signal_descriptor(_SIGCHLD)
    linux.prctl(linux.PR_SET_NAME, ctypes.c_char_p(f"forkd:{spec['name']}"[:15].encode()))
    sys.stdout = sys.stderr = Output(2)
    title = linux.Title()
    title.show(f"forkd: zygote {spec['name']} [loading]")
    faulthandler.enable(file=2, all_threads=False)
    phase = "confine"
    try:
        kind = importlib.import_module(KINDS[spec["kind"]])
        _preload(spec)
        if hasattr(kind, "before_walls"):
            kind.before_walls(spec)
        load_filter, highest = None, 0xFFFF_FFFF
        if "learn" in spec:
            learner = importlib.import_module("forkd.sandbox.learner")
            load_filter, highest = learner.begin(control, spec), learner.LEARN_FD - 1
            spec["highest_fd"] = highest
        layers = confine.confine(
            layers=spec["layers"],
            around=spec["around"],
            parent=spec["parent"],
            read_paths=spec["read_paths"],
            execute_paths=spec["execute_paths"],
            write_paths=spec["write_paths"],
            limits=spec["limits"],
            program=base64.b64decode(spec["load"]),
            load=load_filter,
        )
        phase = "load"
        # Only now: a library runs code when it is imported. No .pth file and no sitecustomize ever do.
        sys.path += spec["libraries"]
        forker = kind.load(spec, control=control, title=title)
        phase = "prepare"
        if "rlimits" in spec["layers"]:
            size = int(os.pread(wire.SIZE_FD, 100, 0).split()[0]) * os.sysconf("SC_PAGE_SIZE")
            confine.limit_memory(size, spec["limits"]["memory"])
        # Whatever the plugin opened while it was loaded would be one file offset shared by all sessions.
        linux.call("close_range", children + 1, ctypes.c_ulong(highest), ctypes.c_long(0))
        zygote = Zygote(forker, control=control, listener=listener, children=children)
    except BaseException as error:
        _report_failure(control, phase, error)
        os._exit(1)
    gc.collect()
    gc.freeze()
    linux.trim_memory()  # what loading left over, half a megabyte: each fork would copy its page tables
    title.show(f"forkd: zygote {spec['name']} [ready]")
    control.send(json.dumps({"t": "ready", "api": wire.API, "pid": os.getpid(), "layers": layers}).encode())
    zygote.run()


def _take_spec() -> dict[str, Any]:
    size = os.fstat(wire.SPEC_FD).st_size
    text = os.pread(wire.SPEC_FD, size, 0)
    os.close(wire.SPEC_FD)
    spec: dict[str, Any] = json.loads(text)
    return spec


def _report_failure(control: Any, phase: str, error: BaseException) -> None:
    """Tell master what went wrong, with the traceback's last lines. traceback is loaded only here."""
    try:
        import traceback  # noqa: PLC0415 - 20 modules, for a zygote that ends

        text = "".join(traceback.format_exception(error))
        if getattr(error, "phase", "") == "settings":
            phase, text = "settings", str(error)  # for the admin, who has no use for a traceback
    except BaseException:
        text = type(error).__name__
    control.send(json.dumps({"t": "failed", "phase": phase, "error": text[-8000:]}).encode())


def _preload(spec: dict[str, Any]) -> None:
    """Load what a sandbox may need and cannot load itself: codecs that are C extensions, new code to it.

    So no charset of a mail is silently unknown, wherever mail can be read: a plugin that reads neither
    header nor body is spared the 30 mappings of those for East Asia (70 microseconds at each fork); asked
    for in there, such a charset is an error, never a guess. The codecs written in Python are imported
    by whoever meets them, through Landlock's leave to read the standard library: all of them here would
    cost every sandbox another 70.
    """
    if spec["kind"] != "python":
        return
    wanted = _FOR_NAMES + (_FOR_TEXT if {"headers", "body"} & set(spec["reads"]) else ())
    import encodings  # noqa: PLC0415 - not for the probe

    for name in sorted(os.listdir(encodings.__path__[0])):  # noqa: PTH208
        if name.startswith(wanted) and name.endswith(".py"):
            importlib.import_module("encodings." + name[:-3])


_FOR_NAMES = ("idna",)
"""Beginnings of the codecs that need a C extension (unicodedata) and are for addresses."""
_FOR_TEXT = (
    *("big5", "cp932", "cp949", "cp950", "euc_", "gb", "hz", "iso2022_", "johab", "shift_jis"),
    "zlib",
)
"""Those for text; a test asks for every codec."""


class Zygote:
    """The loop: accept workers, fork for them, report the dead."""

    def __init__(self, forker: Forker, *, control: Any, listener: Any, children: int) -> None:
        self._forker = forker
        self._control = control
        self._listener = listener
        self._children_fd = children
        self._workers: dict[int, Any] = {}
        self._children: dict[int, tuple[int, int]] = {}
        """pid -> worker connection's descriptor, id."""
        self._crowd = Crowd()
        self._ancillary = _socket.CMSG_SPACE(4 * MAX_FDS)
        self._poll = select.poll()
        for fd in (wire.LISTENER_FD, wire.CONTROL_FD, children):
            self._poll.register(fd, select.POLLIN)

    def run(self) -> None:
        """Serve until master closes the control socket, and not before it has asked: until then it looks at
        this process, which must not be in the middle of a fork."""
        self._answer()
        while True:
            for fd, _ in self._poll.poll(self._crowd.wait_ms()):
                if fd in self._workers:
                    self._serve(fd)
                elif fd == self._children_fd:
                    self._reap()
                elif fd == wire.LISTENER_FD:
                    self._accept()
                elif fd == wire.CONTROL_FD:
                    self._answer()
                # Else a worker that was dropped a moment ago, since it could not be told of a death.
            self._crowd.look()

    def _answer(self) -> None:
        """Master asks whether this loop goes round: whatever it says goes back. Blocks until it does."""
        try:
            question = self._control.recv(_READ_CHUNK)
            if question:
                self._control.send(question, _MSG_DONTWAIT)
                return
        except OSError:
            pass
        os._exit(0)  # master closed it: no new sandboxes

    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()
        except OSError:
            return  # the worker is gone again, or too many are connected: the limit of open files holds
        self._workers[fd] = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self._poll.register(fd, select.POLLIN)

    def _serve(self, fd: int) -> None:
        """One request. A record out of protocol, or one cut short, ends the connection."""
        try:
            record, passed, flags, _ = self._workers[fd].recvmsg(
                wire.MAX_RECORD_BYTES, self._ancillary, _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self._drop(fd)
            return
        descriptors = memoryview(passed[0][2]).cast("i").tolist() if passed else []
        try:
            if flags & (_MSG_CTRUNC | _MSG_TRUNC):
                raise wire.WireError("descriptors are missing")
            failed = []
            for id_, pid in self._forker.fork(record, descriptors):
                if pid < 0:
                    failed.append(wire.Death(id_, 0, 0, 0, 0, 0, 0))
                else:
                    self._children[pid] = (fd, id_)
                    self._crowd.add(pid)
            if failed:
                self._tell(fd, failed)
        except wire.WireError:
            self._drop(fd)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _reap(self) -> None:
        """Collect the dead and tell their workers. A worker that does not read loses reports only."""
        os.read(self._children_fd, _READ_CHUNK)
        deaths: dict[int, list[wire.Death]] = {}
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid not in self._children:
                continue  # forked by the plugin, or by a program: the first of a PID namespace inherits all
            worker, id_ = self._children.pop(pid)
            self._crowd.remove(pid)
            death = wire.Death(
                id_,
                pid,
                status,
                int(usage.ru_utime * 1e6),
                int(usage.ru_stime * 1e6),
                usage.ru_maxrss,
                usage.ru_minflt,
            )
            deaths.setdefault(worker, []).append(death)
        for worker, dead in deaths.items():
            for at in range(0, len(dead), wire.MAX_DEATHS):
                self._tell(worker, dead[at : at + wire.MAX_DEATHS])

    def _tell(self, worker: int, deaths: list[wire.Death]) -> None:
        connection = self._workers.get(worker)
        if connection is None:
            return
        try:
            connection.send(wire.pack_deaths(deaths), _MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._drop(worker)

    def _drop(self, fd: int) -> None:
        """Forget a worker. Its sandboxes end with their leashes, which the worker holds."""
        connection = self._workers.pop(fd, None)
        if connection is None:
            return
        self._poll.unregister(fd)
        connection.close()
        # A number is used again: what is left of the old connection's children reports to nobody.
        self._children = {
            pid: (-1 if owner == fd else owner, id_) for pid, (owner, id_) in self._children.items()
        }
