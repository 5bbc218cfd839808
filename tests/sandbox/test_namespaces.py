"""forkd/sandbox/{namespaces,mounts,interpreter}.py: what is around a zygote, seen from both sides."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from forkd.sandbox import executables, interpreter, launch, linux, mounts, namespaces, selftest
from forkd.sandbox.confine import LAYERS
from tests.support import programs
from tests.support.pids import inner
from tests.support.sandboxes import MODES, ROOT, Stage, as_mode, mail, stage, text_of
from tests.support.uids import next_uid
from tests.support.waiting import wait_for

NS = ("net", "ipc", "pid", "mnt", "uts")
BARE = ("namespaces", "mount_root", "rlimits", "no_new_privs", "non_dumpable")
"""Layers without seccomp and Landlock: what namespaces do alone."""


def links(pid: int | str) -> dict[str, str]:
    return {name: str(Path(f"/proc/{pid}/ns/{name}").readlink()) for name in (*NS, "user")}


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_has_namespaces_of_its_own(mode: str):
    """sandbox.md, "Layers": network, IPC, PID, mount, UTS; a user namespace only where we are not root."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): return f'{os.getpid()} {os.getppid()}'\n")
            theirs, ours = links(st.zygote.pid), links("self")
            shared = {name for name in theirs if theirs[name] == ours[name]}
            assert shared == ({"user"} if mode == ROOT else set())
            assert inner(st.zygote.pid) == 1

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                said = text_of(await mail(sandbox))
                assert said == f"{inner(sandbox.pid)} 1"

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_without_the_namespaces_it_was_given_is_seen_through(mode: str):
    """launch.look() must be able to fail: a zygote without them, of which they are claimed."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): pass\n", namespaces=False)
            assert st.zygote.namespaces == ()
            layers = [layer for layer in LAYERS if layer not in ("namespaces", "mount_root")]
            assert launch.look(st.zygote, layers=layers).problems == ()
            claimed = launch.inspect(st.zygote.pid, namespaces=namespaces.WANTED, mount_root=True)
            assert "it is not the first process of a PID namespace" in claimed.problems
            assert "its root is not one of its own" in claimed.problems
            if mode == ROOT:
                assert "it is in our net namespace" in claimed.problems
            else:
                assert "namespaces" in claimed.unverified

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_alone_they_keep_network_processes_and_files_away(mode: str):
    """Without seccomp and Landlock: no UDP, no path socket, nobody else's process, no other file's name."""
    code = """
def attack(_):
    def udp():
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))
    def path_socket():
        socket.socket(socket.AF_UNIX).connect(FOLDER + "/path.sock")
    def interfaces():
        return [name for _, name in socket.if_nameindex()]
    return " ".join((
        tried(udp), tried(path_socket), tried(os.kill, OUTSIDE, 0), tried(os.stat, "/etc/passwd"),
        tried(os.listdir, "/proc"), ",".join(interfaces()), tried(open, __file__, "r+"),
        ",".join(sorted(os.listdir("/"))),
    ))
"""

    def body() -> None:
        with stage(mode) as st, socket.socket(socket.AF_UNIX) as server:
            server.bind(str(st.folder / "path.sock"))
            server.listen()
            head = f"FOLDER, OUTSIDE = {str(st.folder)!r}, {os.getpid()}\n"
            st.start(head + code, layers=BARE)

            async def scenario(st: Stage) -> None:
                said = text_of(await mail(await st.host.take("plugin", "s"))).split()
                assert said[:6] == ["ENETUNREACH", "ENOENT", "ESRCH", "ENOENT", "ENOENT", "lo"]
                assert said[6] in ("EROFS", "EACCES")
                top = {Path(path).parts[1] for path in (*interpreter.paths(sys.executable), str(st.folder))}
                top |= {Path(launch.__file__).parts[1], "lib", "lib64"}
                assert set(said[7].split(",")) <= top

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_in_there_can_be_written(mode: str):
    """mounts.py: the tmpfs and every tree on it are read-only, even for whoever owns the files."""
    code = """
