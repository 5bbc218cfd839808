"""SMTP sockets: ours, or systemd's where an address fits (sd_listen_fds(3))."""

from __future__ import annotations

import socket

import pytest

from forkd.config.schema import Listener
from forkd.exits import Exit
from forkd.master import listeners
from forkd.master.errors import StartError


def bound(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family)
    sock.bind((host, 0))
    return sock


def test_a_passed_socket_is_matched_by_its_address():
    """Not by position: the order in forkd.socket means nothing."""
    first, second = bound(), bound()
    wanted = {"b": Listener(address=listeners.shown(second)), "a": Listener(address=listeners.shown(first))}
    opened = listeners.open_all(wanted, [first, second])
    assert opened == {"a": first, "b": second}
    for sock in opened.values():
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not sock.getblocking()
        sock.close()


def test_a_passed_socket_that_fits_nothing_is_closed():
    """Its clients would wait for ever."""
    stray = bound()
    opened = listeners.open_all({"a": Listener(address="127.0.0.1:0")}, [stray])
    assert stray.fileno() == -1
    opened["a"].close()


def test_ipv6_means_ipv6_only():
    """[::] does not take 0.0.0.0's port away: each is a listener of its own."""
    for _ in range(20):  # a test beside this one may hold that port of IPv4
        with listeners.open_all({"a": Listener(address="[::]:0")}, [])["a"] as six:
            port = six.getsockname()[1]
            assert listeners.shown(six) == f"[::]:{port}"
            try:
                four = listeners.open_all({"b": Listener(address=f"0.0.0.0:{port}")}, [])["b"]
            except StartError:
                continue
            four.close()
            return
    pytest.fail("20 ports of [::], and none of them was left for 0.0.0.0")


def test_what_is_passed_to_another_process_is_not_ours():
    """LISTEN_PID decides, and the environment is clean afterwards for our children."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "x", "OTHER": "y"}
    assert listeners.passed(environ) == []
    assert environ == {"OTHER": "y"}


@pytest.mark.parametrize("address", ["25", "host:", "127.0.0.1:70000", "127.0.0.1:smtp"])
def test_a_bad_address_is_a_configuration_error(address):
    with pytest.raises(StartError) as raised:
        listeners.open_all({"a": Listener(address=address)}, [])
    assert raised.value.status is Exit.CONFIG
    assert "[listener.a]" in str(raised.value)


def test_when_one_cannot_be_opened_none_stays_open():
    """A half-open service would take mail for nobody."""
    taken = bound()
    taken.listen()
    passed = bound()
    wanted = {"a": Listener(address=listeners.shown(passed)), "b": Listener(address=listeners.shown(taken))}
    with pytest.raises(StartError) as raised:
        listeners.open_all(wanted, [passed])
    assert raised.value.status is Exit.IN_USE
    assert passed.fileno() == -1
    taken.close()
