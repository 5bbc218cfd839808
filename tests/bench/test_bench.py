"""The benchmark itself: it drives servers, accounts for every message, ends all it started."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import bars, load, memory, report
from tests.bench.catalogue import FAULT_PEERS, WORKLOADS
from tests.bench.faults import Trip
from tests.bench.forkd import Forkd, ForkdFaults, ForkdIdle
from tests.bench.idle import Idle, Mail
from tests.bench.load import Run
from tests.bench.machine import NOT_IDLE
from tests.bench.peers import cache, setup
from tests.bench.peers.nodemailer import Nodemailer
from tests.bench.peers.postfix import Postfix
from tests.bench.peers.sink import SmtpSink
from tests.bench.results import Results
from tests.bench.run import PEER_FAULTS
from tests.bench.servers import Missing

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def run(**changed: object) -> Run:
    values: dict[str, object] = {
        "server": "forkd", "cell": "S=1", "sessions": 1, "messages": 10, "seconds": 1.0, "rate": 100.0,
        "cpu": 0.5, "client_cpu": 0.1, "quiet": True, "others": 0.0,
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


def test_a_server_driven_with_fewer_sessions_says_so() -> None:
    """OpenSMTPD loses connections beyond its backlog of 5: its figures are not those of the column's S."""
    runs = [run(sessions=20), run(server="peer", sessions=5)]
    text = report.throughput(runs, "forkd")
    assert row(text, "peer")[6] == "driven with 5 sessions"
    assert row(text, "forkd")[6] == ""


def aim(results: Results, what: str) -> bars.Row:
    return next(found for found in bars.rows(results) if found.what == what)


def accept_runs(cpu: dict[str, float], rate: dict[str, float]) -> Results:
    runs = [run(server=name, cell=str(load.MAIN), cpu=cpu[name], rate=rate[name]) for name in cpu]
    return Results(runs={"A": runs})


def test_bars_compare_within_the_run() -> None:
    """CPU below nodemailer's is the bar, 1.5 × smtp-sink's the goal; a rate of twice Postfix' another."""
    names = (Forkd.name, SmtpSink.name, Nodemailer.name, Postfix.name)
    cpu = dict(zip(names, (0.16, 0.1, 0.18, 0.6), strict=True))
    rate = dict(zip(names, (399.0, 900.0, 300.0, 200.0), strict=True))
    results = accept_runs(cpu, rate)
    found = aim(results, "A: CPU per message")
    assert found.goal is not None
    assert (found.bar.reached, found.goal.reached) == (True, False)
    assert aim(results, "A: rate").bar.reached is False


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    """A run of one workload says nothing about the others."""
    for found in bars.rows(Results()):
        assert found.bar.reached is None
        assert found.goal is None or found.goal.reached is None
    assert "missed" not in report.aims(Results())


@pytest.mark.parametrize(
    ("changed", "reached"),
    [
        ({}, True),
        ({"failed": 1}, False),
        ({"stalled": 1}, False),
        ({"offenders": ["RCPT: 250"]}, False),
        ({"after_ms": [1101.0]}, False),
    ],
)
def test_one_bystander_that_suffers_misses_the_bar(changed: dict[str, object], reached: bool) -> None:
    """D: no failure, no stall, and every offender has its 421 by deadline + 100 ms."""
    values: dict[str, object] = {"offenders": ["RCPT: 421"], "after_ms": [1099.0], **changed}
    trips = [Trip(ForkdFaults.name, "spin", count, **values) for count in (16, 200)]  # type: ignore[arg-type]
    found = aim(
        Results(trips=trips), f"D: none of the 20 suffers, offenders' 421 by deadline + {bars.LATE_MS} ms"
    )
    assert found.goal is not None
    assert found.bar.reached is found.goal.reached is reached


def test_idle_connections_are_judged_by_how_many_were_asked() -> None:
    """10,000 held say nothing about the goal of 20,000, but all about the bar."""
    before, mail = Mail([1.0, 2.0]), Mail([1.0, 2.5])
    idles = [Idle(ForkdIdle.name, 10_000, 10_000, 1.0, 7.0, 8.0, before, mail)]
    held, memory_each = (aim(Results(idles=idles), what) for what in ("E: held", "E: memory of one"))
    assert held.goal is not None
    assert (held.bar.reached, held.goal.reached) == (True, None)
    assert memory_each.bar.reached is True
    assert aim(Results(idles=idles), "E: p99 of real mail beside them").bar.reached is True


