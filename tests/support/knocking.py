"""Clients that connect, send one message, and go, again and again: who of them was turned away, and how?

Run as a program, where the server is in another network: `python knocking.py HOST PORT SECONDS CLIENTS`
prints the account as one line of JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import sys
import threading
from typing import BinaryIO


@dataclasses.dataclass
class Account:
    """What became of all connections.

    accepted  names of messages that got 250
    later     sessions that were told 421: come again
    refused   connections that were not taken at all
    dropped   that ended without a word, and what the client saw
    """

    accepted: list[str] = dataclasses.field(default_factory=list)
    later: int = 0
    refused: int = 0
    dropped: list[str] = dataclasses.field(default_factory=list)


class Knocker(threading.Thread):
    """One client, until it is `over`."""

    def __init__(self, host: str, port: int, number: int, *, over: threading.Event, account: Account) -> None:
        super().__init__()
        self._at, self._number, self._over, self._account = (host, port), number, over, account

    def run(self) -> None:
        index = 0
        while not self._over.is_set():
            index += 1
            self._send(f"k{self._number}-{index}")

    def _send(self, name: str) -> None:
        account, at = self._account, "connecting"
        try:
            with socket.create_connection(self._at, timeout=60) as sock, sock.makefile("rb") as replies:
                for line, wanted in _dialogue(name):
                    at = line.decode().partition("\r")[0] or "greeting"
                    with contextlib.suppress(
                        BrokenPipeError
                    ):  # what it said before it closed can still be read
                        sock.sendall(line)
                    reply = _reply(replies)
                    if reply.startswith(b"421"):
                        account.later += 1
                        return
                    if not reply.startswith(wanted):
                        account.dropped.append(f"{name}: {at}: {reply!r}")
                        return
                    if wanted == ACCEPTED:
                        account.accepted.append(name)
        except ConnectionRefusedError:
            account.refused += 1
        except OSError as error:
            account.dropped.append(f"{name}: {at}: {error!r}")


ACCEPTED = b"250 2.0.0 Ok: queued as"


def _dialogue(name: str) -> list[tuple[bytes, bytes]]:
    """What is sent, and how the reply to it must begin."""
    return [
        (b"", b"220 "),
        (b"EHLO client.example\r\n", b"250"),
        (b"MAIL FROM:<a@example.org>\r\n", b"250 "),
        (b"RCPT TO:<knock@test.local>\r\n", b"250 "),
        (b"DATA\r\n", b"354 "),
        (f"Subject: {name}\r\n\r\n{name}\r\n.\r\n".encode(), ACCEPTED),
    ]


def _reply(replies: BinaryIO) -> bytes:
    """Its first line; nothing where there is none."""
    first = line = replies.readline()
    while line[3:4] == b"-":
        line = replies.readline()
    return first


def knock(host: str, port: int, seconds: float, clients: int) -> Account:
    """All of them at once, for so long."""
    account, over = Account(), threading.Event()
    threads = [Knocker(host, port, number, over=over, account=account) for number in range(clients)]
    for thread in threads:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join()
    return account


if __name__ == "__main__":
    found = knock(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps(dataclasses.asdict(found)))
