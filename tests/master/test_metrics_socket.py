"""The socket of [metrics] (master/metrics_socket.py)."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from forkd.exits import Exit
from forkd.master import metrics_socket
from forkd.master.errors import StartError
from forkd.master.privileges import Identities
from forkd.master.runtime import Runtime
from tests.support import asking_http as ask
from tests.support.trivial import Trivial


def listen(where: str, folder: Path) -> socket.socket | None:
    return metrics_socket.listen(where, Runtime(folder, Identities({})))


def test_a_path_is_taken_over_from_the_dead_and_removed_at_the_end(tmp_path: Path):
    """A killed forkd leaves its socket: nobody listens there any more."""
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    opened = listen(str(path), tmp_path)
    assert opened is not None
    with pytest.raises(StartError, match="somebody listens") as refused:
        listen(str(path), tmp_path)
    assert refused.value.status == Exit.IN_USE
    metrics_socket.close(opened)
    assert not path.exists()


def test_what_is_no_socket_stays(tmp_path: Path):
    """A slip of the pen removes nobody's file."""
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(StartError, match="is no socket"):
        listen(str(path), tmp_path)
    assert path.read_text() == "mine"


def test_a_port_in_use_is_said(tmp_path: Path):
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(StartError, match="Address already in use") as refused,
    ):
        listen(f"127.0.0.1:{other.getsockname()[1]}", tmp_path)
    assert refused.value.status == Exit.IN_USE


def test_nothing_is_nothing(tmp_path: Path):
    assert listen("", tmp_path) is None


def test_admin_answers_on_it(tmp_path: Path):
    """Behind its walls, which have no network: a unix socket in run/, gone with the daemon."""
    with Trivial(tmp_path, "good,admin") as forkd:
        assert ask.get(forkd.run / "metrics.sock").status == 200
        assert (forkd.run / "metrics.sock").stat().st_mode & 0o777 == 0o666
        forkd.ask(b'{"request":"stop","mode":"stop"}')
        assert forkd.ended() == Exit.OK