def test_the_full_form_is_bounded() -> None:
    """README promises 39 minutes at most, servers' starts aside."""
    assert sum(workload.budget_s for workload in WORKLOADS.values()) <= 39 * 60


def test_names_are_one_servers_alone() -> None:
    """Figures are kept by name: two servers of a workload under one name would be mixed."""
    for workload in WORKLOADS.values():
        names = [kind.name for kind in workload.servers]
        assert len(names) == len(set(names))
    assert {kind.name.replace(",", " ").split()[0] for kind in FAULT_PEERS} <= set(PEER_FAULTS)


def test_a_peer_that_is_not_there_is_missing_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the cache folder a server says how to get it; nothing is searched for elsewhere."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(Missing, match=re.escape(cache.SETUP)):
        cache.debian("usr", "sbin", "smtpd")
    assert cache.debian_version("opensmtpd") == cache.npm_version("haraka") == ""


def test_setup_goes_on_without_what_it_cannot_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One package that cannot be had costs its own server and no other."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "peers"))
    monkeypatch.setenv("PATH", str(programs))
    for name in ("apt-get", "dpkg", "npm", "node"):
        (programs / name).write_text("#!/bin/sh\necho E: no network >&2\nexit 100\n")
        (programs / name).chmod(0o755)
    said: list[str] = []
    missing = setup.setup(said.append)
    assert {"OpenSMTPD", "Exim", "qpsmtpd", "Haraka", "nodemailer smtp-server"} <= set(missing)
    assert any("no network" in line for line in said)


def test_memory_of_a_tree_counts_shared_pages_once() -> None:
    """PSS, not RSS: this process' own is above nothing and not above what it maps."""
    own = memory.pss_kib([os.getpid()])
    with Path("/proc/self/statm").open() as file:
        resident_kib = int(file.read().split()[1]) * memory.PAGE_KIB
    assert 0 < own <= resident_kib * 1.05


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
@pytest.mark.skipif(os.geteuid() != 0, reason="Postfix is started by root only")
def test_a_short_run_of_mail_that_leaves(open_folder: Path) -> None:
    """Both queues end up in the sink, whole, over one connection and over twenty."""
    if shutil.which("postconf", path="/usr/bin:/usr/sbin:/sbin") is None:
        pytest.skip("postfix is not installed")
    command = [sys.executable, "-m", "tests.bench.relay", "--messages", "50", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--dir", str(open_folder)],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("problem=''") == 4, done.stderr
    assert "–" not in row(done.stdout, "1") + row(done.stdout, "20")
    assert list(open_folder.iterdir()) == []


@pytest.mark.slow
def test_short_runs_of_accept_faults_and_idle(open_folder: Path) -> None:
    """forkd and smtp-sink, one column each: tables, every message counted, nothing left behind."""
    if shutil.which("smtp-source", path="/usr/bin:/usr/sbin:/sbin") is None:
        pytest.skip("smtp-source is not installed")
    results, paper = open_folder / "results.json", open_folder / "paper.md"
    command = [sys.executable, "-m", "tests.bench", "A", "D", "E", "M", "--quick", "--secs", "0.3"]
    command += ["--idle", "100", "--trips", "4", "--json", str(results), "--out", str(paper)]
    done = subprocess.run(
        [*command, "--only", "forkd", "smtp-sink", "--dir", str(open_folder)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert paper.read_text() == done.stdout
    assert row(done.stdout, "smtp-sink")[1] != report.NOTHING
    assert "counted by the server" in done.stdout
    assert "differs" not in done.stdout
    assert "100 of 100" in done.stdout
    assert "killed" not in done.stderr
    kinds = {json.loads(line)["kind"] for line in results.read_text().splitlines()}
    assert kinds == {"latency", "throughput", "fault", "kill", "idle", "memory"}
    assert sorted(open_folder.iterdir()) == [paper, results]
