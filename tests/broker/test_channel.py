"""A real broker process, and the test in the place of a worker and of hostile sandboxes."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd.broker.protocol import MAX_RECORD_BYTES
from forkd.broker.quotas import CONNECTS, REFUSALS
from forkd.config.schema import Capabilities, Dns, Seconds, State
from forkd.rpc import channel, passing
from forkd.rpc.messages import SandboxChannel, SandboxSession
from tests.support.broker import Broker, broker
from tests.support.nameserver import NameServer
from tests.support.params import quick_first
from tests.support.waiting import wait_for

ALL = Capabilities(dns=("zen.example",), state=True)


class Worker:
    """A connection to the broker, and the channels of sandboxes that are none."""

    def __init__(self, served: Broker) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.connect(str(served.path))
        self._n = 0
        self._open: list[socket.socket] = []

    def sandbox(self, plugin: str = "p", session: str = "s1") -> socket.socket:
        """The sandbox's end of a channel that was given to the broker."""
        ours, theirs = channel.pair()
        ours.settimeout(20)
        self._n += 1
        message = SandboxChannel(id=self._n, plugin=plugin, session=session)
        with theirs:
            assert passing.try_send(self.connection, message, [theirs.fileno()])
        self._open.append(ours)
        return ours

    def renew(self, id_: int, plugin: str, session: str) -> None:
        channel.send(self.connection, SandboxSession(id=id_, plugin=plugin, session=session))

    def close(self) -> None:
        for each in (self.connection, *self._open):
            each.close()


@contextlib.contextmanager
def worker(served: Broker) -> Iterator[Worker]:
    made = Worker(served)
    try:
        yield made
    finally:
        made.close()


def ask(sandbox: socket.socket, n: int, **request: Any) -> dict[str, Any]:
    sandbox.send(json.dumps({"n": n, **request}).encode())
    answer: dict[str, Any] = json.loads(sandbox.recv(MAX_RECORD_BYTES))
    assert answer["n"] == n
    return answer


def is_closed(sandbox: socket.socket) -> bool:
    """The broker has let go of it. Answers that were under way may come first."""
    try:
        while sandbox.recv(MAX_RECORD_BYTES):
            pass
    except ConnectionError:
        pass
    return True


def test_who_asks_is_known_by_the_channel(tmp_path: Path):
    """Principle 4: a request that says who it is, is a breach; two plugins never meet."""
    with broker(tmp_path, {"p": ALL, "q": ALL}) as served, worker(served) as w:
        p, q = w.sandbox("p"), w.sandbox("q")
        ask(p, 1, do="set", key="k", value="p's")
        assert ask(q, 1, do="get", key="k") == {"n": 1}
        forged = w.sandbox("q")
        forged.send(b'{"n":1,"do":"get","key":"k","plugin":"p","session":"s1"}')
        assert is_closed(forged)
        assert "plugin=q" in served.lines("broker_breach")[0]
        assert ask(p, 2, do="get", key="k") == {"n": 2, "value": "p's"}
        unknown = w.sandbox("nobody")
        assert is_closed(unknown)


