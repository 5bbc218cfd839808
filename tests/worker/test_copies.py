"""The sealed copy of a message that plugins read."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from forkd.rpc.calls import Overloaded
from forkd.worker.copies import CopyBudget, MessageCopies

MESSAGE = b"Subject: x\r\n\r\nbody of the message\r\n"
HEADER = 14


def copies(budget: CopyBudget, pieces: int = 3) -> MessageCopies:
    step = len(MESSAGE) // pieces + 1
    return MessageCopies(
        budget,
        size=len(MESSAGE),
        header_size=HEADER,
        read=lambda: [MESSAGE[i : i + step] for i in range(0, len(MESSAGE), step)],
    )


def test_the_copy_is_the_message():
    made = copies(CopyBudget(1000))
    fd = made.full_fd()
    assert os.pread(fd, 1000, 0) == MESSAGE
    made.close()


def test_a_plugin_without_the_body_gets_the_header_alone():
    made = copies(CopyBudget(1000))
    fd = made.headers_fd()
    assert os.pread(fd, 1000, 0) == MESSAGE[:HEADER]
    made.close()


def test_each_copy_is_made_once():
    made = copies(CopyBudget(1000))
    assert made.full_fd() == made.full_fd()
    assert made.full_fd() != made.headers_fd()
    made.close()


@pytest.mark.parametrize(
    "act",
    [
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 0),
        lambda fd: os.ftruncate(fd, 1000),
        lambda fd: mmap.mmap(fd, 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    ],
    ids=["write", "shrink", "grow", "map for writing"],
)
def test_a_copy_cannot_be_changed(act):
    """memfd_create(2), seals: whoever holds it may only read."""
    made = copies(CopyBudget(1000))
    with pytest.raises(OSError) as caught:
        act(made.full_fd())
    assert caught.value.errno == errno.EPERM
    made.close()


def test_the_budget_is_over_all_messages_and_comes_back():
    budget = CopyBudget(len(MESSAGE) + 5)
    first = copies(budget)
    first.full_fd()
    second = copies(budget)
    with pytest.raises(Overloaded):
        second.full_fd()
    second.close()
    first.close()
    third = copies(budget)
    third.full_fd()
    third.close()


def test_closing_twice_gives_back_once():
    budget = CopyBudget(len(MESSAGE))
    made = copies(budget)
    made.full_fd()
    made.close()
    made.close()
    again = copies(budget)
    again.full_fd()
    with pytest.raises(Overloaded):
        budget.take(1)
    again.close()
