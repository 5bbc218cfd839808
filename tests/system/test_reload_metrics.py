"""Where metrics are read changes by a reload, while a session of the first generation goes on."""

from __future__ import annotations

import pytest

from tests.support import asking_http
from tests.support.daemon import free_port
from tests.support.waiting import wait_for

from .conftest import Make
from .test_reload import change, reloaded, say

pytestmark = pytest.mark.slow


def served(path: object) -> bool:
    """Somebody answers there, and answers what is asked."""
    return asking_http.get(path, "/healthz").status == 200


def test_a_path_goes_and_comes_back(make_daemon: Make):
    """Off, on; the default one, and one elsewhere: none of them is in its own way."""
    daemon = make_daemon(config='[metrics]\nlisten = "auto"\n')
    old = daemon.connect()
    assert old.recv(1000).startswith(b"220 ")
    default, brought = daemon.var / "run" / "metrics.sock", daemon.folder / "m.sock"
    now = '"auto"'
    for wanted, path in (
        ('""', None), ('"auto"', default), (f'"{brought}"', brought), ('""', None), (f'"{brought}"', brought),
        ('"auto"', default),
    ):  # fmt: skip
        change(daemon, f"listen = {now}", f"listen = {wanted}")
        reloaded(daemon)
        now = wanted
        assert say(old, b"NOOP").startswith(b"250")
        assert {each for each in (default, brought) if each.exists()} == ({path} if path else set())
        assert path is None or served(path)
    assert daemon.stop() == 0
    assert not brought.exists() and not default.exists()


def test_an_address_widens_and_narrows(make_daemon: Make):
    """One port, at addresses of which one includes the other; and off and on again."""
    port = free_port()
    daemon = make_daemon(config=f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
    old = daemon.connect()
    assert old.recv(1000).startswith(b"220 ")
    now = f"127.0.0.1:{port}"
    for wanted in (f"0.0.0.0:{port}", f"127.0.0.1:{port}", "", f"0.0.0.0:{port}", f"127.0.0.1:{port}"):
        change(daemon, f'listen = "{now}"', f'listen = "{wanted}"')
        reloaded(daemon)
        now = wanted
        assert say(old, b"NOOP").startswith(b"250")
        if wanted:
            wait_for(lambda: served(("127.0.0.1", port)), timeout_s=20)
    assert daemon.stop() == 0