BREACHES = {
    "garbage": b"\x00\xff\xfe",
    "no_json": b"{",
    "no_object": b"[]",
    "no_number": b'{"do":"get","key":"k"}',
    "unknown_request": b'{"n":1,"do":"exec","key":"k"}',
    "unknown_field": b'{"n":1,"do":"get","key":"k","x":1}',
    "wrong_type": b'{"n":1,"do":"get","key":1}',
    "empty_key": b'{"n":1,"do":"get","key":""}',
    "long_key": b'{"n":1,"do":"get","key":"' + b"k" * 256 + b'"}',
    "float": b'{"n":1,"do":"set","key":"k","value":1.5}',
    "beyond_64_bits": b'{"n":1,"do":"set","key":"k","value":9223372036854775808}',
    "null_ttl_of_zero": b'{"n":1,"do":"set","key":"k","value":1,"ttl":0}',
    "infinite_ttl": b'{"n":1,"do":"set","key":"k","value":1,"ttl":1e999}',
    "surrogate": b'{"n":1,"do":"get","key":"\\ud800"}',
    "nested": b'{"n":1,"do":"get","key":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "too_long": b'{"n":1,"do":"get","key":"k"' + b" " * MAX_RECORD_BYTES + b"}",
}


@pytest.mark.parametrize("name", quick_first(BREACHES, 6))
def test_a_breach_ends_its_channel_and_no_other(tmp_path: Path, name: str):
    """Strict and bounded: what is not in the protocol is not looked at twice."""
    with broker(tmp_path, {"p": ALL}) as served, worker(served) as w:
        good, bad = w.sandbox(session="good"), w.sandbox(session="bad")
        ask(good, 1, do="set", key="k", value=1)
        bad.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        bad.send(BREACHES[name])
        assert is_closed(bad)
        assert ask(good, 2, do="get", key="k") == {"n": 2, "value": 1}
        (line,) = served.lines("broker_breach")
        assert "session=bad" in line
        assert served.newest_beat().counters["plugin.p.breach"] == 1


def test_descriptors_are_a_breach(tmp_path: Path):
    """Nobody takes a descriptor from a sandbox; none is left open."""
    with broker(tmp_path, {"p": ALL}) as served, worker(served) as w:
        good, bad = w.sandbox(session="good"), w.sandbox(session="bad")
        ask(good, 1, do="get", key="k")
        before = served.descriptors()
        passed = array.array("i", [0, 1, 2])
        bad.sendmsg([b'{"n":1,"do":"get","key":"k"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        assert is_closed(bad)
        assert "descriptors" in served.lines("broker_breach")[0]
        assert served.descriptors() == before - 1


@pytest.mark.parametrize("kind", ["file", "stream", "pipe"])
def test_a_worker_that_brings_no_channel_is_not_believed(tmp_path: Path, kind: str):
    """Its connection is closed, with whatever it brought; another worker's sandboxes notice nothing."""
    with broker(tmp_path, {"p": ALL}) as served, worker(served) as good:
        sandbox = good.sandbox()
        ask(sandbox, 1, do="get", key="k")
        before = served.descriptors()
        with worker(served) as bad, contextlib.ExitStack() as stack:
            if kind == "file":
                number = os.open(os.devnull, os.O_RDONLY)
                stack.callback(os.close, number)
            elif kind == "pipe":
                number, other = os.pipe()
                stack.callback(os.close, number)
                stack.callback(os.close, other)
            else:
                number = stack.enter_context(socket.socket()).fileno()
            bad.connection.settimeout(10)
            assert passing.try_send(bad.connection, SandboxChannel(id=1, plugin="p", session="s"), [number])
            assert bad.connection.recv(1) == b""
        assert ask(sandbox, 2, do="get", key="k")["n"] == 2
        assert served.descriptors() == before


def test_a_second_request_before_the_answer_is_a_breach(tmp_path: Path):
    """One in flight: nothing is queued for anybody."""
    with NameServer() as server:
        server.answer = server.silent
        settings = Dns(servers=(server.address,), timeout=Seconds(30))
        with broker(tmp_path, {"p": ALL}, dns=settings) as served, worker(served) as w:
            bad = w.sandbox()
            for n in (1, 2):
                bad.send(b'{"n":%d,"do":"dns","kind":"a","name":"x.zen.example"}' % n)
            assert is_closed(bad)
            assert "before the answer" in served.lines("broker_breach")[0]


def test_who_does_not_read_is_let_go_and_holds_nobody_up(tmp_path: Path):
    """Its answers fill its own socket, and then its channel is closed."""
    with broker(tmp_path, {"p": ALL}, state=State(per_session=1_000_000)) as served, worker(served) as w:
        good, deaf = w.sandbox(session="good"), w.sandbox(session="deaf")
        ask(good, 1, do="set", key="k", value="x" * 4000)
        with contextlib.suppress(ConnectionError):
            for n in range(1, 1_000_000):
                # Names that are not granted: answered at once, so that one is never before the answer.
                deaf.send(b'{"n":%d,"do":"dns","kind":"a","name":"%b"}' % (n, b"\\\\" * 1000))
        assert wait_for(lambda: served.lines("broker_breach"), timeout_s=10)
        assert "does not read" in served.lines("broker_breach")[0]
        assert ask(good, 2, do="get", key="k")["value"] == "x" * 4000


def test_what_was_not_granted_is_refused_told_once_and_counted(tmp_path: Path):
    """Issue: every refusal logged once per session and kind, and counted."""
    with broker(tmp_path, {"p": Capabilities(dns=("zen.example",))}) as served, worker(served) as w:
        one, two = w.sandbox(session="one"), w.sandbox(session="two")
        for sandbox in (one, two):
            for n in (1, 2, 3):
                answer = ask(sandbox, n, do="dns", kind="a", name="secret\u2028.evil.test")
                assert answer["status"] == "no_such_name"
                answer = ask(sandbox, n, do="dns", kind="a", name="secret.evil.test")
                assert answer["error"] == "not_granted"
            assert ask(sandbox, 4, do="get", key="k")["error"] == "not_granted"
            assert ask(sandbox, 5, do="connect", target="clamd")["error"] == "not_granted"
        lines = served.lines("broker_refusal")
        assert [line.count("secret.evil.test") for line in lines] == [1, 1]
        assert ["session=one" in lines[0], "session=two" in lines[1]] == [True, True]
        assert served.newest_beat().counters["plugin.p.not_granted"] == 10


def test_quotas_of_a_session(tmp_path: Path):
    """[dns] per_session, [state] per_session; reached by one plugin, felt by no other."""
    with NameServer() as server:
        server.add("a.zen.example", "A", "127.0.0.2")
        settings = Dns(servers=(server.address,), per_session=5)
        with (
            broker(tmp_path, {"p": ALL, "q": ALL}, dns=settings, state=State(per_session=3)) as served,
            worker(served) as w,
        ):
            p, again, q = w.sandbox(), w.sandbox(), w.sandbox("q")
            look = {"do": "dns", "kind": "a", "name": "a.zen.example"}
            assert [ask(p, n, **look).get("error", "") for n in range(1, 8)] == [""] * 5 + ["quota"] * 2
            # The same session on another channel, as with limits.fresh = "call": nothing is won by it.
            assert ask(again, 1, **look)["error"] == "quota"
            states = [ask(p, n, do="incr", key="k").get("error", "") for n in range(8, 13)]
            assert states == [""] * 3 + ["quota"] * 2
            assert ask(q, 1, **look)["status"] == "found"
            assert ask(w.sandbox(session="s2"), 1, **look)["status"] == "found"
            assert len(served.lines("broker_refusal")) == 1


def test_the_rate_of_a_plugin_is_over_all_its_sessions(tmp_path: Path):
    """[dns] rate: lookups a second; another plugin has its own."""
    with NameServer() as server:
        server.add("a.zen.example", "A", "127.0.0.2")
        settings = Dns(servers=(server.address,), rate=1)
        with broker(tmp_path, {"p": ALL, "q": ALL}, dns=settings) as served, worker(served) as w:
            look = {"do": "dns", "kind": "a", "name": "a.zen.example"}
            said = [ask(w.sandbox(session=str(n)), 1, **look).get("error", "") for n in range(30)]
            assert said[0] == ""
            assert "quota" in said
            assert "dns.rate (1 a second)" in served.lines("broker_refusal")[0]
            assert ask(w.sandbox("q"), 1, **look)["status"] == "found"


def test_a_hundred_thousand_requests_end_in_a_closed_channel(tmp_path: Path):
    """Who is refused a thousand times in a session floods."""
    with broker(tmp_path, {"p": ALL}, state=State(per_session=10)) as served, worker(served) as w:
        flooding, good = w.sandbox(session="flooding"), w.sandbox(session="good")
        answered = 0
        with contextlib.suppress(ConnectionError, ValueError):
            for n in range(1, 100_001):
                ask(flooding, n, do="get", key="k")
                answered += 1
        assert answered == 10 + REFUSALS
        assert len(served.lines("broker_refusal")) == 1
        assert "refused" in served.lines("broker_breach")[0]
        assert "error" not in ask(good, 1, do="get", key="k")


def test_a_used_sandbox_is_another_session_when_the_worker_says_so(tmp_path: Path):
    """limits.reuse: the channel stays, session and quotas are the new one's."""
    with broker(tmp_path, {"p": ALL}, state=State(per_session=2)) as served, worker(served) as w:
        sandbox = w.sandbox(session="first")
        assert [ask(sandbox, n, do="get", key="k").get("error", "") for n in (1, 2, 3)] == ["", "", "quota"]
        w.renew(1, "p", "second")
        w.renew(99, "p", "nobody's")
        fresh = w.sandbox(session="third")  # what comes behind the news on the connection
        ask(fresh, 1, do="get", key="k")
        assert [ask(sandbox, n, do="get", key="k").get("error", "") for n in (4, 5, 6)] == ["", "", "quota"]
        assert [
            ("session=first" in line, "session=second" in line) for line in served.lines("broker_refusal")
        ] == [
            (True, False),
            (False, True),
        ]


def test_what_is_asked_behind_the_news_of_a_session_is_that_sessions(tmp_path: Path):
    """limits.reuse: news and request come on two sockets, and the kernel may name either first."""
    request = {"do": "dns", "kind": "a", "name": "other.example"}
    with broker(tmp_path, {"p": ALL}) as served, worker(served) as w:
        sandbox = w.sandbox(session="first")
        others = []
        for n in range(300):
            others.append(w.sandbox(session=f"other{n}"))
            ask(others[-1], 1, **request)
        os.kill(served.pid, signal.SIGSTOP)
        try:
            for each in (sandbox, *others):
                each.send(json.dumps({"n": 2, **request}).encode())
        finally:
            os.kill(served.pid, signal.SIGCONT)
        assert json.loads(sandbox.recv(MAX_RECORD_BYTES))["error"] == "not_granted"
        # It is busy with the others. What it looks at next has this channel in front of the connection,
        # because that is where it was read last.
        w.renew(1, "p", "second")
        assert ask(sandbox, 3, **request)["error"] == "not_granted"
        assert [line for line in served.lines("broker_refusal") if "session=second" in line]


def test_what_an_earlier_session_asked_is_not_told_to_the_next(tmp_path: Path):
    """limits.reuse: an answer that comes after the change has neither records nor a socket."""
    with NameServer() as server:
        server.add("a.zen.example", "A", "127.0.0.2")
        asked, go_on = threading.Event(), threading.Event()

        def answer(query: Any) -> bytes | None:
            asked.set()
            assert go_on.wait(20)
            return server.from_records(query)

        server.answer = answer
        with broker(tmp_path, {"p": ALL}, dns=Dns(servers=(server.address,))) as served, worker(served) as w:
            sandbox = w.sandbox(session="first")
            sandbox.send(b'{"n":1,"do":"dns","kind":"a","name":"a.zen.example"}')
            assert asked.wait(20)
            w.renew(1, "p", "second")
            ask(w.sandbox(session="third"), 1, do="get", key="k")  # behind the news on the connection
            go_on.set()
            answer_ = json.loads(sandbox.recv(MAX_RECORD_BYTES))
            assert (answer_["n"], answer_["error"]) == (1, "unavailable")
            assert "records" not in answer_
            assert ask(sandbox, 2, do="dns", kind="a", name="a.zen.example")["records"] == ["127.0.0.2"]


def test_a_dead_worker_takes_its_channels_along_and_a_bad_one_too(tmp_path: Path):
    """End of file, or a record that is not in the protocol; other workers' sandboxes go on. Nothing leaks."""
    with broker(tmp_path, {"p": ALL}) as served, worker(served) as good:
        ask(mine := good.sandbox(), 1, do="get", key="k")
        before = served.descriptors()
        for how in ("dead", "bad"):
            bad = Worker(served)
            sandboxes = [bad.sandbox() for _ in range(20)]
            for sandbox in sandboxes:
                ask(sandbox, 1, do="get", key="k")
            assert served.descriptors() == before + 21
            if how == "dead":
                bad.connection.close()
            else:
                bad.connection.send(b"nonsense")
            assert all(map(is_closed, sandboxes))
            bad.close()
            wait_for(lambda: served.descriptors() == before, timeout_s=10)
        assert "error" not in ask(mine, 2, do="get", key="k")


def test_a_stop_keeps_what_was_written(tmp_path: Path):
    """Master's order: exit 0, everything durable at once."""
    with broker(tmp_path, {"p": ALL}) as served:
        with worker(served) as w:
            ask(w.sandbox(), 1, do="set", key="k", value="v")
            assert served.stop() == 0
        served.start()
        with worker(served) as w:
            assert ask(w.sandbox(), 1, do="get", key="k") == {"n": 1, "value": "v"}


def test_a_store_that_cannot_be_opened_costs_only_the_store(tmp_path: Path):
    """One clear line; names are looked up all the same."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_bytes(b"no database" * 1000)
    with NameServer() as server:
        server.add("a.zen.example", "A", "127.0.0.2")
        with broker(tmp_path, {"p": ALL}, dns=Dns(servers=(server.address,))) as served, worker(served) as w:
            sandbox = w.sandbox()
            assert ask(sandbox, 1, do="get", key="k")["error"] == "unavailable"
            assert ask(sandbox, 2, do="dns", kind="a", name="a.zen.example")["status"] == "found"
            (line,) = [line for line in served.lines("service") if "state_unavailable" in line]
            assert "state.db: file is not a database" in line


# --- connections ------------------------------------------------------------------------------------


class Echo:
    """A stream server that sends back what it gets, on TCP (v4 or v6) or a unix socket."""

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.bind(address)
        self.socket.listen(100)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    @staticmethod
    def _echo(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while piece := client.recv(65_536):
                client.sendall(piece)

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def connected(sandbox: socket.socket, n: int, target: str) -> tuple[dict[str, Any], list[int]]:
    sandbox.send(json.dumps({"n": n, "do": "connect", "target": target}).encode())
    record, fds, _, _ = socket.recv_fds(sandbox, 65_536, 4)
    return json.loads(record), fds


@pytest.mark.parametrize("family", ["tcp", "tcp6", "name", "unix"])
def test_a_granted_target_gives_a_connected_stream_socket(tmp_path: Path, family: str):
    """The broker connects, the plugin talks; blocking, as code expects it; the broker keeps nothing."""
    if family == "unix":
        server = Echo(socket.AF_UNIX, str(tmp_path / "echo.sock"))
        where = f"unix:{tmp_path}/echo.sock"
    elif family == "tcp6":
        server = Echo(socket.AF_INET6, ("::1", 0))
        where = f"[::1]:{server.socket.getsockname()[1]}"
    else:
        server = Echo(socket.AF_INET, ("127.0.0.1", 0))
        where = f"{'127.0.0.1' if family == 'tcp' else 'localhost'}:{server.socket.getsockname()[1]}"
    try:
        with broker(tmp_path, {"p": Capabilities(connect={"echo": where})}) as served, worker(served) as w:
            sandbox = w.sandbox()
            before = (connected(sandbox, 1, "nothing"), served.descriptors())[1]
            answer, (fd,) = connected(sandbox, 2, "echo")
            assert answer == {"n": 2, "done": True}
            with socket.socket(fileno=fd) as echo:
                assert os.get_blocking(fd)
                assert echo.type == socket.SOCK_STREAM
                assert not echo.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                echo.sendall(b"hello")
                assert echo.recv(100) == b"hello"
                assert wait_for(lambda: served.descriptors() == before, timeout_s=10)
    finally:
        server.close()


def test_a_target_that_refuses_is_unavailable(tmp_path: Path):
    """Nobody listens; the path is missing; it is a datagram socket. Told once, counted each time."""
    with socket.socket() as probe, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        probe.bind(("127.0.0.1", 0))
        datagrams.bind(str(tmp_path / "dgram"))
        targets = {
            "refuses": f"127.0.0.1:{probe.getsockname()[1]}",
            "missing": f"unix:{tmp_path}/missing",
            "datagram": f"unix:{tmp_path}/dgram",
        }
        with broker(tmp_path, {"p": Capabilities(connect=targets)}) as served, worker(served) as w:
            sandbox = w.sandbox()
            for n, target in enumerate(targets, start=1):
                answer, fds = connected(sandbox, n, target)
                assert (answer["error"], fds) == ("unavailable", [])
            assert len(served.lines("broker_refusal")) == 1
            assert served.newest_beat().counters["plugin.p.target"] == 3


def test_connections_of_a_session_are_bounded_and_no_session_uses_up_anothers(tmp_path: Path):
    """CONNECTS in a minute of a session, whatever other sessions hold that have not ended."""
    server = Echo(socket.AF_UNIX, str(tmp_path / "echo.sock"))
    targets = {"echo": f"unix:{tmp_path}/echo.sock"}
    try:
        with broker(tmp_path, {"p": Capabilities(connect=targets)}) as served, worker(served) as w:
            for session in range(6):
                sandbox = w.sandbox(session=str(session))
                made = 0
                for n in range(1, 2 * CONNECTS):  # one more comes free each second
                    answer, fds = connected(sandbox, n, "echo")
                    for fd in fds:
                        os.close(fd)
                    if answer.get("error") == "quota":
                        break
                    made += 1
                assert CONNECTS <= made < 2 * CONNECTS - 1
    finally:
        server.close()
