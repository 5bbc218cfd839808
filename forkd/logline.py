"""What does a line of the log look like? logfmt or JSON, one line whatever the fields hold; or a record
of the journal's (logjournal.py).

Text may be hostile: control characters are escaped and lines are cut to MAX_LINE_BYTES.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec

from forkd import logjournal

MAX_LINE_BYTES = 4096
"""PIPE_BUF: a write of so much to a pipe is whole or not at all, so lines of several processes never mix."""
MAX_RECORD_BYTES = 4 * MAX_LINE_BYTES
"""Of a record for the journal: it has each field twice; net.core.wmem_default is a datagram's limit."""


_needs_quotes = re.compile(r"[^!#-<>-\[\]-~]").search
"""Anything but visible ASCII without space, quote, equals sign and backslash."""

_BEYOND_ASCII = r"\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""DEL, C1, line separators, bidirectional overrides (they make a log lie on a terminal), surrogates."""
_UNSAFE = re.compile(rf'["\\\x00-\x1f{_BEYOND_ASCII}]')
_INVISIBLE = re.compile(rf"[\x00-\x1f{_BEYOND_ASCII}]")
"""Where nothing is quoted."""


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in '"\\':
        return "\\" + character
    number = ord(character)
    return {10: "\\n", 13: "\\r", 9: "\\t"}.get(number) or (
        f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    )


def escape(text: str) -> str:
    """`text` with control characters made visible: one line, whatever it holds."""
    return _UNSAFE.sub(_escape, text)


def visible(text: str) -> str:
    """As escape(), where quotes and backslashes mean nothing and stay as they are."""
    return _INVISIBLE.sub(_escape, text)


def _quoted(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{escape(text)}"'


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return ",".join([str(item) for item in value])
    return str(value)


def _logfmt_value(value: object) -> str:
    if isinstance(value, str):
        return value if value and not _needs_quotes(value) else _quoted(value)
    if type(value) is int:  # the most of what is no text; no bool
        return str(value)
    return _logfmt_value(_text(value))


def _words(head: Mapping[str, str], fields: Mapping[str, Any]) -> str:
    words = [f"{key}={value}" for key, value in head.items()]
    words += [f"{key}={_logfmt_value(value)}" for key, value in fields.items()]
    return " ".join(words)


def _logfmt(head: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
    return _words(head, fields).encode("utf-8", "backslashreplace") + b"\n"


_JSON_UNSAFE = re.compile(f"[{_BEYOND_ASCII}]")
_json_encoder = msgspec.json.Encoder()


def _json(head: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
    fields = {**head, **fields}
    try:
        line = _json_encoder.encode(fields)
    except (UnicodeEncodeError, TypeError):
        line = _json_encoder.encode({key: escape(str(value)) for key, value in fields.items()})
    if not line.isascii():
        # The encoder escapes C0 itself; what is left to escape is beyond ASCII.
        line = _JSON_UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", line.decode()).encode()
    return line + b"\n"


def _journal(head: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
    # The journal has the time itself, and the level as a priority.
    rest = dict(head)
    del rest["time"]
    level = rest.pop("level")
    told = rest | {key: visible(_text(value)) for key, value in fields.items()}
    return logjournal.record(level, _words(rest, fields), told)


_RENDERERS = {"logfmt": _logfmt, "json": _json, "journal": _journal}


def _shortened(value: object, room: int) -> object:
    if isinstance(value, str):
        return value if len(value) <= room else value[:room] + "…"
    if isinstance(value, list | tuple):
        kept = [_shortened(item, room) for item in value[: max(1, room // 64)]]
        return kept if len(kept) == len(value) else [*kept, f"… {len(value)} in all"]
    return value


class Renderer:
    """The processor at the end of structlog's chain: time, level and process in front, one bounded line.

    Of level, process and event nothing needs to be quoted.

    form      logfmt, json or journal
    stream    the lines go to the journal as text: each has its priority in front, which the journal takes off
              the line and shows by `journalctl -p` (sd-daemon(3))
    """

    def __init__(self, form: str, process: str = "", *, stream: bool = False) -> None:
        self._render = _RENDERERS[form]
        self._limit = MAX_RECORD_BYTES if form == "journal" else MAX_LINE_BYTES
        self.form = form
        self.process = process
        self.stream = stream
        self._second = 0
        self._stamp = ""

    def __call__(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> bytes:
        return self.line(level, event.pop("event"), event)

    def line(self, level: str, event: str, fields: Mapping[str, Any]) -> bytes:
        """One event, with its end of line; as a whole what one send takes."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second
        head = {"time": f"{self._stamp}{int((now - second) * 1000):03d}Z", "level": level}
        if self.process:
            head["process"] = self.process
        head["event"] = event
        line = self._render(head, fields)
        room = 2048
        while len(line) > self._limit and room:
            room //= 2
            line = self._render(head, {key: _shortened(value, room) for key, value in fields.items()})
        return b"<%d>%b" % (logjournal.PRIORITIES[level], line) if self.stream else line
