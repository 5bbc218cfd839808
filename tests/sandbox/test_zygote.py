"""forkd/sandbox/{launch,zygote,confine}.py: a started zygote, seen from outside and from within."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from forkd.sandbox import launch, wire
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.launch import LaunchError, Member, ZygoteSpec
from forkd.sandbox.policy import compile_policy
from tests.support.sandboxes import MODES, ROOT, Stage, StartFailed, as_mode, mail, stage, text_of
from tests.support.waiting import wait_for

MODULES = Path(__file__).with_name("zygote_modules.txt")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_wrong_is_seen_from_outside(mode: str):
    """sandbox.md, "Life": one thread, filters, no shared mapping, no strange descriptor; else unverified."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): pass\n")
            seen = launch.look(st.zygote, layers=LAYERS)
            assert seen.problems == ()
            # Who has made a user namespace may look into it; but for what belongs to its root.
            hidden = () if mode == ROOT else ("descriptors",)
            assert seen.unverified == (*hidden, "Landlock")

    as_mode(mode, body)


def test_a_process_without_walls_is_seen_through():
    """verify() must be able to fail: this very test process has none of the walls."""
    problems = " ".join(launch.verify(os.getpid()))
    assert "NoNewPrivs is 0" in problems
    assert "Seccomp is 0" in problems
    assert "descriptor" in problems or os.geteuid() != 0


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_starts_from_nothing(mode: str):
    """Empty environment, no capability, a session of its own, "/" as its folder, its own ids."""
    code = """
SEEN = f"{sorted(os.environ)} {os.getuid()} {os.getgid()}"
def attack(_): return SEEN
"""

    def body() -> None:
        os.environ["FORKD_TEST_SECRET"] = "x"
        with stage(mode) as st:
            st.start(code)
            status = Path(f"/proc/{st.zygote.pid}/status").read_text()
            for field in ("CapEff", "CapPrm", "CapBnd") if mode == ROOT else ("CapEff", "CapPrm"):
                assert f"{field}:\t{'0' * 16}" in status
            assert os.getsid(st.zygote.pid) == st.zygote.pid

            async def scenario(st: Stage) -> None:
                sandbox = await st.host.take("plugin", "s")
                uid = st.uid if st.uid is not None else os.getuid()
                said = text_of(await mail(sandbox))
                assert "SECRET" not in said
                assert said.endswith(f" {uid} {uid}")

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_libraries_may_lie_behind_a_link(mode: str):
    """As /opt/forkd -> forkd-0.1, or a virtual environment that is a link; where a link leads nobody in there
    may read."""

    def body() -> None:
        with stage(mode) as st:
            (st.folder / "real").mkdir()
            (st.folder / "real/helper.py").write_text("WORD = 'found'\n")
            (st.folder / "link").symlink_to("real")
            code = "import helper\ndef attack(_): return helper.WORD\n"
            st.start(code, libraries=(st.folder / "link",))

            async def scenario(st: Stage) -> None:
                assert text_of(await mail(await st.host.take("plugin", "s"))) == "found"

            st.run(scenario)

    as_mode(mode, body)


