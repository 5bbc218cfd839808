"""A running qmgr and next hops on sockets: it stops in its time, and mail goes on where it was."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec

from forkd.config import schema
from forkd.queue import state
from tests.support.daemon import free_port
from tests.support.spooling import a_config, a_spool, queued, running_qmgr
from tests.support.waiting import wait_for


def config_to(data_dir: Path, port: int) -> schema.Config:
    """relay.test to a server on that port."""
    config = a_config(data_dir)
    return msgspec.structs.replace(
        config,
        domain={**config.domain, "relay.test": schema.Domain(transport="relay")},
        transport={
            **config.transport,
            "relay": schema.Smtp(hosts=(f"127.0.0.1:{port}",), hostname="mx.test.local", tls="off"),
        },
    )


def test_a_stop_does_not_wait_for_a_next_hop_that_is_silent(tmp_path: Path) -> None:
    """It is cancelled in time, and nothing recorded, since nothing was said. No mail beside it waits."""
    spool = a_spool(tmp_path / "spool")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        listener.settimeout(30)
        queue_id = queued(spool, "a@relay.test", received_at=time.time())
        with running_qmgr(config_to(tmp_path, listener.getsockname()[1])) as qmgr:
            client, _ = listener.accept()
            qmgr.poke(spool, queued(spool, "b@test.local", received_at=time.time()))
            wait_for(lambda: list((tmp_path / "mail/test.local/b/new").glob("*")))
            wait_for(lambda: qmgr.ask("list").count == 1)
            assert [entry.state for entry in qmgr.ask("list").entries] == ["active"]
            assert qmgr.stop(deadline_s=2) == 0
            client.close()
    assert (Path(spool.new) / queue_id).exists()
    assert state.load(f"{spool.new}/{queue_id}").lines == 0


def test_a_next_hop_that_is_not_there_is_told_with_its_name(tmp_path: Path) -> None:
    """Deferred, and the reason is in the list."""
    spool = a_spool(tmp_path / "spool")
    queue_id = queued(spool, "a@relay.test", received_at=time.time())
    with running_qmgr(config_to(tmp_path, free_port())) as qmgr:
        wait_for(lambda: [e for e in qmgr.ask("list").entries if e.state == "deferred"])
        (entry,) = qmgr.ask("list").entries
        assert "127.0.0.1" in entry.reason
        assert entry.attempts == 1
        assert qmgr.stop() == 0
    assert state.load(f"{spool.new}/{queue_id}").tries == {0: 1}