def attack(_):
    here = os.path.dirname(__file__)
    return " ".join(sorted({
        tried(os.mkdir, "/new"), tried(os.mkdir, here + "/new"), tried(open, here + "/new", "w"),
        tried(os.unlink, __file__), tried(os.symlink, "x", "/x"), tried(open, "/dev/null", "w"),
    }))
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code, layers=BARE)

            async def scenario(st: Stage) -> None:
                said = text_of(await mail(await st.host.take("plugin", "s")))
                assert set(said.split()) <= {"EROFS", "EACCES", "ENOENT"}

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_orphans_are_reaped_by_the_first_process(mode: str):
    """A PID namespace gives its first process all orphans: no zombie stays (without seccomp, to make one)."""
    code = """
def attack(_):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.05)
        os._exit(0)
    return "x"
"""

    def body() -> None:
        with stage(mode) as st:
            layers = tuple(layer for layer in LAYERS if layer not in ("seccomp", "rlimits"))
            st.start(code, layers=layers)

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                assert text_of(await mail(sandbox)) == "x"
                sandbox.close()
                assert await asyncio.to_thread(wait_for, lambda: children(st.zygote.pid) == [], timeout_s=5)

            st.run(scenario, spare=0)

    as_mode(mode, body)


def children(pid: int) -> list[int]:
    """Its children, zombies too."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"\nPPid:\t{pid}\n" in status.read_text(errors="replace"):
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


def test_what_is_refused_is_left_out_and_named():
    """A user who may make no network namespace gets the others, and the reason is there to be told."""

    def body() -> None:
        # In a user namespace of our own the limits can be set without harm to anybody else.
        gate = namespaces.Gate(("user",))
        pid = namespaces.clone(("user",))
        if pid == 0:
            try:
                gate.pass_through()
                Path("/proc/sys/user/max_net_namespaces").write_text("0")
                possible = namespaces.possible()
                assert possible.names == ("user", "ipc", "pid", "mount", "uts"), possible
                assert possible.mount_root
                assert possible.reasons() == "net: No space left on device"
                # As when others had taken them all, and then gave some back.
                Path("/proc/sys/user/max_user_namespaces").write_text("0")
                possible = namespaces.possible()
                assert possible.names == ()
                assert possible.reasons() == "user: No space left on device"
                for kind in ("net", "user"):
                    Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("99")
                assert namespaces.possible().whole, namespaces.possible()
                assert namespaces.possible() is namespaces.possible()
            except BaseException as error:
                os.write(2, f"{error}\n".encode())
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    as_mode("user", body)


def test_root_without_the_right_to_mount_gets_a_user_namespace():
    """A service manager leaves root without CAP_SYS_ADMIN: the zygote's uid is mapped, and all walls hold."""
    if os.geteuid() != 0:
        pytest.skip("only root may do that")
    prctl = pytest.importorskip("prctl")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for which in (prctl.cap_effective, prctl.cap_permitted):
                which.sys_admin = False
            namespaces._known.clear()
            uid = next_uid()
            found = {f.layer: f.result for f in selftest.examine(uid=uid, gid=uid, programs=True)}
            assert namespaces.possible().names[0] == "user"
            assert found.pop("cgroup") in ("enforced", "absent")
            assert set(found.values()) == {"enforced"}, found
            with stage(ROOT) as st:
                st.start("def attack(_): return f'{os.getuid()} {os.getgid()} {os.getgroups}'\n")
                assert launch.look(st.zygote, layers=LAYERS).problems == ()
                status = Path(f"/proc/{st.zygote.pid}/status").read_text()
                assert f"\nUid:\t{st.uid}\t" in status
                assert f"CapBnd:\t{'0' * 16}" in status
                assert "\nGroups:\t \n" in status
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        problem = pipe.read()
    os.waitpid(pid, 0)
    assert not problem, problem


