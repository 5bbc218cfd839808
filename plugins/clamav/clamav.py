"""clamav - have every message scanned by ClamAV

SYNOPSIS
    plugins.d/65-clamav.toml:

        plugin = "clamav"

        [grants]
        reads = ["body"]
        connect = { clamd = "unix:/run/clamav/clamd.ctl" }

DESCRIPTION
    Every message is sent to clamd, as it stands after the plugins before (INSTREAM, clamd(8)). What clamd
    finds a virus in is refused: 550 5.7.1; or held with action = "quarantine": `forkd queue release ID` lets
    it go. clamd may be on another host ("192.0.2.7:3310"), and needs no right to any file of forkd's. To
    clamd this plugin is a client like any other: it could send it any command.

    A message that clamd cannot be asked about is not taken: 451 4.3.0, and the client comes again
    (on_unavailable = "pass": it goes on unscanned). So it is when clamd is not there or being restarted,
    takes longer than `timeout`, or answers with an error. A session that brings more messages than forkd
    makes connections for (64 in a minute) is answered 421 4.3.2 whatever is set: the client goes on in
    another.

    What is larger than `max_size`, or than clamd's StreamMaxLength, is not scanned: `too_large` says what
    becomes of it. Keep max_size at or below StreamMaxLength, and that above forkd's max_message_size if every
    message shall be scanned.

FINDINGS
    The log, and with `show_name` the client, is told the name of what was found. Findings whose name `ignore`
    matches let the message pass, and are logged: clamd's heuristics are wrong more often than its
    signatures. clamd reports one finding of a message; it looks for heuristic ones last unless its
    HeuristicScanPrecedence says otherwise, so to ignore one hides no virus. Upper and lower case are the
    same.

        ignore = ["Heuristics.Phishing.*", "PUA.*"]

HEADER
    With `header` a message says what was done here, and what stood in that field before is taken away:

        X-Virus-Scanned: clamav at mx.example.org
        X-Virus-Scanned: not scanned at mx.example.org

SETTINGS
    action          refuse or quarantine (grant quarantine)     default: refuse
    ignore          names of findings, * and ?                  default: none
    max_size        octets                                      default: 25 MiB, clamd's before 1.0
    too_large       pass, defer or refuse (552 5.3.4)           default: pass
    on_unavailable  defer or pass                               default: defer
    timeout         seconds for one message                     default: 45
    show_name       tell the client what was found              default: true
    header          grant edit_headers = ["X-Virus-Scanned"]    default: false
    text            what a refused client is told               default: see plugin.toml

FAILURE
    on_failure is for the plugin's own failure; its default, "disconnect", turns the client away for now.
    With `header` "skip" is refused.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from forkd.sdk import (
    Edit,
    Envelope,
    Message,
    Plugin,
    Session,
    Verdict,
    add_header,
    defer,
    delete_header,
    deny,
    disconnect,
    quarantine,
)
from forkd.sdk.capabilities import CapabilityError, QuotaExceeded
from forkd.sdk.listfile import checked

_HEADER = "X-Virus-Scanned"
_PIECE_BYTES = 131_072
"""Of one chunk."""
_MAX_REPLY = 4_096
_MAX_NAME = 120
"""Characters of a finding's name that a reply or a reason shows."""
_FOUND = re.compile(r"stream: (?P<name>.+?)(?:\([0-9a-f]{32,64}:[0-9]+\))? FOUND")
"""In brackets: hash and size of what was found, with ExtendedDetectionInfo."""
_TOO_LARGE = re.compile(r"INSTREAM size limit exceeded", re.IGNORECASE)


class TooLarge(Exception):  # noqa: N818 - no error of anybody's
    """clamd takes no message of this size."""


class NoAnswer(Exception):  # noqa: N818
    """clamd could not be asked; says why."""


def chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A message as INSTREAM has it: each chunk with its length before it, one of no length at the end."""
    for piece in pieces:
        if piece:  # one without octets would be the end
            yield len(piece).to_bytes(4, "big") + piece
    yield bytes(4)


def finding(reply: bytes) -> str:
    """The name of what was found, empty for nothing. Raises TooLarge, NoAnswer for anything else."""
    text = reply.rstrip(b"\0\r\n").decode("utf-8", "replace")
    if text == "stream: OK":
        return ""
    if found := _FOUND.fullmatch(text):
        return "".join(c if c.isascii() and c.isprintable() else "?" for c in found["name"])[:_MAX_NAME]
    if _TOO_LARGE.match(text):
        raise TooLarge
    raise NoAnswer(
        f"it answers {text[:_MAX_NAME]!r}" if text else "it closed the connection without an answer"
    )


def scan(session: Session, pieces: Iterable[bytes], timeout_s: float, clock: Callable[[], float]) -> str:
    """The name of what clamd finds, empty for nothing. Raises TooLarge, NoAnswer."""
    until = clock() + timeout_s
    try:
        with session.connect("clamd") as clamd:
            try:
                clamd.sendall(b"zINSTREAM\0")
                for chunk in chunks(pieces):
                    clamd.timeout = _left(until, clock)
                    clamd.sendall(chunk)
            except (BrokenPipeError, ConnectionResetError):
                # It has stopped reading: what it says of that is there to be read.
                pass
            clamd.timeout = _left(until, clock)
            return finding(clamd.recv_until(b"\0", _MAX_REPLY))
    except TimeoutError:
        raise NoAnswer(f"it took longer than {timeout_s:g} s") from None
    except QuotaExceeded:
        raise
    except (CapabilityError, OSError, ValueError) as why:
        raise NoAnswer(str(why) or type(why).__name__) from None


def _left(until: float, clock: Callable[[], float]) -> float:
    """Seconds that are left for this message. Raises TimeoutError."""
    left = until - clock()
    if left <= 0:
        raise TimeoutError
    return left


class Scanner:
    """What becomes of a message."""

    def __init__(self, settings: dict[str, Any], clock: Callable[[], float]) -> None:
        """Raises ValueError for settings that make no sense."""
        self._clock = clock
        self._timeout_s: int = settings["timeout"]
        self._max_size: int = settings["max_size"]
        self._held = settings["action"] == "quarantine"
        self._show_name: bool = settings["show_name"]
        self._text: str = settings["text"]
        self._header: bool = settings["header"]
        self._passes_unscanned = settings["on_unavailable"] == "pass"
        self._too_large: str = settings["too_large"]
        self._ignored = [
            re.compile(fnmatch.translate(checked("ignore", _pattern, text)), re.IGNORECASE)
            for text in settings["ignore"]
        ]
        checked("text", deny, "5.7.1", f"{self._text}: {'x' * _MAX_NAME}")

    def judge(self, session: Session, message: Message) -> list[Edit | Verdict]:
        """Verdict and edits."""
        if message.size > self._max_size:
            return self._unscanned_for_size(session, message)
        try:
            name = scan(session, message.pieces(_PIECE_BYTES), self._timeout_s, self._clock)
        except TooLarge:
            return self._unscanned_for_size(session, message)
        except QuotaExceeded:
            session.count("quota")
            return [disconnect("4.3.2", "please send further messages in another session")]
        except NoAnswer as why:
            session.count("unavailable")
            session.log(f"clamd could not be asked: {why}; mail is {self._becomes(self._passes_unscanned)}")
            if self._passes_unscanned:
                return self._marked(session, "not scanned")
            return [defer("4.3.0", "this message cannot be checked right now, please try again later")]
        if not name:
            return self._marked(session, "clamav")
        if any(pattern.match(name) for pattern in self._ignored):
            session.count("ignored")
            session.log(f"ignored: {name}")
            return self._marked(session, "clamav")
        session.count("found")
        session.log(f"found: {name}")
        if self._held:
            return [quarantine(f"clamav found {name}")]
        return [deny("5.7.1", f"{self._text}: {name}" if self._show_name else self._text)]

    def _unscanned_for_size(self, session: Session, message: Message) -> list[Edit | Verdict]:
        session.count("too_large")
        passes = self._too_large == "pass"
        session.log(f"not scanned: {message.size} octets; mail is {self._becomes(passes)}")
        if passes:
            return self._marked(session, "not scanned")
        if self._too_large == "defer":
            return [defer("4.3.0", "a message of this size cannot be checked right now")]
        return [deny("5.3.4", "a message of this size cannot be checked for viruses", code=552)]

    def _marked(self, session: Session, what: str) -> list[Edit | Verdict]:
        if not self._header:
            return []
        return [delete_header(_HEADER), add_header(_HEADER, f"{what} at {session.hostname}")]

    @staticmethod
    def _becomes(passes: bool) -> str:
        return "let in" if passes else "turned away"


def _pattern(text: str) -> str:
    """A pattern for names. Raises ValueError for one that would ignore everything."""
    if not text.strip("*?"):
        raise ValueError(f"{text!r} would ignore every finding")
    return text


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Read the settings."""
    return hooks(settings, time.monotonic)


def hooks(settings: dict[str, Any], clock: Callable[[], float]) -> Plugin:
    """The plugin by a clock of one's choice. Raises ValueError, OSError."""
    scanner = Scanner(settings, clock)

    def message(session: Session, envelope: Envelope, message: Message) -> list[Edit | Verdict]:  # noqa: ARG001
        return scanner.judge(session, message)

    return Plugin(message=message)
