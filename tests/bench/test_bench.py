"""The benchmark itself: it drives servers, accounts for every message, ends all it started."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.load import Run
from tests.bench.machine import NOT_IDLE

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def run(**changed: object) -> Run:
    values: dict[str, object] = {
        "server": "forkd", "cell": "S=1", "messages": 10, "seconds": 1.0, "rate": 100.0, "cpu": 0.5,
        "client_cpu": 0.1, "quiet": True, "others": 0.0,
    }  # fmt: skip
    return Run(**(values | changed))  # type: ignore[arg-type]


def row(text: str, server: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {server} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_above_one_are_in_forkds_favour() -> None:
    """Both ratios read the same way: forkd's rate over the peer's, the peer's CPU over forkd's."""
    runs = [run(), run(server="peer", rate=50.0, cpu=2.0)]
    assert row(report.throughput(runs, "forkd"), "peer")[3:5] == ["2.00", "4.00"]


def test_a_failed_run_is_told_and_not_counted() -> None:
    """A rate in which messages were refused would be no rate."""
    runs = [run(), run(rate=1.0, problem="421 no")]
    cells = row(report.throughput(runs, "forkd"), "forkd")
    assert cells[1] == "100 / **100** / 100"
    assert cells[6] == "1 of 2 failed: 421 no"


@pytest.mark.parametrize(("share", "idle"), [(NOT_IDLE / 2, True), (NOT_IDLE * 2, False)])
def test_a_busy_machine_is_told(share: float, idle: bool) -> None:
    """Figures from a machine that others used say so."""
    assert ("not idle" in report.idleness([share])) is not idle


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Unlike tmp_path one that everybody may enter: servers started by root drop to other users."""
    with tempfile.TemporaryDirectory(prefix="forkd-bench-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.slow
def test_one_short_run_of_accept_and_discard(open_folder: Path) -> None:
    """forkd and smtp-sink, one column: a table, every message counted, nothing left behind."""
    if shutil.which("smtp-source", path="/usr/bin:/usr/sbin:/sbin") is None:
        pytest.skip("smtp-source is not installed")
    results = open_folder / "results.json"
    command = [sys.executable, "-m", "tests.bench", "A", "--quick", "--repeats", "1", "--secs", "0.3"]
    done = subprocess.run(
        [*command, "--only", "forkd", "smtp-sink", "--json", str(results), "--dir", str(open_folder)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "smtp-sink")[6] == row(done.stdout, "forkd")[6] == ""
    assert "counted by the server" in done.stdout
    assert "differs" not in done.stdout
    assert "killed" not in done.stderr
    kinds = [json.loads(line)["kind"] for line in results.read_text().splitlines()]
    assert sorted(kinds) == ["latency", "latency", "throughput", "throughput"]
    assert list(open_folder.iterdir()) == [results]
