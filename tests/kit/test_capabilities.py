"""Capabilities in the kit are real: forkd's broker, a name server, a service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.kit import trial
from forkd.kit.configured import configured
from forkd.kit.samples import Mail, Sample
from tests.kit.conftest import WritePlugin
from tests.support.nameserver import NameServer
from tests.support.sandboxes import MODES, as_mode

CODE = """
from forkd.sdk import CapabilityError, Plugin, deny

def plugin_init(settings):
    def mail(session, sender):
        said = [session.dns.a("a.zen.example").status, *session.dns.a("a.zen.example").records]
        said.append(str(session.state.incr("n")))
        try:
            with session.connect("service") as service:
                said.append(service.recv(100).decode())
        except CapabilityError as why:
            said.append(type(why).__name__)
        return deny("5.7.1", " ".join(said))

    return Plugin(mail=mail)
"""
WANTS = """
[wants.capabilities]
dns = { suffixes = ["zen.example"], reason = "x" }
state = "x"
connect = { targets = ["service"], reason = "x" }
"""
TWICE = [Sample(name="one", mail=(Mail(), Mail())), Sample(name="two", mail=(Mail(),))]


@contextlib.contextmanager
def service() -> Iterator[int]:
    """Says hello to who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    connection.sendall(b"hello")
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def replies(folder: Path, **given: list[str]) -> list[str]:
    with configured(folder, **given) as plugin:
        found = asyncio.run(trial.test(plugin, TWICE))
    return [step.reply for session in found.sessions for step in session.steps]


@pytest.mark.parametrize("mode", MODES)
def test_names_kept_values_and_connections_are_real(mode: str, write_plugin: WritePlugin):
    """The store is the run's own: it begins empty, and outlives a session."""
    folder = write_plugin(CODE, more=WANTS)
    with NameServer() as names, service() as port:
        names.add("a.zen.example", "A", "127.0.0.2")

        def body() -> None:
            said = replies(folder, targets=[f"service=127.0.0.1:{port}"], name_servers=[names.address])
            assert said == [f"550 5.7.1 found 127.0.0.2 {n} hello" for n in (1, 2, 3)]

        as_mode(mode, body)
        as_mode(mode, body)


def test_what_is_not_there_is_plainly_unavailable(write_plugin: WritePlugin):
    """A target that was not given answers nothing; a silent name server is a temporary failure."""
    folder = write_plugin(CODE, more=WANTS + '[limits]\ntimeout = "10s"\n')
    with NameServer() as names:
        names.answer = names.refuses
        assert replies(folder, name_servers=[names.address])[0] == "550 5.7.1 temporary 1 Unavailable"


def test_no_broker_is_left(write_plugin: WritePlugin):
    """It ends with the run."""
    folder = write_plugin(CODE, more=WANTS)
    with NameServer() as names:
        replies(folder, name_servers=[names.address])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
