"""The control socket of a real admin process under a real master (admin/__init__.py)."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from forkd.exits import Exit
from tests.support.trivial import Trivial
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def forkd(tmp_path_factory):
    with Trivial(tmp_path_factory.mktemp("admin"), "good,anvil,admin") as forkd:
        yield forkd


def test_status_is_masters_view(forkd):
    """Every process with its state; nothing of our own wire format."""
    (answer,) = forkd.ask(b'{"request":"status"}')
    assert answer["ok"]
    assert answer["result"]["pid"] == forkd.pid
    assert [each["role"] for each in answer["result"]["processes"]] == ["good", "anvil", "admin"]
    assert "t" not in answer["result"] and "t" not in answer["result"]["processes"][0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"hello", "not a request"),
        (b"[]", "not a request"),
        (b"{}", "not a request"),
        (b"\xff", "not a request"),
        (b"[" * 10_000, "not a request"),
        (b'{"request":"reboot"}', "unknown request 'reboot'; there are status, reload, stop, "),
        (b'{"request":"status","verbose":true}', "verbose"),
        (b'{"request":"stop","mode":"now"}', "mode"),
        (b'{"request":"queue"}', "act"),
        (b'{"request":"queue","act":"remove"}', "ids are missing"),
    ],
)
def test_what_is_not_in_the_table_is_refused_with_its_reason(forkd, line, said):
    """And the connection goes on: the next request is answered."""
    refused, answered = forkd.ask(line, b'{"request":"status"}')
    assert not refused["ok"]
    assert said in refused["error"]
    assert answered["ok"]


def test_a_line_without_end_is_cut_off(forkd):
    """No client can fill our memory."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(forkd.run / "control.sock"))
        connection.sendall(b"x" * 200_000)
        assert b"octets at most" in connection.recv(4096)


def test_a_client_that_hangs_up_hurts_nobody(forkd):
    """In the middle of a line, or before its answer."""
    for data in (b"", b'{"requ', b'{"request":"status"}\n' * 50):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(forkd.run / "control.sock"))
            connection.sendall(data)
    assert forkd.ask(b'{"request":"status"}')[0]["ok"]


def test_queue_requests_go_to_qmgr_and_back(tmp_path):
    """Typed there, JSON back; who asked is what the socket says."""
    with Trivial(tmp_path, "admin,fake_qmgr") as forkd:
        (answer,) = forkd.ask(b'{"request":"queue","act":"list","limit":7,"after":"A"}')
        assert answer["ok"], answer
        assert answer["result"]["entries"][0]["id"] == "A7"
        assert answer["result"]["entries"][0]["reason"].startswith("root[" if os.geteuid() == 0 else "")
        (refused,) = forkd.ask(b'{"request":"queue","act":"show","ids":["nothing"]}')
        assert refused == {"ok": False, "error": "no such message"}


def test_without_qmgr_the_answer_says_so(tmp_path):
    """At once, where its process is gone; the rest goes on."""
    with Trivial(tmp_path, "admin,fake_qmgr") as forkd:
        (refused,) = forkd.ask(b'{"request":"queue","act":"show","ids":["die"]}')
        assert "qmgr does not answer" in refused["error"]
        wait_for(lambda: len(forkd.seen("start", "fake_qmgr")) == 2)
        assert forkd.ask(b'{"request":"queue","act":"list"}')[0]["ok"]


@pytest.mark.parametrize("mode", ["stop", "drain"])
def test_stop_is_answered_before_it_happens(tmp_path, mode):
    """The client hears that it was understood; admin goes last."""
    with Trivial(tmp_path, "good,anvil,admin") as forkd:
        (answer,) = forkd.ask(b'{"request":"stop","mode":"%s"}' % mode.encode())
        assert answer == {"ok": True, "result": {"stopping": mode}}
        assert forkd.ended() == Exit.OK
        assert (forkd.seen("stop")[0]["deadline"] is None) == (mode == "drain")
        assert "event=admin request=stop who=" in forkd.log()


def test_a_killed_admin_comes_back_on_the_same_socket(tmp_path):
    """The socket lives in master: a client in between waits instead of being refused."""
    with Trivial(tmp_path, "good,admin") as forkd:
        pid = forkd.ask(b'{"request":"status"}')[0]["result"]["processes"][1]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda: forkd.ask(b'{"request":"status"}')[0]["result"]["processes"][1]["pid"] not in (pid, 0)
        )
