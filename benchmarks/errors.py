"""The one error of the benchmarks: a line that says why there is no figure."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Nothing could be measured, or what was measured is not what was asked for."""