def test_rights_that_an_ordinary_user_was_given_are_not_a_zygotes():
    """AmbientCapabilities of a service manager outlive an exec: master may need them, a plugin does not."""
    if os.geteuid() != 0:
        pytest.skip("only root may do that")
    prctl = pytest.importorskip("prctl")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prctl.securebits.keep_caps = True
            os.setgroups([])
            os.setresgid(65_534, 65_534, 65_534)
            os.setresuid(65_534, 65_534, 65_534)
            for which in (prctl.cap_permitted, prctl.cap_effective, prctl.cap_inheritable):
                which.limit(prctl.CAP_NET_BIND_SERVICE)
                which.net_bind_service = True
            raised = (prctl.CAP_NET_BIND_SERVICE, 0, 0)
            linux.call("prctl", 47, 2, *map(ctypes.c_ulong, raised))
            with stage("user") as st:
                st.start("def attack(_): pass\n", namespaces=False)
                status = Path(f"/proc/{st.zygote.pid}/status").read_text()
                assert f"CapAmb:\t{'0' * 16}" in status
                assert f"CapEff:\t{'0' * 16}" in status
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        problem = pipe.read()
    os.waitpid(pid, 0)
    assert not problem, problem


@pytest.mark.parametrize("mode", MODES)
def test_an_interpreter_behind_links_starts(mode: str):
    """mounts.py: links on the way to a file are shown as they are (a virtual environment's python)."""

    def body() -> None:
        with stage(mode) as st:
            (st.folder / "venv").mkdir()
            (st.folder / "venv" / "python").symlink_to("../link")
            (st.folder / "link").symlink_to(Path(sys.executable).resolve())
            st.start("def attack(_): return sys.executable\n", python=str(st.folder / "venv" / "python"))

            async def scenario(st: Stage) -> None:
                said = text_of(await mail(await st.host.take("plugin", "s")))
                assert said == str(st.folder / "venv" / "python")

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_program_sees_its_own_proc_and_nobody_else(mode: str):
    """Programs look themselves up in /proc; what is there is of their PID namespace, and cannot be opened."""

    def body() -> None:
        with stage(mode) as st:
            text = "readlink /proc/self/exe; echo /proc/[0-9]*; [ -e /proc/meminfo ] && echo whole\n"
            text += "cat /proc/self/status || echo closed"
            readlink, cat = ("/usr/bin/readlink", "/usr/bin/cat")
            path = programs.script(st, text)
            programs.start(st, path, processes=True, files=(Path(readlink), Path(cat)))
            code, said = programs.once(st)
            assert code == 0
            lines = said.splitlines()
            assert lines[0] == str(Path(readlink).resolve())
            assert str(os.getpid()) not in lines[1]
            assert lines[-1] == "closed"
            assert "whole" not in lines

    as_mode(mode, body)


# --- mounts.plan ----------------------------------------------------------------------------------------


def test_a_plan_shows_each_path_under_every_name_it_has(tmp_path: Path):
    """Links are made, files bound, what lies below a bound folder left to it, what is missing left out."""
    real = tmp_path / "real"
    (real / "deep").mkdir(parents=True)
    (real / "deep" / "file").touch()
    (tmp_path / "single").touch()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "real")
    (tmp_path / "c").symlink_to("../" + tmp_path.name + "/single")
    (tmp_path / "loop").symlink_to("loop")
    base = str(tmp_path)
    plan = mounts.plan(
        [f"{base}/{name}" for name in ("a/deep/file", "real", "c", "loop", "none/x", "single")]
    )
    assert plan is not None
    assert plan.binds == ((f"{base}/real", True), (f"{base}/single", False))
    assert dict(plan.links) == {
        f"{base}/a": "b",
        f"{base}/b": f"{base}/real",
        f"{base}/c": f"../{tmp_path.name}/single",
    }
    assert f"{base}/real" in plan.folders
    assert f"{base}/real/deep" not in plan.folders
    assert list(plan.folders) == sorted(plan.folders)


