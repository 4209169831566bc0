"""The text format of Prometheus, written and read by prometheus-client. Imported only for metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from cirron_spool.telemetry.families import Family, Kind, Values

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Snapshot(Collector):
    """Values at one time. ``common`` are the labels of all metrics."""

    def __init__(self, values: Mapping[Family, Values], common: Mapping[str, str]) -> None:
        self._values = values
        self._common = common

    def collect(self) -> Iterator[Metric]:
        for family, values in self._values.items():
            labels = [*self._common, *filter(None, [family.label])]
            kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=labels)
            for label, value in values.items():
                own = [label] if family.label else []
                metric.add_metric([*self._common.values(), *own], value)
            yield metric


def _registry(values: Mapping[Family, Values], common: Mapping[str, str]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Snapshot(values, common))
    return registry


def text_of(values: Mapping[Family, Values]) -> str:
    """The text format."""
    text: str = generate_latest(_registry(values, {})).decode()
    return text


def write_file(path: str, values: Mapping[Family, Values], common: Mapping[str, str]) -> None:
    """Replace the file ``path`` in one step. Raises OSError."""
    write_to_textfile(path, _registry(values, common))


def read_values(
    text: str, families: Iterable[Family], common: Mapping[str, str]
) -> dict[Family, dict[str, float]]:
    """The values of ``families`` in ``text`` that have all ``common`` labels. Raises ValueError for an invalid text."""
    wanted = {family.name: family for family in families}
    found: dict[Family, dict[str, float]] = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            family = wanted.get(sample.name)
            if family is not None and common.items() <= sample.labels.items():
                found.setdefault(family, {})[sample.labels.get(family.label, "")] = sample.value
    return found