def test_what_a_zygote_has_loaded_is_a_short_list():
    """README, "Who may import whom": it is what a hostile plugin can read, and every fork copies."""
    code = """
import sys
from forkd.sdk import Plugin, deny
LOADED = sorted(name for name in sys.modules if not name.startswith("encodings."))
def plugin_init(settings):
    return Plugin(mail=lambda session, sender: deny("5.7.1", " ".join(LOADED)[int(sender.local):][:900]))
"""
    with stage(MODES[0]) as st:
        st.start(code, whole=True, reads=("body",))

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take("plugin", "s")
            said = ""
            while piece := text_of(await mail(sandbox, str(len(said)), n=len(said) // 900 + 1)):
                said += piece
                if len(piece) < 900:
                    break
            wanted = MODULES.read_text().split()
            assert sorted(set(said.split()) ^ set(wanted)) == []

        st.run(scenario)


@pytest.mark.parametrize("mode", MODES)
def test_every_charset_is_known_in_a_sandbox(mode: str):
    """sandbox.md, "Layers": no charset is silently unknown; a lazy import reads the standard library."""
    code = """
import codecs, encodings
NAMES = [name[:-3] for name in os.listdir(encodings.__path__[0]) if name.endswith(".py")]
ELSEWHERE = {"__init__", "aliases", "mbcs", "oem", "bz2_codec"}
def attack(_):
    import email.parser
    unknown = [name for name in NAMES if name not in ELSEWHERE and tried(codecs.lookup, name) != "done"]
    return f"{len(NAMES) > 100} {unknown} {email.parser.__name__}"
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code, reads=("headers",))

            async def scenario(st: Stage) -> None:
                assert text_of(await mail(await st.host.take("plugin", "s"))) == "True [] email.parser"

            st.run(scenario)

    as_mode(mode, body)


def test_a_plugin_that_reads_no_mail_is_spared_its_charsets():
    """zygote.py: names in addresses work (idna); a charset of text is an error there, never a guess."""
    code = """
import codecs
def attack(_):
    return " ".join(tried(codecs.lookup, name) for name in ("idna", "utf-16", "latin-1", "gb18030"))
"""
    with stage(MODES[0]) as st:
        st.start(code, reads=("envelope",))

        async def scenario(st: Stage) -> None:
            said = text_of(await mail(await st.host.take("plugin", "s")))
            assert said == "done done done LookupError"

        st.run(scenario)


@pytest.mark.parametrize("mode", MODES)
def test_granted_files_and_nothing_beside_them(mode: str, tmp_path_factory: pytest.TempPathFactory):
    """plugins.md, "Manifest": the files grant is read-only; a neighbour in the same folder stays closed."""
    code = """
def attack(path):
    return tried(open, path) + " " + tried(open, path + ".not") + " " + tried(open, path, "r+")
"""

    def body() -> None:
        with stage(mode) as st:
            granted = st.folder / "granted"
            granted.write_text("x")
            (st.folder / "granted.not").write_text("x")
            st.start(code, files_granted=(granted,))

            async def scenario(st: Stage) -> None:
                assert (
                    text_of(await mail(await st.host.take("plugin", "s"), str(granted)))
                    == "done ENOENT EACCES"
                )

            st.run(scenario)

    as_mode(mode, body)


def test_what_the_plugins_uid_cannot_read_is_named():
    """prototype-facts: an interpreter or plugin below a home folder is unreadable after the change of uid."""
    if os.geteuid() != 0:
        pytest.skip("only root may do that")
    with stage(ROOT) as st:
        st.folder.chmod(0o700)
        with pytest.raises(StartFailed, match=r"cannot read .*plugin"):
            st.start("def attack(_): pass\n")
        assert st.uid is not None
        assert launch.unreachable([st.folder / "plugin"], uid=st.uid, gid=st.uid) == [
            str(st.folder / "plugin")
        ]
        assert launch.unreachable([Path("/usr")], uid=st.uid, gid=st.uid) == []
        st.folder.chmod(0o755)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_ends_with_its_master(mode: str):
    """The parent-death signal: SIGKILL to master leaves no zygote (the uid change would clear it)."""

    def body() -> None:
        with stage(mode) as st:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                st.start("def attack(_): pass\n")
                os.write(writer, str(st.zygote.pid).encode())
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(pid, 0)
            zygote = int(os.read(reader, 20))
            os.close(reader)
            os.close(writer)

            def gone() -> bool:
                try:
                    return "State:\tZ" in Path(f"/proc/{zygote}/status").read_text()
                except FileNotFoundError:
                    return True

            assert wait_for(gone, timeout_s=5)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_closing_the_control_socket_ends_a_zygote(mode: str):
    """Master's orderly stop: exit 0, no signal needed."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): pass\n")
            st.zygote.control.close()
            assert os.waitpid(st.zygote.pid, 0)[1] == 0

    as_mode(mode, body)


@pytest.mark.parametrize(
    "record",
    [
        b"nonsense",
        b"{}",
        b'{"t":"ready"}',
        b'{"t":"ready","api":1,"pid":0,"layers":{}}',
        b"[" * 60_000,
        b"\xff",
    ],
)
def test_control_messages_are_hostile_input(record: bytes):
    """The plugin runs in the zygote: what it writes on the control socket is refused, clearly."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(record)
        with pytest.raises(LaunchError):
            launch.read_control(launch.ZygoteProcess(0, ours, -1))


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_out_of_protocol_is_dropped_and_others_are_served(mode: str):
    """PROTOCOL.md, part 1: a wrong record, or one without its descriptors, ends that connection only."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): return 'x'\n")
            for record in (b"nonsense", wire.pack_fork([1]), b"\x00" * 5000):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                    connection.connect(st.path)
                    connection.settimeout(5)
                    connection.send(record)
                    assert connection.recv(100) == b""

            async def scenario(st: Stage) -> None:
                assert text_of(await mail(await st.host.take("plugin", "s"))) == "x"

            st.run(scenario)

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_zygote_outlives_a_worker_that_dies_with_its_sandboxes(mode: str):
    """Seen at once, the deaths find the worker's connection broken, and that has an event of its own."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): return 'x'\n")
            pid = os.fork()
            if pid == 0:

                async def worker(st: Stage) -> None:
                    for number in range(3):
                        await mail(await st.host.take("plugin", f"s{number}"))
                    await asyncio.Event().wait()

                st.run(worker)
            assert wait_for(lambda: len(st.processes()) >= 3)
            os.kill(st.zygote.pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert wait_for(lambda: not st.processes())
            os.kill(st.zygote.pid, signal.SIGCONT)

            async def scenario(st: Stage) -> None:
                assert text_of(await mail(await st.host.take("plugin", "s"))) == "x"

            st.run(scenario)

    as_mode(mode, body)


def test_the_spec_is_complete_json():
    """PROTOCOL.md, part 2: bytes of programs travel as base64; paths as text."""
    member = Member(name="x", folder=Path("/x"), module="x.py", settings={"p": Path("/y")})
    spec = ZygoteSpec(name="x", policy=compile_policy(), members=(member,))
    assert b'"p": "/y"' in spec.encode()
