"""One record is one message; whatever else comes ends the connection and nothing more (PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import msgspec
import pytest
import uvloop

from forkd.rpc import channel
from forkd.rpc.messages import ClientConnect, ClientCounts, FromRole, Heartbeat, Ready, Stop, ToRole


@pytest.fixture
def pair():
    ours, theirs = channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request):
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


def test_a_message_arrives_as_it_was_sent(pair):
    """Struct in, equal struct out, floats and mappings included."""
    message = Heartbeat(sessions=3, counters={"accepted": 4}, info={"a": "é"})
    channel.send(pair[0], message)
    assert channel.receive(pair[1], FromRole) == message


def test_borders_between_messages_are_kept(pair):
    """SEQPACKET: two records never join."""
    channel.send(pair[0], Ready())
    channel.send(pair[0], Heartbeat())
    assert channel.drain(pair[1], FromRole) == ([Ready(), Heartbeat()], False)


def test_end_of_file_is_none_after_what_was_sent(pair):
    """A peer's death is told after its last words."""
    channel.send(pair[0], Ready())
    pair[0].close()
    assert channel.drain(pair[1], FromRole) == ([Ready()], True)
    assert channel.receive(pair[1], FromRole) is None


@pytest.mark.parametrize(
    "record",
    [
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode({"t": "nothing"}),
        msgspec.msgpack.encode({"t": "beat", "sessions": "many"}),
        msgspec.msgpack.encode({"t": "beat", "more": 1}),
        msgspec.msgpack.encode({"t": "stop", "deadline_s": 1.0}),
        b"\x91" * 60_000,
        b"\xa3\xff\xff\xff",
        b"x" * (channel.MAX_RECORD_BYTES + 1),
    ],
    ids=["garbage", "empty map", "unknown", "type", "field", "direction", "nested", "utf-8", "long"],
)
def test_what_is_not_in_the_protocol_is_a_bad_record(pair, record):
    """Unknown tag, wrong type, foreign field, the other side's message, hostile nesting, too long."""
    pair[0].send(record)
    with pytest.raises(channel.BadRecord):
        channel.drain(pair[1], FromRole)


@pytest.mark.parametrize("name", ["t", "\x1b[2J\n\x9b2J", "x" * 60_000])
def test_what_is_said_of_a_bad_record_is_for_eyes(name):
    """The error quotes names that the peer chose: no terminal is to obey them, nor a log to be filled."""
    for record in ({"t": "beat", name: "more"}, {"t": name}):
        with pytest.raises(channel.BadRecord) as raised:
            channel.decode(msgspec.msgpack.encode(record), FromRole)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 1500


def test_descriptors_that_are_attached_are_dropped(pair):
    """Nobody takes descriptors that he did not ask for (sandbox.md, life of a sandbox)."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    socket.send_fds(pair[0], [channel.encode(Ready())], [0, 1, 2])
    assert channel.receive(pair[1], FromRole) == Ready()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_peer_that_does_not_read_cannot_block_the_sender(pair):
    """try_send() says no instead of waiting."""
    sent = 0
    while channel.try_send(pair[0], Stop(deadline_s=None)):
        sent += 1
    assert sent > 10
    assert channel.receive(pair[1], ToRole) == Stop(deadline_s=None)


def test_a_message_that_would_not_fit_is_refused_at_home(pair):
    """A record is at most MAX_RECORD_BYTES; what can grow is paged."""
    with pytest.raises(ValueError, match="octets"):
        channel.send(pair[0], Heartbeat(info={"x": "y" * channel.MAX_RECORD_BYTES}))


def listener(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen()
    sock.setblocking(False)
    return sock


def test_answers_find_their_questions_in_any_order(runner, tmp_path):
    """Numbered requests: the second may be answered first."""

    async def scenario() -> list[int]:
        loop = asyncio.get_running_loop()
        with listener(tmp_path / "s") as server:
            client = channel.RequestClient(loop, tmp_path / "s", ClientCounts)
            first = client.request(lambda n: ClientConnect(n=n, client="a"), timeout_s=5)
            second = client.request(lambda n: ClientConnect(n=n, client="b"), timeout_s=5)
            connection, _ = server.accept()
            asked = [channel.receive(connection, ClientConnect) for _ in range(2)]
            for question in reversed(asked):
                answer = ClientCounts(n=question.n, sessions=ord(question.client), connections_last_minute=1)
                channel.send(connection, answer)
            answers = [(await first).sessions, (await second).sessions]
            client.close()
            connection.close()
            return answers

    assert runner.run(scenario()) == [ord("a"), ord("b")]


def test_a_peer_that_is_not_there_is_unavailable_at_once(runner, tmp_path):
    """Nothing waits for a dead peer."""

    async def scenario() -> None:
        client = channel.RequestClient(asyncio.get_running_loop(), tmp_path / "none", ClientCounts)
        with pytest.raises(channel.Unavailable):
            await client.request(lambda n: ClientConnect(n=n, client="a"), timeout_s=60)

    runner.run(scenario())


def test_silence_ends_with_the_time_limit(runner, tmp_path):
    """A peer that does not answer costs timeout_s, no more."""

    async def scenario() -> None:
        with listener(tmp_path / "s"):
            client = channel.RequestClient(asyncio.get_running_loop(), tmp_path / "s", ClientCounts)
            with pytest.raises(channel.Unavailable, match="in time"):
                await client.request(lambda n: ClientConnect(n=n, client="a"), timeout_s=0.02)
            client.close()

    runner.run(scenario())


def test_a_lost_peer_fails_what_is_under_way_and_is_found_again(runner, tmp_path):
    """A restarted anvil is used again; the caller is told that it forgot everything."""
    lost = []

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        with listener(tmp_path / "s") as server:
            client = channel.RequestClient(loop, tmp_path / "s", ClientCounts, on_lost=lambda: lost.append(1))
            question = client.request(lambda n: ClientConnect(n=n, client="a"), timeout_s=5)
            server.accept()[0].close()
            with pytest.raises(channel.Unavailable):
                await question
            deadline = loop.time() + 5
            while not client.post(ClientConnect(n=0, client="x")):
                assert loop.time() < deadline
                await asyncio.sleep(0.01)
            connection, _ = server.accept()
            assert channel.receive(connection, ClientConnect).client == "x"
            client.close()
            connection.close()
            return len(lost)

    assert runner.run(scenario()) == 2


def test_a_peer_out_of_protocol_is_dropped(runner, tmp_path):
    """A bad answer ends the connection as a death would."""

    async def scenario() -> None:
        with listener(tmp_path / "s") as server:
            client = channel.RequestClient(asyncio.get_running_loop(), tmp_path / "s", ClientCounts)
            question = client.request(lambda n: ClientConnect(n=n, client="a"), timeout_s=5)
            connection, _ = server.accept()
            connection.send(b"\xc1")
            with pytest.raises(channel.Unavailable):
                await question
            assert not client.connected
            connection.close()

    runner.run(scenario())
