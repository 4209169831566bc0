"""The goals of the project: the name of a figure, and its limit. Commands record figures under these names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import report
from benchmarks.compare import STRATEGIES

# An asterisk stands for the strategy of disk work: the first limit is for "thread", the second for "inline".
_TABLE = """
throughput typical 0ms *: times floor               <=  2.3   1.8
throughput tiny 0ms *: times floor                  <=  1.7   1.3
throughput typical 1ms *: times floor               <=  1.05  1.05
throughput tiny 1ms *: times floor                  <=  1.05  1.05
throughput typical 20ms *: times floor              <=  1.01  1.01
throughput tiny 20ms *: times floor                 <=  1.01  1.01
throughput typical 0ms *: times as fast as node     >=  8     8
throughput tiny 0ms *: times as fast as node        >=  6     6
throughput big 0ms *: times as fast as node         >=  10    10
throughput huge 0ms *: times as fast as node        >=  8     8
throughput typical 0ms *: times CPU of node         <=  0.25  0.25
throughput tiny 0ms *: times CPU of node            <=  0.25  0.25
throughput big 0ms *: times CPU of node             <=  0.25  0.25
throughput huge 0ms *: times CPU of node            <=  0.25  0.25
memory 1,000 typical *: peak MB                     <=  48    48
memory 20,000 typical *: peak MB                    <=  48    48
memory 100,000 typical *: MB above 1,000 typical    <=  40    40
memory 1 of 300 MB *: peak MB                       <=  64    64
memory 10 of 100 MB *: peak MB                      <=  64    64
window typical 50ms * 8 in flight: times as fast    >=  7.5   7.5
window tiny 50ms * 8 in flight: times as fast       >=  7.5   7.5
window typical 50ms * 16 in flight: times as fast   >=  14    14
window tiny 50ms * 16 in flight: times as fast      >=  14    14
lateness typical: 99th percentile ms                <=  2.5
lateness typical: worst ms                          <=  8
lateness big: 99th percentile ms                    <=  2.5
lateness big: worst ms                              <=  8
lateness huge: 99th percentile ms                   <=  2.5
lateness huge: worst ms                             <=  8
lateness typical first flush: worst ms              <=  20
many 20ms 8 at once: times as fast                  >=  7
many discovery: times os.walk                       <=  1.5
many archive: peak MB                               <=  100
watch idle with notices: % of a core                <=  0.5
watch idle by polling: % of a core                  <=  0.5
watch delay: worst s                                <=  2
watch week: descriptors more                        <=  0
watch week: threads more                            <=  0
watch week: MB more                                 <=  2
watch week: times CPU                               <=  1.25
startup inspect: times node -e 0                    <=  2
startup listing: times a bare listing               <=  2
startup listing: times memory of node               <=  0.2
"""


@dataclass(frozen=True)
class Goal:
    """The limit of a figure: an upper one, or a lower one."""

    figure: str
    limit: float
    upper: bool

    def reached(self, value: float) -> bool:
        """Whether ``value`` is within the limit."""
        return value <= self.limit if self.upper else value >= self.limit


def _parse(table: str) -> Iterator[Goal]:
    for name, sign, limits in re.findall(r"(.+?) +([<>]=) +(.+)", table):
        for strategy, limit in zip(STRATEGIES, limits.split(), strict=False):
            yield Goal(name.replace("*", strategy), float(limit), sign == "<=")


GOALS = tuple(_parse(_TABLE))


def judge(figures: Mapping[str, float], *, missing: bool = False) -> list[dict[str, Any]]:
    """Each goal with its value and ``passed``. With ``missing``, also the goals without a figure, with None."""
    return [
        {
            "goal": goal.figure,
            "limit": goal.limit,
            "upper": goal.upper,
            "value": value,
            "passed": None if value is None else goal.reached(value),
        }
        for goal in GOALS
        if (value := figures.get(goal.figure)) is not None or missing
    ]


def as_text(judged: list[dict[str, Any]]) -> str:
    """The goals as a table, with ``pass``, ``FAIL`` or ``not measured``."""
    rows = [["goal", "limit", "measured", ""]]
    for each in judged:
        value = each["value"]
        verdict = {None: "not measured", True: "pass", False: "FAIL"}[each["passed"]]
        measured = "-" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"
        rows.append([each["goal"], f"{'<=' if each['upper'] else '>='} {each['limit']:g}", measured, verdict])
    passed = sum(each["passed"] is True for each in judged)
    return f"\n{report.table(rows)}\n{passed} of {len(judged)} goals passed" if judged else ""
