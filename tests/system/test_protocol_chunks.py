"""BDAT against the live daemon: what a chunk that is refused counts."""

from __future__ import annotations

from tests.support.talker import Talker

from .conftest import Make

UMLAUT = 'plugin = "../umlaut"\n[grants]\nreads = ["envelope"]\n'


def test_a_refused_chunk_is_one_error(make_daemon: Make) -> None:
    """RFC 3030 2: it is read over before it is answered; the session's count has each answer once."""
    daemon = make_daemon(copy=("umlaut",), plugins={"10-umlaut.toml": UMLAUT})
    client = Talker(daemon)
    client.say("EHLO client.example")
    for _ in range(2):
        client.say("MAIL FROM:<a@example.org>")
        client.say("RCPT TO:<voll@test.local>")
        client.send(b"BDAT 3\r\nabc")
        assert client.read().startswith("451 4.2.2")
    client.send(b"BDAT 3 LAST\r\nabc")
    assert client.read().startswith("503 5.5.1")
    client.say("QUIT")
    (session,) = daemon.told("session")
    assert session["errors"] == 3
    assert len(daemon.told("message", 2)) == 2
