"""Is what came up a sandbox's channel the answer to its call? Everything else is a breach of the protocol.

All of it is hostile: one frame per call, of at most MAX_FRAME_BYTES, decoded strictly, from one
kernel-checked pid, without descriptors.
"""

from __future__ import annotations

import socket
import struct

import msgspec

from forkd.rpc.calls import MAX_FRAME_BYTES, Answer

SHOWN_BYTES = 64
"""First bytes of a frame that broke the protocol, for the log."""

# Plain numbers: an operation on socket's enumerations costs a microsecond each.
_MSG_CTRUNC, _MSG_TRUNC = int(socket.MSG_CTRUNC), int(socket.MSG_TRUNC)
_CREDENTIALS = struct.Struct("=iII")
CREDENTIALS_SPACE = socket.CMSG_LEN(_CREDENTIALS.size)
"""Room for the credentials and nothing else: a descriptor sent beside them cannot even be received."""
_SCM_CREDENTIALS = 2  # socket.SCM_CREDENTIALS, unknown to the type stubs of other systems
_decode = msgspec.json.Decoder(Answer).decode


class BreachError(Exception):
    """A frame that is not in the protocol."""


def sender(ancillary: list[tuple[int, int, bytes]], known: int) -> int:
    """The pid that sent a frame, as the kernel says; `known`: the one before, 0 at the first frame.

    Raises BreachError when it is another one.
    """
    if len(ancillary) != 1 or ancillary[0][1] != _SCM_CREDENTIALS:
        raise BreachError("a frame without credentials")
    pid: int = _CREDENTIALS.unpack(ancillary[0][2])[0]
    if known and pid != known:
        raise BreachError(f"a frame of pid {pid} on the channel of pid {known}")
    return pid


def read(frame: bytes, flags: int, asked: int) -> Answer:
    """The frame as the answer to call number `asked` (0: none is in flight). Raises BreachError.

    flags  as recvmsg() gave them.
    """
    if flags & _MSG_CTRUNC:
        raise BreachError("a frame with descriptors")
    if flags & _MSG_TRUNC or len(frame) > MAX_FRAME_BYTES:
        raise BreachError("a frame too long")
    if not frame:
        raise BreachError("an empty frame")
    if not asked:
        raise BreachError(f"a frame nobody asked for: {frame[:SHOWN_BYTES]!r}")
    try:
        answer = _decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BreachError(f"{error}: {frame[:SHOWN_BYTES]!r}") from error
    if answer.n != asked:
        raise BreachError(f"answer {answer.n} to call {asked}")
    return answer
