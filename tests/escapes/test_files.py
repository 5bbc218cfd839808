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


READER_AND_MOVER = """
from forkd.sdk import Plugin, deny
import os

def plugin_init(settings):
    def message(session, envelope, message):
        if str(session.client_ip) == "192.0.2.1":
            os.lseek(message._fd, 7, os.SEEK_SET)
            return deny("5.7.1", f"moved, {os.read(message._fd, 3)!r} read")
        whole = b"".join(message.pieces(5))
        return deny("5.7.1", f"{whole!r} {b''.join(message.body_pieces())!r} {message.headers.get('A')}")
    return Plugin(message=message)
"""


def test_the_offset_of_the_message_is_of_no_use_to_a_hostile_plugin():
    """Attack 50: all who are given a message have one offset; who reads by the SDK does not notice it."""

    def body() -> None:
        with stage(MODES[0]) as st:
            st.start(READER_AND_MOVER, whole=True, reads=("headers", "body"))

            async def scenario(st: Stage) -> None:
                copy = os.memfd_create("message", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
                os.write(copy, b"A: b\r\n\r\nhello, all of you\r\n")
                reader, mover = [await st.host.take("plugin", name) for name in ("reader", "mover")]
                said = []
                for n, sandbox in enumerate((mover, reader, mover, reader)):
                    ip = "192.0.2.1" if sandbox is mover else "192.0.2.2"
                    frame = (
                        f'{{"n":{n + 1},"hook":"message","session":{{"id":"s","client_ip":"{ip}"}},'
                        f'"args":{{"size":27,"header_size":8}}}}'
                    )
                    answer = await sandbox.call(frame.encode(), n + 1, timeout_s=5.0, message_fd=copy)
                    said.append(text_of(answer))
                assert (
                    said
                    == [
                        "moved, b'\\nhe' read",
                        "b'A: b\\r\\n\\r\\nhello, all of you\\r\\n' b'hello, all of you\\r\\n' b",
                    ]
                    * 2
                )
                assert os.lseek(copy, 0, os.SEEK_CUR) == 10
                reader.close()
                mover.close()
                os.close(copy)

            st.run(scenario)

    as_mode(MODES[0], body)
