"""Attacks 45 to 53: a plugin reads what it was granted, writes nothing, holds no descriptor but its own."""

from __future__ import annotations

import os

import pytest

from tests.escapes.attack import Attack, perform
from tests.support.sandboxes import MODES, Stage, as_mode, stage, text_of

ATTACKS = (
    Attack(
        name="45 secrets and other people's files",
        code="""
def attack(_):
    paths = ("/etc/shadow", "/etc/passwd", "/etc/hostname", "/", "/home", "/root", "/tmp",
             "/proc/self/status", os.path.dirname(os.path.dirname(__file__)),
             os.path.dirname(__file__) + "/../zygote.sock")
    return " ".join(sorted({tried(os.open, path, os.O_RDONLY) for path in paths}))
""",
        says="EACCES",
    ),
    Attack(
        name="46 change anything",
        code="""
def attack(_):
    here = os.path.dirname(__file__)
    new = here + "/new"
    return " ".join(sorted({
        tried(open, __file__, "r+b"), tried(open, __file__, "ab"), tried(os.rename, __file__, new),
        tried(os.link, __file__, new), tried(os.symlink, __file__, new), tried(os.chmod, __file__, 0o777),
        tried(os.mkdir, new), tried(os.unlink, __file__), tried(os.truncate, __file__, 0),
        tried(os.mknod, new), tried(os.utime, __file__), tried(os.chown, __file__, -1, -1),
        tried(os.open, here, os.O_TMPFILE | os.O_RDWR),
    }))
""",
        says="EACCES",
    ),
    Attack(
        name="47 open again through /proc",
        code="""
def attack(_):
    own = [f"/proc/self/fd/{fd}" for fd in range(5)]
    other = ["/proc/self/exe", "/proc/self/mem", "/dev/fd/0", "/proc/self/fd/0"]
    # Not own pipes for reading: where worker and plugin share a uid that works, and gives nothing.
    # For writing it would: a leash with a second writer never hangs up.
    said = {tried(os.open, path, flags) for path in own + other for flags in (os.O_WRONLY, os.O_RDWR)}
    return " ".join(sorted(said | {tried(os.open, path, os.O_RDONLY) for path in other}))
""",
        says="EACCES",
    ),
    Attack(
        name="48 inherited descriptors",
        code="""
def attack(_):
    return " ".join(str(fd) for fd in range(1024) if tried(os.fstat, fd) == "done")
""",
        says="0 1 2 3 4",
    ),
    Attack(
        name="49 a folder held open since the import",
        code="""
FOLDER = os.open(os.path.dirname(__file__), os.O_RDONLY)
def attack(_):
    return tried(lambda: os.open("../..", os.O_RDONLY, dir_fd=FOLDER)) + " " + tried(os.fchdir, FOLDER)
""",
        says="EBADF EACCES",
    ),
    Attack(
        name="51 working folder and core files",
        code="""
def attack(_):
    return f"{tried(os.chdir, '/tmp')} {tried(os.getcwd)} {resource.getrlimit(resource.RLIMIT_CORE)}"
""",
        says=r"EACCES EACCES \(0, 0\)",
    ),
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_files_are_out_of_reach(attack: Attack, mode: str):
    """Sandbox.md, "Layers": Landlock grants reading of a few folders; seccomp refuses every other way."""
    perform(attack, mode)


@pytest.mark.parametrize("mode", MODES)
def test_the_sealed_message_cannot_be_changed(mode: str):
    """Attack 50: a memory file sealed against writing stays so for whoever gets it."""
    import fcntl

    code = """
def attack(fd):
    return " ".join((
        os.read(fd, 100).decode(), tried(os.write, fd, b"x"), tried(os.pwrite, fd, b"x", 0),
        tried(os.ftruncate, fd, 0),
        call("mmap", 0, 4096, 3, 1, fd, 0), tried(os.open, f"/proc/self/fd/{fd}", os.O_RDWR),
    ))
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code, reads=("body",))

            async def scenario(st: Stage) -> None:
                copy = os.memfd_create("message", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
                os.write(copy, b"hello")
                seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
                fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
                os.lseek(copy, 0, os.SEEK_SET)
                sandbox = await st.host.take("plugin", "s")
                frame = b'{"n":1,"hook":"message","args":{"size":5,"header_size":0}}'
                answer = await sandbox.call(frame, 1, timeout_s=5.0, message_fd=copy)
                assert text_of(answer) == "hello EFBIG EACCES EACCES EACCES EACCES"
                sandbox.close()
                os.close(copy)

            st.run(scenario)

    as_mode(mode, body)