def test_a_plan_of_everything_is_none():
    """An admin who grants "/" gets no mount root; Landlock grants it likewise."""
    assert mounts.plan(["/usr", "/"]) is None


# --- interpreter ----------------------------------------------------------------------------------------


def test_an_interpreter_tells_what_it_reads():
    """Itself, its loader, its standard library, the folders of its libraries; nothing of ours."""
    found = interpreter.paths(sys.executable)
    assert str(Path(os.__file__).parent) in found
    assert str(Path(sys.executable).resolve()) in found
    assert "/etc/ld.so.cache" in found
    assert not [path for path in found if "site-packages" in path or "dist-packages" in path]
    command = [sys.executable, "-ISc", "print(open('/proc/self/maps').read())"]
    maps = subprocess.run(command, capture_output=True, check=True)
    for line in maps.stdout.decode().splitlines():
        path = "/" + line.partition("/")[2]
        if ".so" in path:
            assert str(Path(path).parent) in found


@pytest.mark.parametrize("text", ["#!/bin/true", "#!/bin/echo"])
def test_what_is_no_interpreter_tells_nothing(text: str, tmp_path: Path):
    """No error here: it cannot be a zygote either, and that one says what is wrong."""
    path = tmp_path / "python"
    path.write_text(text)
    path.chmod(0o755)
    assert interpreter.paths(str(path)) == ()


@pytest.mark.parametrize("text", ["", "#!/bin/false", "none"])
def test_an_interpreter_that_cannot_be_asked_starts_no_zygote(text: str, tmp_path: Path):
    """It may be well the next moment: then its zygote would run, without a mount root of its own."""
    path = tmp_path / "python"
    if text != "none":
        path.write_text(text)
        path.chmod(0o755)
    with pytest.raises(interpreter.InterpreterError, match=str(path)):
        interpreter.paths(str(path))
    with stage(MODES[0]) as st, pytest.raises(launch.LaunchError, match=str(path)):
        st.start("def attack(_): pass\n", python=str(path))


def test_an_interpreter_that_answers_again_is_asked_again(tmp_path: Path):
    """A refusal is not remembered: no processes to be had, say, and then there are."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\n[ -e {tmp_path}/well ] || exit 1\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    with pytest.raises(interpreter.InterpreterError):
        interpreter.paths(str(path))
    (tmp_path / "well").touch()
    assert str(Path(os.__file__).parent) in interpreter.paths(str(path))


def test_an_interpreter_finds_a_library_beside_itself(tmp_path: Path):
    """A relocatable build names its library by $ORIGIN, for which the loader asks /proc; there is none."""
    if shutil.which("cc") is None:
        pytest.skip("lack of the machine: no C compiler")
    (tmp_path / "bin").mkdir()
    library, program = str(tmp_path / "libbeside.so"), str(tmp_path / "bin" / "program")
    flags = ["-L", str(tmp_path), "-lbeside", "-Wl,-rpath,$ORIGIN/.."]
    for source, command in (
        (b"int beside(void) { return 7; }", ["-shared", "-fPIC", "-o", library]),
        (b"int beside(void); int main(void) { return beside(); }", ["-o", program]),
    ):
        more = flags if b"main" in source else []
        subprocess.run(["cc", "-x", "c", "-", *command, *more], input=source, check=True)
    plan = mounts.plan([str(tmp_path), *map(str, executables.SYSTEM_PATHS)])
    assert plan is not None
    ended = []
    for environment in ({}, interpreter.environment(program)):
        names = namespaces.possible().names
        gate = namespaces.Gate(names)
        pid = namespaces.clone(names)
        if pid == 0:
            try:
                gate.pass_through()
                mounts.enter(plan, proc=False)
                os.close(2)
                os.execve(program, [program], environment)
            finally:
                os._exit(1)
        gate.open(pid, uid=None, gid=None)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    assert ended == [127, 7]
