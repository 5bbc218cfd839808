"""forkd/master/output.py: what a zygote prints costs master little, however much it is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from forkd.master.output import BURST_BYTES, PAUSE_S, Output


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_who_prints_more_than_his_share_is_not_read_for_a_while(pipe: tuple[int, int]):
    """Master would else spend its processor on throwing it away; the writer loses it in a full pipe."""
    reader, writer = pipe
    output = Output(reader, plugin="p", pid=1, now=100.0)
    os.write(writer, b"x" * (BURST_BYTES + 1))
    assert output.read(100.0)
    assert output.resume_at == 100.0 + PAUSE_S
    assert not output.resumes(100.0)
    assert output.resumes(100.0 + PAUSE_S)
    assert not output.resumes(100.0 + PAUSE_S), "said once"


def test_who_prints_his_share_is_read_on(pipe: tuple[int, int]):
    """A traceback is no flood."""
    reader, writer = pipe
    output = Output(reader, plugin="p", pid=1, now=100.0)
    for second in range(10):
        os.write(writer, b"x" * 2000)
        assert output.read(100.0 + second)
    assert output.resume_at is None
