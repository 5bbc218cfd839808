"""A new version comes by a restart: whoever started us holds the sockets, and no connection is refused."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter

import pytest

from tests.support.daemon import Daemon
from tests.support.knocking import Account, Knocker
from tests.support.waiting import wait_for

from .conftest import STOCK, Make

CLIENTS, RESTARTS = 10, 4
AS_SYSTEMD = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp exec "$@"'
"""sd_listen_fds(3): descriptors from 3 on, for this very process."""


def served_by(make_daemon: Make, sock: socket.socket, **how) -> Daemon:
    """A forkd, not started yet, that is passed `sock` at each start, as systemd does."""
    port = sock.getsockname()[1]
    config = f'[listener.smtp]\naddress = "127.0.0.1:{port}"\n'
    daemon = make_daemon(start=False, config=config, plugins=STOCK, **how)
    # Only the listener that was passed: the account is that of one address.
    path = daemon.folder / "forkd.toml"
    path.write_text(path.read_text().replace('[listener.default]\naddress = "127.0.0.1:0"\n', ""))
    daemon.prefix = (*daemon.prefix, "bash", "-c", AS_SYSTEMD, "bash", str(sock.fileno()))
    daemon.descriptors = (sock.fileno(),)
    return daemon


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_restart_under_load_refuses_nobody(make_daemon: Make):
    """Who connects while no forkd is there waits in the kernel; who was answered 250 has his mail, once."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        daemon = served_by(make_daemon, sock)
        account, done = Account(), threading.Event()
        port = sock.getsockname()[1]
        clients = [Knocker("127.0.0.1", port, n, over=done, account=account) for n in range(CLIENTS)]
        daemon.start()
        for client in clients:
            client.start()
        try:
            for _ in range(RESTARTS):
                had = len(account.accepted)
                wait_for(lambda had=had: len(account.accepted) > had + 50, timeout_s=60)
                assert daemon.stop() == 0
                daemon.start()
            had = len(account.accepted)
            wait_for(lambda: len(account.accepted) > had + 50, timeout_s=60)
        finally:
            done.set()
            for client in clients:
                client.join()
        assert (account.refused, account.dropped) == (0, [])

        def found() -> Counter[str]:
            texts = (path.read_text() for path in daemon.mailbox("knock"))
            return Counter(re.search(r"(?m)^Subject: (\S+)$", text)[1] for text in texts)

        wait_for(lambda: set(account.accepted) <= set(found()), timeout_s=60)
        assert max(found().values()) == 1
