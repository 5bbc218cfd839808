"""What is said at /metrics, and the alerts on it, as promtool sees them."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forkd import metrics
from forkd.admin import exposition, families
from forkd.metrics import FAMILIES

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


def test_the_library_is_loaded_by_who_asks_and_no_earlier():
    """No start of the daemon pays for it."""
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, cwd=ROOT, timeout=60)
