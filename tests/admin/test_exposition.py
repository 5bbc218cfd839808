"""What is said at /metrics, and the alerts on it, as promtool sees them."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd import metrics, metrics_slot
from forkd.admin import exposition, families
from forkd.admin.peers import Master
from forkd.metrics import FAMILIES
from forkd.metrics_slot import Slot

ROOT = Path(__file__).parent.parent.parent
WITHOUT = "import sys, forkd.admin.main; sys.exit('prometheus_client' in sys.modules)"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")


def promtool(*arguments: str, text: str = "") -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], input=text, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def everything() -> exposition.Found:
    """A series of each family, with values that have to be escaped."""
    found: exposition.Found = {}
    for family in FAMILIES.values():
        labels = tuple(f'"{name}"\n\\é' for name in family.labels)
        exposition.add(found, family, labels, [1.5] * family.width)
    return found


@needs_promtool
def test_promtool_has_nothing_to_say_of_any_metric():
    """Neither of the format nor of names, units and words."""
    promtool("check", "metrics", text=families.text(everything()).decode())


@needs_promtool
def test_promtool_takes_the_alert_rules():
    promtool("check", "rules", "etc/prometheus/forkd.rules.yml")


@needs_promtool
def test_alerts_fire_when_they_should_and_not_before():
    """promtool runs them over made-up series (tests/admin/rules.test.yml)."""
    promtool("test", "rules", "tests/admin/rules.test.yml")


def test_rules_name_metrics_that_there_are():
    """A metric that was renamed would make an alert silent for ever."""
    text = (ROOT / "etc/prometheus/forkd.rules.yml").read_text()
    named = set(re.findall(r"forkd_[a-z_]+", text))
    shown = {
        name
        for family in FAMILIES.values()
        for name in ((family.name, f"{family.name}_bucket") if family.buckets else (family.name,))
    }
    assert len(named) > 8
    assert named <= shown


def test_slots_add_up_and_buckets_are_cumulative():
    found: exposition.Found = {}
    for _ in range(2):
        exposition.add(found, metrics.REPLIES, ("250",), (2.0,))
        exposition.add(found, metrics.MESSAGE_SIZE, (), (1.0, 2.0, 0, 0, 0, 0, 3.0, 12345.0))
    lines = families.text(found).decode().splitlines()
    assert 'forkd_replies_total{code="250"} 4.0' in lines
    assert [line for line in lines if line.startswith("forkd_message_size_bytes")] == [
        'forkd_message_size_bytes_bucket{le="1000.0"} 2.0',
        'forkd_message_size_bytes_bucket{le="10000.0"} 6.0',
        'forkd_message_size_bytes_bucket{le="100000.0"} 6.0',
        *(f'forkd_message_size_bytes_bucket{{le="1e+0{n}"}} 6.0' for n in range(6, 9)),
        'forkd_message_size_bytes_bucket{le="+Inf"} 12.0',
        "forkd_message_size_bytes_count 12.0",
        "forkd_message_size_bytes_sum 24690.0",
    ]
    assert math.isclose(sum(found[metrics.MESSAGE_SIZE, ()][:-1]), 12)


def test_families_without_a_series_are_named_and_counters_begin_at_nothing():
    lines = families.text({}).decode().splitlines()
    assert "forkd_message_bytes_total 0.0" in lines
    assert "# TYPE forkd_plugin_calls_total counter" in lines
    assert not [line for line in lines if line.startswith("forkd_sessions ")]


class Slots:
    """Memory of processes, and what /metrics says of it; master is silent."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self._exposition: exposition.Exposition | None = None

    def process(self, name: str) -> Slot:
        """One that has just begun."""
        if name not in self.files:
            self.files[name] = metrics_slot.create(name)
        return Slot(self.files[name])

    def shown(self) -> list[str]:
        """Series alone."""
        if self._exposition is None:
            self._exposition = exposition.Exposition(self.files, Master(lambda _: False))
        text = asyncio.run(self._exposition.answer()).body.decode()
        return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots()
    yield made
    for fd in made.files.values():
        os.close(fd)


def test_a_process_tells_of_what_its_role_counts_alone(slots: Slots):
    """A worker that was taken over cannot say that master answers, that mail was lost, or what qmgr uses."""
    worker, qmgr, master = map(slots.process, ("worker.0", "qmgr.0", "master.0"))
    for each in (worker, qmgr):
        each.set(metrics.UP, 1.0)
        each.set(metrics.PROCESSES, 5.0, "qmgr", "running")
        each.add(metrics.DELIVERIES, "local", "failed")
        each.add(metrics.PROCESS_CPU, "qmgr", by=3)
        each.add(metrics.PROCESS_EVENTS, "worker", "killed")
        each.add(metrics.BUGS)
        each.beat()
    master.add(metrics.PROCESS_EVENTS, "worker", "killed")
    lines = slots.shown()
    assert "forkd_master_up 0.0" in lines
    assert not [line for line in lines if line.startswith("forkd_processes{")]
    assert 'forkd_deliveries_total{status="failed",transport="local"} 1.0' in lines
    assert 'forkd_process_cpu_seconds_total{role="qmgr"} 3.0' in lines
    assert 'forkd_process_events_total{act="killed",role="worker"} 1.0' in lines
    assert "forkd_bugs_total 2.0" in lines


def test_no_number_in_a_slot_keeps_the_others_from_being_told(slots: Slots):
    """The sum of two finite ones may be none."""
    for name in ("worker.0", "worker.1"):
        hostile = slots.process(name)
        hostile.observe(metrics.SESSION_SECONDS, 1.0)
        at = hostile.place(metrics.SESSION_SECONDS)
        hostile.numbers[at] = hostile.numbers[at + 1] = 1.7e308
    slots.process("worker.2").observe(metrics.SESSION_SECONDS, 1.0)
    assert "forkd_session_seconds_count 1.0" in slots.shown()


def test_series_are_not_made_without_end(slots: Slots, monkeypatch: pytest.MonkeyPatch):
    """Who stores what is scraped keeps each of them for weeks."""
    for at in range(3):
        hostile = slots.process("worker.0")
        for number in range(4000):
            hostile.add(metrics.REFUSALS, f"{at}:{number}", "500")
        slots.process("worker.1").add(metrics.REFUSALS, "RCPT", "550")
        lines = slots.shown()
        os.pwrite(slots.files["worker.0"], bytes(metrics_slot.HEAD), 0)
    assert len([line for line in lines if '"2:' in line]) == 0
    assert 'forkd_refusals_total{code="550",command="RCPT"} 3.0' in lines
    monkeypatch.setattr(metrics_slot, "MOST_LABEL", 5000)
    slots.process("worker.1").add(metrics.CONNECTIONS, "x" * 4000)
    monkeypatch.undo()
    assert not [line for line in slots.shown() if "xxx" in line]


def test_the_library_is_loaded_by_who_asks_and_no_earlier():
    """No start of the daemon pays for it."""
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, cwd=ROOT, timeout=60)
