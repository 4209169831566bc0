"""Count, total, median and percentile of durations. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Statistics(NamedTuple):
    """The statistics of ``number`` durations in ns. All are 0 without durations.

    An even number has the mean of the middle two as ``median``, rounded down. ``p95`` is by nearest rank.
    """

    number: int
    total: int
    median: int
    p95: int
    least: int
    most: int


def summarize(durations: Iterable[int]) -> Statistics:
    """The statistics of ``durations``."""
    ordered = sorted(durations)
    number = len(ordered)
    if not number:
        return Statistics(0, 0, 0, 0, 0, 0)
    median = (ordered[(number - 1) // 2] + ordered[number // 2]) // 2
    return Statistics(
        number, sum(ordered), median, ordered[-(-number * 95 // 100) - 1], ordered[0], ordered[-1]
    )
