"""Every transcript of this folder, played against the engine with the policy of README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.smtp import replies, sasl
from forkd.smtp.events import Auth, AuthData, Data, DataChunk, DataEnd, Event, Mail, Rcpt
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply, reply
from forkd.smtp.server import ServerConnection
from tests.support.dialog import Dialog, load, play
from tests.support.feed import accept, single

FILES = sorted(Path(__file__).parent.glob("*.txt"))
BLOCKED = reply(550, "5.7.1", "Sender blocked")
USER = sasl.Password("user@test.local", "secret")
LOCAL_DOMAINS = ("", "test.local", "localhost")


def default_policy(connection: ServerConnection, event: Event) -> Reply:
    """What a default forkd answers, as far as the dialogs need it (README.md, "Policy")."""
    if isinstance(event, Mail) and event.sender is not None:
        sender = event.sender
        if str(sender) == "blocked@example.org" or sender.domain == "spam.example":
            return BLOCKED
    if isinstance(event, Rcpt):
        recipient = event.recipient
        if recipient.domain not in LOCAL_DOMAINS or not set("%!@").isdisjoint(recipient.local):
            return replies.RELAY_DENIED
    return accept(connection, event)


class EngineServer:
    """The engine as a Server; `step` octets are handed over at a time."""

    def __init__(self, dialog: Dialog, *, byte_by_byte: bool) -> None:
        settings: dict[str, object] = {
            "hostname": "mx.example.org",
            "message_size": 52_428_800,
            **{
                key: value == "yes" if value in ("yes", "no") else value
                for key, value in dialog.options.items()
            },
        }
        if "auth" in settings:
            settings["auth"] = tuple(str(settings["auth"]).split())
        xclient = bool(settings.pop("xclient", False))
        self._connection = ServerConnection(ServerOptions(**settings), xclient=xclient)  # type: ignore[arg-type]
        self._exchange: sasl.Exchange | None = None
        self._byte_by_byte = byte_by_byte
        self._said = self._connection.greeting()
        self._message = self._accepted = b""

    def say(self, octets: bytes) -> None:
        """Hand the octets over, and answer what comes of them."""
        for piece in single(octets) if self._byte_by_byte else (octets,):
            self._connection.receive_data(piece)
        while (event := self._connection.next_event()) is not None:
            if isinstance(event, DataChunk):
                self._message += event.data
                continue
            if isinstance(event, Data):
                self._message = b""
            if isinstance(event, DataEnd):
                self._accepted, self._message = self._message, b""
            self._said += self._connection.send(self._answer(event))

    def _answer(self, event: Event) -> Reply:
        if isinstance(event, Auth):
            self._exchange = sasl.start(event.mechanism)
            if event.initial is None:
                return replies.challenge(self._exchange.first())
            return self._authenticate(event.initial)
        if isinstance(event, AuthData):
            return replies.AUTH_CANCELLED if event.data is None else self._authenticate(event.data)
        return default_policy(self._connection, event)

    def _authenticate(self, data: bytes) -> Reply:
        assert self._exchange is not None
        step = self._exchange.step(data)
        if isinstance(step, sasl.Challenge):
            return replies.challenge(step.data)
        return replies.AUTH_OK if step == USER else replies.AUTH_FAILED

    def line(self) -> str | None:
        """The next line of the replies."""
        if not self._said:
            return None
        line, _, self._said = self._said.partition(b"\r\n")
        return line.decode("ascii")

    def closed(self) -> bool:
        """Nothing more will be read."""
        return self._connection.closed

    def handshake(self) -> None:
        """TLS holds."""
        self._connection.secured()

    def message(self) -> bytes:
        """The message whose end came last."""
        return self._accepted


@pytest.mark.parametrize("byte_by_byte", [False, True], ids=["whole", "bytes"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_engine_keeps_to_the_dialog(path: Path, byte_by_byte: bool) -> None:
    """The rule is in the file's first line; it holds whole and byte by byte."""
    dialog = load(path)
    play(dialog, EngineServer(dialog, byte_by_byte=byte_by_byte))


def test_there_are_dialogs() -> None:
    """An empty folder would pass everything."""
    assert len(FILES) >= 25


@pytest.mark.parametrize("spoiled", ["S: 250 wrong", "S:", "M: other"])
def test_the_player_sees_what_is_wrong(tmp_path: Path, spoiled: str) -> None:
    """A line the server does not keep to fails; else every dialog would pass."""
    path = tmp_path / "spoiled.txt"
    path.write_text(f"# RFC 5321 3.1 - spoiled\nS: 220 ...\n{spoiled}\n")
    dialog = load(path)
    with pytest.raises(AssertionError, match="line 3"):
        play(dialog, EngineServer(dialog, byte_by_byte=False))
