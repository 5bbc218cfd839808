"""Attacks 49 and 50: what a plugin is handed while it works."""

from __future__ import annotations

import fcntl
import os

import pytest

from tests.support.sandboxes import MODES, Stage, as_mode, stage, text_of


@pytest.mark.parametrize("mode", MODES)
def test_the_sealed_message_cannot_be_changed(mode: str):
    """Attack 50: a memory file sealed against writing stays so for whoever gets it."""
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
