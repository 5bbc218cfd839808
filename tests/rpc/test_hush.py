"""A listening socket that lets nobody new in (rpc/hush.py)."""

from __future__ import annotations

import select
import socket

import pytest

from forkd.rpc import hush


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_was_there_is_served_and_who_comes_meets_the_next_socket(family: socket.AddressFamily):
    """He is not refused: he asks again (a second later), and whoever has the address then answers."""
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as old, socket.socket(family) as late:
        assert not hush.hushed(old)
        with socket.create_connection(old.getsockname()[:2]) as early:
            hush.hush(old)
            assert hush.hushed(old)
            with socket.socket(fileno=old.dup().detach()) as same:
                assert hush.hushed(same), "it is the socket's, whoever has it"
            late.setblocking(False)
            assert late.connect_ex(old.getsockname()[:2])
            served, _ = old.accept()
            with served:
                hush.hush(served)  # as it is where the handshake ends later
                hush.lift(served.fileno())
                early.sendall(b"x")
                assert served.recv(1) == b"x"
            assert not select.select([], [late], [], 0)[1]
        at = old.getsockname()
        old.close()
        with socket.create_server(at[:2], family=family) as new:
            assert select.select([new], [], [], 60)[0]
            peer, _ = new.accept()
            peer.close()
