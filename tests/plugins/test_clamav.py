"""clamav: its manual page, sentence by sentence; the real clamd is in test_plugins_capabilities."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk import Connection, QuotaExceeded, Unavailable, add_header, replace_body
from forkd.sdk.testing import (
    Answer,
    LoadedPlugin,
    ScriptedSession,
    assert_added_header,
    assert_deferred,
    assert_deleted_header,
    assert_denied,
    assert_disconnected,
    assert_no_opinion,
    assert_passed,
    assert_quarantined,
    load_plugin,
)

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "clamav"
load_plugin(FOLDER)

from clamav import NoAnswer, TooLarge, chunks, finding  # type: ignore[import-not-found]  # noqa: E402

MAIL = "Subject: hello\nX-Virus-Scanned: by somebody\n\nbody\n"


class Clamd:
    """Answers over real sockets, from a thread for each connection.

    reply  what it answers after the end of a message
    stops  after so many octets of a message it answers and reads no more, as for StreamMaxLength
    """

    def __init__(self, reply: bytes = b"stream: OK\0", *, stops: int = 1 << 40) -> None:
        self.reply = reply
        self.stops = stops
        self.commands: list[bytes] = []
        self.messages: list[bytes] = []
        self._threads: list[threading.Thread] = []

    def connect(self, target: str) -> Connection:
        assert target == "clamd"
        ours, theirs = socket.socketpair()
        self._threads.append(threading.Thread(target=self._serve, args=(ours,)))
        self._threads[-1].start()
        return Connection(theirs)

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as stream, contextlib.suppress(BrokenPipeError):
            self.commands.append(stream.read(len(b"zINSTREAM\0")))
            message = b""
            while (size := int.from_bytes(stream.read(4), "big")) and len(message) < self.stops:
                message += stream.read(size)
            self.messages.append(message)
            peer.sendall(self.reply)

    def __enter__(self) -> Clamd:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


class Away:
    """A target that refuses the connection."""

    def __init__(self, why: Exception | None = None) -> None:
        self.why = why or Unavailable("clamd: connection refused")

    def connect(self, target: str) -> Connection:
        raise self.why


def session(clamd: Any, clock: Callable[[], float] = lambda: 0.0, **settings: Any) -> ScriptedSession:
    loaded = load_plugin(FOLDER, settings=settings)
    values = {name: declared.get("default") for name, declared in loaded.manifest["settings"].items()}
    plugin = sys.modules["clamav"].hooks(values | settings, clock)  # by a clock of the test's
    plugin.name = "clamav"
    return LoadedPlugin(plugin, loaded.manifest, values | settings).session(targets=clamd)


@pytest.fixture
def make_clamd() -> Iterator[Callable[..., Clamd]]:
    with contextlib.ExitStack() as ends:
        yield lambda *reply, **more: ends.enter_context(Clamd(*reply, **more))


def ask(clamd: Any, mail: str | bytes = MAIL, **settings: Any) -> Answer:
    return session(clamd, **settings).message(mail)


FOUND = b"stream: Win.Test.EICAR_HDB-1 FOUND\0"


def test_a_clean_message_passes_and_was_sent_as_it_came(make_clamd: Callable[..., Clamd]):
    """INSTREAM with the header as well, octet for octet."""
    clamd = make_clamd()
    assert_no_opinion(ask(clamd))
    assert clamd.commands == [b"zINSTREAM\0"]
    assert clamd.messages == [MAIL.replace("\n", "\r\n").encode()]


@pytest.mark.parametrize(
    "mail", [b"no header at all", b"\r\nonly a body\r\n", b"", b"Subject: x\r\nno colon\r\nTo: y\r\n\r\nbody"]
)
def test_what_has_no_proper_header_is_sent_as_it_came(make_clamd: Callable[..., Clamd], mail: bytes):
    """Mail programs read it in ways of their own: clamd shall see what they see."""
    clamd = make_clamd()
    assert_passed(ask(clamd, mail))
    assert clamd.messages == [mail]


def test_a_large_message_goes_in_chunks(make_clamd: Callable[..., Clamd]):
    clamd = make_clamd()
    body = b"0123456789abcdef\r\n" * 60_000
    assert_passed(ask(clamd, b"Subject: big\r\n\r\n" + body))
    assert clamd.messages == [b"Subject: big\r\n\r\n" + body]


def test_it_sees_what_the_plugins_before_have_made_of_it(make_clamd: Callable[..., Clamd]):
    clamd = make_clamd()
    session(clamd).message("Subject: x\n\nold\n", edits=[add_header("X-Tag", "1"), replace_body("new\n")])
    assert clamd.messages == [b"X-Tag: 1\r\nSubject: x\r\n\r\nnew\r\n"]


def test_what_clamd_finds_is_refused(make_clamd: Callable[..., Clamd]):
    client = session(make_clamd(FOUND))
    answer = client.message(MAIL)
    assert_denied(answer, code=550, enhanced="5.7.1")
    assert answer.verdict is not None
    assert answer.verdict.text == "this message is infected: Win.Test.EICAR_HDB-1"
    assert client.logged == ["found: Win.Test.EICAR_HDB-1"]
    assert client.counted == {"found": 1}
    answer = ask(make_clamd(FOUND), show_name=False, text="no")
    assert answer.verdict is not None
    assert answer.verdict.text == "no"


def test_what_clamd_finds_can_be_held(make_clamd: Callable[..., Clamd]):
    answer = ask(make_clamd(FOUND), action="quarantine")
    assert_quarantined(answer)
    assert answer.verdict is not None
    assert answer.verdict.text == "clamav found Win.Test.EICAR_HDB-1"


@pytest.mark.parametrize(
    ("ignore", "passes"),
    [("Win.Test.*", True), ("win.test.eicar_hdb-?", True), ("Heuristics.*", False), ("Win.Test", False)],
)
def test_findings_that_are_ignored_are_logged(make_clamd: Callable[..., Clamd], ignore: str, passes: bool):
    client = session(make_clamd(FOUND), ignore=["PUA.*", ignore])
    assert (client.message(MAIL).verdict is None) is passes
    assert client.counted == ({"ignored": 1} if passes else {"found": 1})


def test_the_header_says_what_was_done_and_replaces_what_stood_there(make_clamd: Callable[..., Clamd]):
    answer = ask(make_clamd(), header=True)
    assert_deleted_header(answer, "X-Virus-Scanned")
    assert_added_header(answer, "X-Virus-Scanned", "clamav at mx.test.local")
    answer = ask(Away(), header=True, on_unavailable="pass")
    assert_added_header(answer, "X-Virus-Scanned", "not scanned at mx.test.local")


SIZES: list[tuple[str, str, int | None]] = [
    ("pass", "", None),
    ("defer", "4.3.0", 451),
    ("refuse", "5.3.4", 552),
]


@pytest.mark.parametrize(("setting", "enhanced", "code"), SIZES)
def test_what_is_too_large_is_not_scanned(setting: str, enhanced: str, code: int | None):
    """For max_size: clamd is not even asked."""
    client = session(Away(), max_size=1024, too_large=setting)
    answer = client.message(MAIL + "x" * 1024)
    assert (answer.verdict and (answer.verdict.enhanced, answer.verdict.code)) == (code and (enhanced, code))
    assert client.counted == {"too_large": 1}


@pytest.mark.parametrize(("setting", "enhanced", "code"), SIZES)
def test_what_is_too_large_for_clamd(
    make_clamd: Callable[..., Clamd], setting: str, enhanced: str, code: int | None
):
    """StreamMaxLength: it answers in the middle and closes; what it said is read all the same."""
    clamd = make_clamd(b"INSTREAM size limit exceeded. ERROR\0", stops=100_000)
    answer = ask(clamd, b"Subject: x\r\n\r\n" + b"x" * 5_000_000, too_large=setting)
    assert (answer.verdict and (answer.verdict.enhanced, answer.verdict.code)) == (code and (enhanced, code))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "it closed the connection without an answer"),
        (b"stream: Can't allocate memory ERROR\0", 'it answers "stream: Can\'t allocate memory ERROR"'),
        (b"UNKNOWN COMMAND\0", "it answers 'UNKNOWN COMMAND'"),
        (b"x" * 5000, "within 4096 octets"),
        (b"stream: O", "it answers 'stream: O'"),
    ],
)
def test_when_clamd_has_no_answer_the_client_comes_again(
    make_clamd: Callable[..., Clamd], reply: bytes, said: str
):
    client = session(make_clamd(reply))
    assert_deferred(client.message(MAIL), code=451, enhanced="4.3.0")
    assert said in client.logged[0]
    assert client.counted == {"unavailable": 1}
    assert_passed(ask(make_clamd(reply), on_unavailable="pass"))


def test_when_clamd_is_away_the_client_comes_again():
    client = session(Away())
    assert_deferred(client.message(MAIL), code=451, enhanced="4.3.0")
    assert client.logged == ["clamd could not be asked: clamd: connection refused; mail is turned away"]
    assert_passed(ask(Away(), on_unavailable="pass"))


@pytest.mark.parametrize("setting", ["pass", "defer"])
def test_after_all_connections_of_a_session_the_client_goes_on_in_another(setting: str):
    """Whatever is set: else a virus could come behind enough messages without one."""
    client = session(Away(QuotaExceeded("64 connections in a minute of a session")), on_unavailable=setting)
    assert_disconnected(client.message(MAIL))
    assert client.counted == {"quota": 1}


def test_when_clamd_takes_too_long_the_client_comes_again():
    """`timeout` is for the whole message: before each chunk, and for the answer."""
    ours, theirs = socket.socketpair()

    class Silent:
        def connect(self, target: str) -> Connection:
            return Connection(theirs)

    times = itertools.chain([0.0], itertools.repeat(44.99))
    with ours:
        client = session(Silent(), lambda: next(times))
        assert_deferred(client.message(MAIL), code=451, enhanced="4.3.0")
    assert client.logged == ["clamd could not be asked: it took longer than 45 s; mail is turned away"]
    times = itertools.chain([0.0] * 3, itertools.repeat(45.0))
    with Clamd() as clamd:
        client = session(clamd, lambda: next(times))
        assert_deferred(client.message(MAIL + "x" * 1_000_000), code=451, enhanced="4.3.0")


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        (b"stream: OK\0", ""),
        (b"stream: OK\n", ""),
        (b"stream: Test.Eicar.UNOFFICIAL FOUND\0", "Test.Eicar.UNOFFICIAL"),
        (b"stream: Eicar(44d88612fea8a8f36de82e1278abb02f:68) FOUND\0", "Eicar"),
        (b"stream: Odd name OK FOUND\0", "Odd name OK"),
        (b"stream: \xff\r\nX FOUND\0", ""),
    ],
)
def test_what_clamd_answers(reply: bytes, name: str):
    if b"\xff" in reply:
        with pytest.raises(NoAnswer):
            finding(reply)
    else:
        assert finding(reply) == name


@given(st.binary(max_size=200))
def test_any_answer_is_understood_or_no_answer(reply: bytes):
    """What is shown of it can stand in a reply; nothing but OK is OK."""
    try:
        name = finding(reply)
    except (NoAnswer, TooLarge):
        return
    assert name.isascii()
    assert name.isprintable()
    assert name or reply.rstrip(b"\0\r\n") == b"stream: OK"


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_chunks_say_the_same_as_the_message(pieces: list[bytes]):
    """Each with its length; one without octets is the end and stands there only."""
    stream, message = b"".join(chunks(pieces)), b""
    while size := int.from_bytes(stream[:4], "big"):
        message += stream[4 : 4 + size]
        stream = stream[4 + size :]
    assert message == b"".join(pieces)
    assert stream == bytes(4)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"ignore": ["*"]}, "setting ignore: .* would ignore every finding"),
        ({"ignore": [""]}, "setting ignore: "),
        ({"text": "a\nb"}, "setting text: "),
        ({"max_size": 0}, "setting max_size: "),
        ({"too_large": "drop"}, "setting too_large: "),
    ],
)
def test_bad_settings_stop_the_start(settings: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        load_plugin(FOLDER, settings=settings)
