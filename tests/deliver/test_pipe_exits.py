"""deliver/pipe_exits.py: what the end of a delivery program means, by table and by program."""

from __future__ import annotations

import os
import signal

import pytest

from forkd.deliver import pipe_exits
from forkd.deliver.pipe_exits import EXITS, MAX_SAID
from forkd.deliver.programs import Ending
from forkd.deliver.transport import Target
from tests.support import piping
from tests.support.piping import once
from tests.support.sandboxes import MODES, Stage, as_mode, stage

POSTFIX = {
    os.EX_USAGE: "5.3.0",
    os.EX_DATAERR: "5.6.0",
    os.EX_NOINPUT: "5.3.0",
    os.EX_NOUSER: "5.1.1",
    os.EX_NOHOST: "5.1.2",
    os.EX_UNAVAILABLE: "5.3.0",
    os.EX_SOFTWARE: "5.3.0",
    os.EX_OSERR: "4.3.0",
    os.EX_OSFILE: "5.3.0",
    os.EX_CANTCREAT: "5.2.0",
    os.EX_IOERR: "5.3.0",
    os.EX_TEMPFAIL: "4.3.0",
    os.EX_PROTOCOL: "5.5.0",
    os.EX_NOPERM: "5.7.0",
    os.EX_CONFIG: "5.3.5",
}
"""Postfix 3.7, global/sys_exits.c; the numbers are those of this system's sysexits.h."""


def meaning(ending: Ending, said: bytes = b"") -> tuple[str, str, str]:
    return pipe_exits.meaning(ending, said, timeout_s=3)


def test_the_table_is_postfix():
    """Who moves a program from there to here gets the same codes; class 5 is for good."""
    assert {number: EXITS[number][1] for number in POSTFIX} == POSTFIX
    for status, enhanced, _ in EXITS.values():
        assert status == ("failed" if enhanced.startswith("5") else "deferred")


def test_what_nobody_has_said_is_not_for_good():
    """Every other status, every signal: tried again (principle 5)."""
    for number in set(range(1, 256)) - set(EXITS):
        assert meaning(Ending(number))[:2] == ("deferred", "4.3.0")
    for number in signal.valid_signals():
        assert meaning(Ending(-number))[:2] == ("deferred", "4.3.0")
    assert meaning(Ending(-63))[2] == "killed by signal 63"
    assert meaning(Ending(late=True))[2] == "no end within 3 s: it was killed"
    assert meaning(Ending(error="no such file"))[:2] == ("deferred", "4.3.5")


@pytest.mark.parametrize(
    ("number", "said", "expected"),
    [
        (70, b"4.2.2 full\n", ("deferred", "4.2.2", "exit 70 (an error of its own): full")),
        (75, b"5.1.1 gone", ("failed", "5.1.1", "exit 75 (not now): gone")),
        (3, b" \n 5.7.1\n", ("failed", "5.7.1", "exit 3 (which sysexits.h does not know)")),
        (75, b"5.1.1x", ("deferred", "4.3.0", "exit 75 (not now): 5.1.1x")),
        (75, b"2.0.0 fine", ("deferred", "4.3.0", "exit 75 (not now): 2.0.0 fine")),
        (75, b"see 5.1.1 above", ("deferred", "4.3.0", "exit 75 (not now): see 5.1.1 above")),
        (0, b"5.1.1 gone", ("delivered", "2.0.0", "the program has it: 5.1.1 gone")),
    ],
    ids=["better", "worse", "alone", "longer", "success", "in the middle", "delivered"],
)
def test_a_code_in_front_of_its_words_counts(number: int, said: bytes, expected: tuple[str, str, str]):
    """As in pipe(8) of Postfix; of a delivery it is not looked for."""
    assert meaning(Ending(number), said) == expected


def test_what_it_says_is_one_printable_line():
    """Whatever it has in it: for a terminal, a log and a report."""
    said = b"a\x1b[31mb\r\nc\td\x00\xff\xe2\x80\xae" + "é".encode() + b"x" * 10_000
    text = pipe_exits.printable(said)
    assert text.startswith("a?[31mb c d?\N{REPLACEMENT CHARACTER}?éxxx")
    assert len(text) == MAX_SAID


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_program_that_ends_with_each_status(mode: str):
    """All 256, from a real program to what becomes of the mail."""

    def act(st: Stage) -> None:
        config = piping.script(st, 'exit "$1"', argv=("${user}",))
        targets = [Target(number, f"{number}@x", str(number), "x") for number in range(256)]
        results = once(config, st, targets=targets)
        for number, result in enumerate(results):
            assert (result.status, result.enhanced) == meaning(Ending(number))[:2], number
        assert [result.status for result in results].count("delivered") == 1

    def body() -> None:
        with stage(mode) as st:
            act(st)

    as_mode(mode, body)
