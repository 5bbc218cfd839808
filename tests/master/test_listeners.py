"""SMTP sockets: ours, or systemd's where an address fits (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from forkd.config.schema import Listener
from forkd.exits import Exit
from forkd.master import listeners
from forkd.master.errors import StartError
from forkd.master.listeners import Passed


def bound(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family)
    sock.bind((host, 0))
    return sock


def same(one: socket.socket, other: socket.socket) -> bool:
    return os.fstat(one.fileno()).st_ino == os.fstat(other.fileno()).st_ino


def test_a_passed_socket_is_matched_by_its_address():
    """Not by position: the order in forkd.socket means nothing. What was passed stays, for a later reload."""
    first, second = bound(), bound()
    wanted = {"b": Listener(address=listeners.shown(second)), "a": Listener(address=listeners.shown(first))}
    passed = [Passed(first), Passed(second)]
    for _ in range(2):
        opened = listeners.open_all(wanted, passed)
        assert same(opened["a"], first)
        assert same(opened["b"], second)
        assert listeners.mismatches(opened, passed) == []
        for sock in opened.values():
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert not sock.getblocking()
            sock.close()
    first.close()
    second.close()


def test_what_does_not_fit_is_said_with_what_would():
    """An address that no listener has: its clients wait. A listener that has none: a restart refuses its."""
    with bound() as stray:
        opened = listeners.open_all({"a": Listener(address="127.0.0.1:0")}, [Passed(stray, "smtp")])
        theirs, ours = listeners.mismatches(opened, [Passed(stray, "smtp")])
        assert theirs.startswith(f"smtp of systemd holds {listeners.shown(stray)}, which no [listener]")
        assert f'address = "{listeners.shown(stray)}"' in theirs
        assert ours.startswith(f"[listener.a] {listeners.shown(opened['a'])} did not come from systemd")
        assert f"Add ListenStream={listeners.shown(opened['a'])} to the socket unit" in ours
        assert listeners.mismatches(opened, []) == []
        opened["a"].close()


def test_a_passed_socket_of_another_kind_is_named():
    """Nothing of it is ours; it must not be taken for an address."""
    with socket.socket(socket.AF_UNIX) as other:
        (note,) = listeners.mismatches({}, [Passed(other, "strange")])
        assert note.startswith("strange of systemd holds a AF_UNIX SOCK_STREAM socket ")


def both_families() -> tuple[socket.socket, int]:
    """What ListenStream=PORT makes where bindv6only is 0."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    sock.listen()
    return sock, sock.getsockname()[1]


def test_a_passed_socket_that_takes_ipv4_too_is_told_of():
    """Its clients of IPv4 have an address that no network of the configuration matches."""
    sock, port = both_families()
    with sock:
        opened = listeners.open_all({"a": Listener(address=f"[::]:{port}")}, [Passed(sock)])
        (note,) = listeners.mismatches(opened, [Passed(sock)])
        assert "takes IPv4 too" in note
        assert "BindIPv6Only=ipv6-only" in note
        opened["a"].close()


def test_who_has_the_address_is_said_where_it_is_systemd():
    """`ss` would show systemd as the holder of [::], which explains nothing."""
    sock, port = both_families()
    with sock, pytest.raises(StartError) as raised:
        listeners.open_all({"a": Listener(address=f"0.0.0.0:{port}")}, [Passed(sock)])
    assert raised.value.status is Exit.IN_USE
    assert f"[::]:{port} of systemd takes IPv4 too; BindIPv6Only=ipv6-only is missing there" in str(
        raised.value
    )


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
    before = list(Path("/proc/self/fd").iterdir())
    with pytest.raises(StartError) as raised:
        listeners.open_all(wanted, [Passed(passed)])
    assert raised.value.status is Exit.IN_USE
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
    taken.close()
    passed.close()
