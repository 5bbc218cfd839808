"""A name server that knows no name, so that who looks up clients' names is not measured with somebody's
slow resolver. usage: no_names.py PORT
"""

from __future__ import annotations

import socket
import sys

HEADER = 12
NO_SUCH_NAME = b"\x81\x83"  # an answer, recursion both ways, NXDOMAIN (RFC 1035 4.1.1)


def answer(question: bytes) -> bytes:
    """The question, and that there is no such name."""
    end = HEADER
    while question[end]:
        end += question[end] + 1
    return question[:2] + NO_SUCH_NAME + b"\0\1" + b"\0" * 6 + question[HEADER : end + 5]


def main(port: int) -> None:
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", port))
    while True:
        question, client = peer.recvfrom(4096)
        if len(question) > HEADER:
            peer.sendto(answer(question), client)


main(int(sys.argv[1]))
