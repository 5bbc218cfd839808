"""What does a probe make of what a worker says? Against a scripted one on a socket (admin/probe.py)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forkd.admin.probe import probe
from forkd.admin.readiness import Probed

GREETING, EHLO, WORD, NULL, RCPT, BYE = (
    "220 mx ESMTP", "250-mx\r\n250 SIZE", "550 5.7.1 {word}", "250 2.1.0 ok", "550 5.7.1 no", "221 2.0.0 bye"
)  # fmt: skip
GOOD = (GREETING, EHLO, WORD, NULL, RCPT, BYE)
CUT = "cut"
SILENT = "silent"


def probed(tmp_path: Path, *sessions: tuple[str, ...], timeout_s: float = 20.0) -> Probed:
    """A probe of a worker that says these replies, in one session after the other."""
    path = tmp_path / "probe.sock"
    waiting = list(sessions)
    serving = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        word = ""
        for reply in waiting.pop(0):
            if reply == SILENT:
                await reader.read()
            if reply in (CUT, SILENT):
                break
            writer.write(f"{reply.format(word=word)}\r\n".encode())
            word = (await reader.readline()).decode().partition("<")[2].partition("@")[0]
        writer.close()
        await writer.wait_closed()

    async def run() -> Probed:
        async with await asyncio.start_unix_server(serve, path):
            found = await probe(path, timeout_s)
            await asyncio.gather(*serving, return_exceptions=True)
            return found

    return asyncio.run(run())


def test_the_whole_dialogue_as_it_should_be_is_no_problem(tmp_path):
    """Replies of several lines too."""
    found = probed(tmp_path, GOOD)
    assert found.problem == ""
    assert found.took_s > 0


@pytest.mark.parametrize(
    ("replies", "problem"),
    [
        (("421 4.3.0 later",), "greeting: 421 4.3.0 later"),
        ((GREETING, EHLO, "451 4.3.2 Too busy"), "MAIL FROM: 451 4.3.2 Too busy"),
        ((GREETING, EHLO, "452 4.3.1 No space"), "MAIL FROM: 452 4.3.1 No space"),
        ((GREETING, EHLO, "550 5.7.1 another"), "MAIL FROM: 550 5.7.1 another"),
        ((GREETING, EHLO, "250 2.1.0 ok"), "the probe's plugin did not answer; the log says why"),
        ((GREETING, EHLO, WORD, NULL, "250 2.1.5 ok"), "RCPT TO: 250 2.1.5 ok"),
        (("HTTP/1.1 400 Bad Request",), "greeting: the answer is no reply"),
        (("2" * 10_000,), "greeting: the answer is no reply"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(tmp_path, replies, problem):
    """The command, and what came; no more is said in that session."""
    assert probed(tmp_path, replies).problem.startswith(problem)


@pytest.mark.parametrize(
    "gone", [(CUT,), (GREETING, EHLO, CUT), (GREETING, "421 4.3.2 Service shutting down")]
)
def test_a_worker_that_goes_away_is_no_problem_where_another_serves(tmp_path, gone):
    """It is being replaced: once more, and if that fails too, that is said."""
    assert probed(tmp_path, gone, GOOD).problem == ""
    assert probed(tmp_path, gone, gone).problem.partition(":")[0] in ("greeting", "MAIL FROM", "EHLO")


def test_silence_is_a_problem_after_the_time(tmp_path):
    """A worker that does not answer holds nobody for longer than probe.timeout."""
    assert probed(tmp_path, (GREETING, SILENT), timeout_s=0.05).problem == "no answer within 0.05 s"


def test_no_socket_is_a_problem(tmp_path):
    """Never an exception: whoever asks is to be told."""
    problem = asyncio.run(probe(tmp_path / "probe.sock", 5.0)).problem
    assert problem == "probe.sock: No such file or directory"
