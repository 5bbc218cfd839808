"""A milter for Postfix with two checks: sender, and the message's body. usage: milter.py SOCKET

Speaks the milter protocol (version 6) as libmilter does, one thread for each connection, but asks only
for the steps it needs, so it is rather leaner than one written with libmilter. The recipients abort@,
exit@, raise@, sleep@, spin@ and segv@ make it misbehave. Standard library only.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import struct
import sys
import threading
import time

# Steps that Postfix need not send (SMFIP_*): connect, helo, header, end of header, unknown, data; and
# no answer to body pieces (NR_BODY).
STEPS = 0x1 | 0x2 | 0x20 | 0x40 | 0x100 | 0x200 | 0x80000
CONTINUE = struct.pack("!Ic", 1, b"c")
REJECT = struct.pack("!Ic", 1, b"r")


def misbehave(word: str) -> None:
    if word == "abort":
        os.abort()
    if word == "exit":
        os._exit(1)
    if word == "raise":
        raise RuntimeError("bug in the milter")
    if word == "segv":
        faulthandler._sigsegv()  # type: ignore[attr-defined]
    if word == "sleep":
        time.sleep(1e6)
    while word == "spin":
        pass


def serve(peer: socket.socket) -> None:
    stream = peer.makefile("rb", buffering=65_536)
    bad = False
    while len(head := stream.read(5)) == 5:
        size, command = struct.unpack("!Ic", head)
        data = stream.read(size - 1)
        if command == b"O":
            version, _, steps = struct.unpack("!III", data[:12])
            peer.sendall(struct.pack("!IcIII", 13, b"O", min(version, 6), 0, STEPS & steps))
        elif command == b"M":
            bad = False
            peer.sendall(REJECT if data.startswith(b"<bad@") else CONTINUE)
        elif command == b"R":
            misbehave(data.split(b"\0", 1)[0].decode("ascii", "replace").strip("<>").split("@", 1)[0])
            peer.sendall(CONTINUE)
        elif command == b"B":
            bad = bad or b"EICAR" in data
        elif command == b"E":
            peer.sendall(REJECT if bad else CONTINUE)
        elif command == b"Q":
            break
    peer.close()


def main(path: str) -> None:
    os.umask(0)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1024)
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve, args=(peer,), daemon=True).start()


main(sys.argv[1])
