"""HTTP as admin speaks it (admin/http.py), over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from forkd.admin import http
from forkd.admin.http import Answer, Server
from tests.support import asking_http as ask
from tests.support.waiting import wait_for

BIG = b"x" * 5_000_000


async def hello() -> Answer:
    return Answer(b"hello\n")


async def away() -> Answer:
    return Answer(b"qmgr is away\n", HTTPStatus.SERVICE_UNAVAILABLE)


async def big() -> Answer:
    return Answer(BIG)


async def broken() -> Answer:
    raise RuntimeError("a bug of ours")


ASKED = threading.Event()


async def never() -> Answer:
    ASKED.set()
    await asyncio.Event().wait()
    raise AssertionError


PATHS = {"/hello": hello, "/away": away, "/big": big, "/broken": broken, "/never": never}


@contextlib.contextmanager
def serving(folder: Path, *, deadline_s: float, free: frozenset[int]) -> Iterator[Path]:
    """Path of a unix socket."""
    path = folder / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    loop: asyncio.AbstractEventLoop | None = None
    ended = asyncio.Event()

    async def serve() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        server = Server(listener, PATHS, deadline_s=deadline_s, free=free)
        serving = loop.create_task(server.run())
        await ended.wait()
        serving.cancel()
        await server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield path
    finally:
        assert loop is not None
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """With the deadline of a test; we may have all places."""
    folder = tmp_path_factory.mktemp("http")
    with serving(folder, deadline_s=0.5, free=frozenset({os.getuid()})) as path:
        yield path


def test_a_path_is_answered_with_its_length_and_the_connection_ends(served):
    found = ask.get(served, "/hello")
    assert (found.status, found.body) == (200, b"hello\n")
    assert found.fields["content-length"] == "6"
    assert found.fields["connection"] == "close"


def test_head_is_get_without_its_body(served):
    """RFC 9110 9.3.2: the same fields, the length too."""
    assert ask.get(served, "/hello", "HEAD").fields == ask.get(served, "/hello").fields
    assert ask.get(served, "/hello", "HEAD").body == b""


def test_the_root_lists_the_table(served):
    assert ask.get(served).text.split() == list(PATHS)


@pytest.mark.parametrize("target", ["/hello?x=1", "http://localhost/hello", "http://localhost:9252/hello?y"])
def test_a_target_may_be_whole_and_have_a_query(served, target):
    """RFC 9112 3.2.2."""
    assert ask.get(served, target).status == 200


def test_http_1_0_needs_no_host(served):
    assert ask.read(ask.raw(served, b"GET /hello HTTP/1.0\r\n\r\n")).status == 200


def test_a_row_says_its_own_status(served):
    assert (ask.get(served, "/away").status, ask.get(served, "/away").text) == (503, "qmgr is away\n")


@pytest.mark.parametrize("path", ["/nothing", "/hello/", "//hello", "/HELLO", "/%68ello", "*", "hello"])
def test_what_is_not_in_the_table_is_not_found(served, path):
    assert ask.get(served, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "X-ANY"])
def test_another_method_is_not_allowed_and_told_what_is(served, method):
    """RFC 9110 15.5.6."""
    found = ask.get(served, "/hello", method)
    assert (found.status, found.fields["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\r\n\r\n", 400),
        (b"GET /hello\r\n\r\n", 400),
        (b"GET  /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /he llo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET http://[x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA: " + b"b" * http.MAX_HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_is_told_so(served, data, status):
    assert ask.read(ask.raw(served, data)).status == status
    assert ask.get(served, "/hello").status == 200


def test_half_a_request_is_none(served):
    assert ask.read(ask.raw(served, b"GET /hel", end=True)).status == 400
    assert ask.raw(served, b"", end=True) == b""


def test_a_bug_is_a_500_and_the_next_is_served(served):
    found = ask.get(served, "/broken")
    assert found.status == 500
    assert "a bug of ours" not in found.text
    assert ask.get(served, "/hello").status == 200


def test_a_silent_client_is_told_and_cut(served):
    """It holds its place for the deadline, no longer."""
    assert ask.read(ask.raw(served, b"GET /hello HTTP/1.1\r\n")).status == 408


def test_a_row_that_does_not_answer_holds_nobody(served):
    """The connection ends without an answer; what asks /healthz takes that as ill."""
    with contextlib.suppress(ConnectionResetError):
        assert ask.raw(served, b"GET /never HTTP/1.0\r\n\r\n") == b""


def test_clients_that_read_nothing_hold_their_places_for_a_time_alone(served):
    """All places taken by such: the one behind them is served after the deadline."""
    with_nothing_read = [ask.connect(served) for _ in range(http.MAX_CLIENTS)]
    try:
        for each in with_nothing_read:
            each.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        assert ask.get(served, "/hello").status == 200
    finally:
        for each in with_nothing_read:
            each.close()


def test_a_large_answer_arrives_whole(served):
    assert ask.get(served, "/big").body == BIG


def test_in_a_crowd_who_keeps_us_waiting_longest_gives_way(tmp_path):
    """Long before his deadline; not he whose answer we owe."""
    ASKED.clear()
    with (
        serving(tmp_path, deadline_s=60, free=frozenset({os.getuid()})) as path,
        contextlib.ExitStack() as stack,
    ):
        held = [stack.enter_context(ask.connect(path)) for _ in range(http.MAX_CLIENTS)]
        held[0].sendall(b"GET /never HTTP/1.0\r\n\r\n")
        assert ASKED.wait(20)
        assert ask.get(path, "/hello").status == 200
        assert held[1].recv(1) == b""
        held[2].sendall(b"GET /hello HTTP/1.0\r\n\r\n")
        assert held[2].recv(12) == b"HTTP/1.1 200"
        held[0].setblocking(False)
        with pytest.raises(BlockingIOError):
            held[0].recv(1)


def test_no_user_takes_the_places_of_others(tmp_path):
    """The kernel says who he is; what is one too many is told so at once."""
    with serving(tmp_path, deadline_s=60, free=frozenset()) as path, contextlib.ExitStack() as stack:
        held = [stack.enter_context(ask.connect(path)) for _ in range(http.MAX_OF_ONE)]
        with ask.connect(path) as more:
            assert more.makefile("rb").read().startswith(b"HTTP/1.1 503 ")
        held.pop().close()
        wait_for(lambda: ask.get(path, "/hello").status == 200)  # when it has seen that he went
