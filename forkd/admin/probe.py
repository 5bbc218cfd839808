"""One probe: a session with a worker over run/probe.sock (forkd/probe). What is wrong, in one line.

A connection that was cut, or whose worker says that it stops, is made once more: a worker that is just
being replaced keeps no mail from being taken, and the next one serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from forkd.admin.readiness import Probed

DOMAIN: Final = "probe.invalid"
"""Nobody's (RFC 6761 6.4)."""
MAX_LINE_BYTES: Final = 4096
MAX_LINES: Final = 100
"""Of one reply: a greeting may have several (server.greeting)."""

Step = tuple[str, str, str]
"""A command (empty: none, the greeting), the code of its answer, what the answer's text has in it."""


def steps(word: str) -> Iterator[Step]:
    """The dialogue; `word` is what the plugin is to say."""
    yield "", "220", ""
    yield f"EHLO {DOMAIN}", "250", ""
    yield f"MAIL FROM:<{word}@{DOMAIN}>", "550", word
    yield "MAIL FROM:<>", "250", ""
    yield f"RCPT TO:<nobody@{DOMAIN}>", "550", ""
    yield "QUIT", "221", ""


class _Gone(Exception):  # noqa: N818 - a state of the world
    """The worker is, or says that it will be."""


async def probe(path: Path, timeout_s: float) -> Probed:
    """Try it; never raises. Blocks for `timeout_s` at most."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            try:
                problem = await _session(path)
            except _Gone:
                problem = await _session(path)
    except TimeoutError:
        problem = f"no answer within {timeout_s:g} s"
    except _Gone as why:
        problem = str(why)
    except OSError as error:
        problem = f"{path.name}: {error.strerror or error}"
    now = time.monotonic()
    return Probed(at=now, took_s=now - began, problem=problem)


async def _session(path: Path) -> str:
    """What is wrong; empty: nothing. Raises _Gone, OSError."""
    reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
    try:
        for command, code, text in steps(secrets.token_hex(8)):
            said = command.removesuffix(f" {DOMAIN}").partition(":")[0] or "greeting"
            if command:
                writer.write(f"{command}\r\n".encode("ascii"))
            try:
                reply = await _reply(reader)
            except (ConnectionError, EOFError):
                raise _Gone(f"{said}: the worker closed the connection") from None
            except ValueError:
                return f"{said}: the answer is no reply"
            if reply.startswith("421 4.3.2"):
                raise _Gone(f"{said}: {reply}")
            if not reply.startswith(code) or text not in reply:
                return _unexpected(said, reply, text)
        return ""
    finally:
        with contextlib.suppress(OSError):
            writer.close()


def _unexpected(said: str, reply: str, text: str) -> str:
    if text and reply.startswith("2"):
        return "the probe's plugin did not answer; the log says why (plugin_failure)"
    return f"{said}: {reply}"


async def _reply(reader: asyncio.StreamReader) -> str:
    """The last line of a reply. Raises EOFError, ConnectionError, ValueError: it is none."""
    for _ in range(MAX_LINES):
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        text = line.decode("utf-8", "replace").rstrip()
        if not text[:3].isdecimal() or text[3:4] not in ("", " ", "-"):
            raise ValueError(text)
        if text[3:4] != "-":
            return text
    raise ValueError("too many lines")
