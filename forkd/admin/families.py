"""How do sums become the text that Prometheus reads? By prometheus-client, which knows format and escapes.

Loaded when somebody first asks for /metrics (exposition.py): 15 ms of processor time and 60 modules that no
start and no other process needs. Of it this much is used; its own counters are not. What processes count
together it would keep in a file for each pid, which stays when the process has gone, and of which a worker
writes to mapped pages, so that its loop waits for the disk with them at times: slots of ours do neither
(forkd/metrics_slot.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from forkd.metrics import FAMILIES, Family, Labels

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Series = tuple[Labels, Sequence[float]]


def text(found: Mapping[tuple[Family, Labels], Sequence[float]]) -> bytes:
    """All families, also those of which there is nothing yet: rules and dashboards find their names."""
    return generate_latest(_Found(found))


class _Found:
    """prometheus_client.registry.Collector of what was found."""

    def __init__(self, found: Mapping[tuple[Family, Labels], Sequence[float]]) -> None:
        self._of: dict[Family, list[Series]] = {family: [] for family in FAMILIES.values()}
        for (family, labels), numbers in found.items():
            self._of[family].append((labels, numbers))

    def collect(self) -> Iterator[Metric]:
        for family, series in self._of.items():
            if not series and not family.labels and family.kind != "gauge":
                series.append(((), [0.0] * family.width))
            yield _metric(family, sorted(series))


def _metric(family: Family, series: Sequence[Series]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        bounds = [*map(floatToGoString, family.buckets), "+Inf"]
        for labels, numbers in series:
            counts = itertools.accumulate(numbers[:-1])
            histogram.add_metric(labels, list(zip(bounds, counts, strict=True)), numbers[-1])
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, numbers in series:
        metric.add_metric(labels, numbers[0])
    return metric
