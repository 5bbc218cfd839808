"""How did one attack, or a test of the catalogue, go in one mode? A row of the table that __main__ prints."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Sequence

import pytest

from tests.escapes.attack import Attack, perform
from tests.escapes.catalogue import CATALOGUE
from tests.escapes.mutations import survives, switchable
from tests.escapes.tables import ATTACKS
from tests.support.sandboxes import MODES

BY_NAME = {attack.name: attack for attack in ATTACKS}


@dataclasses.dataclass(frozen=True, order=True)
class Row:
    """One attack in one mode."""

    number: int
    name: str
    mode: str
    by: str
    how: str
    stopped: bool


def tried(name: str, mode: str) -> Row:
    attack = BY_NAME[name]
    number = attack.numbers[0]
    if not attack.possible(mode):
        return Row(number, name, mode, "", _why_not(attack, mode), stopped=True)
    by = " or ".join(wall for wall in attack.by if wall in attack.stops(mode))
    try:
        return Row(number, name, mode, by, perform(attack, mode).how, stopped=True)
    except Exception as error:  # whatever it is, it is one row of the table
        return Row(number, name, mode, "", str(error).strip().splitlines()[-1], stopped=False)


def measured(name: str, mode: str) -> Row:
    row = tried(name, mode)
    attack = BY_NAME[name]
    if row.stopped and attack in switchable(mode):
        if survives(attack, mode) is not None:
            return dataclasses.replace(row, how=f"as well without {row.by}", stopped=False)
        return dataclasses.replace(row, by=f"{row.by} (measured)")
    return row


def _why_not(attack: Attack, mode: str) -> str:
    if attack.only:
        return "not tried: shows one wall, which this mode has not"
    return f"not tried: without {' and '.join(attack.by)} forkd refuses to start (sandbox.require)"


def tests(modes: Sequence[str]) -> Iterator[Row]:
    """The entries of the catalogue that are tests of their own, run by pytest, one row for each outcome."""
    numbers = {}
    for entry in CATALOGUE:
        for test in entry.tests:
            if "test_mutations.py" not in test:  # what they do is --measure
                numbers.setdefault(test, entry.number)
    seen: list[pytest.TestReport] = []

    class Collector:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                seen.append(report)

    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", *numbers], plugins=[Collector()])
    for report in seen:
        name, _, parameters = report.nodeid.partition("[")
        mode = next((mode for mode in MODES if mode in parameters.rstrip("]").split("-")), "")
        if mode and mode not in modes:
            continue
        how = "as its test asserts" if report.outcome == "passed" else f"{report.outcome}: {report.longrepr}"
        title = f"{numbers[name]} {name.rpartition('::')[2].removeprefix('test_').replace('_', ' ')}"
        stopped = report.outcome != "failed"
        yield Row(numbers[name], title, mode or "any", "see the test", how.splitlines()[-1], stopped)
