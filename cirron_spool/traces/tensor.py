"""The statistics in the record of a tensor. A field of an unexpected type counts as absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from cirron_spool.traces.exports.rows import SnapshotRow

STATISTICS = ("mean", "std", "min", "max", "norm")
# The SDK's words for floats that JSON does not have.
_WORDS = ("nan", "inf", "-inf")


@dataclass(frozen=True, slots=True)
class TensorSnapshot:
    """One tensor at one time, in ns since the epoch.

    ``statistics`` has a float or None for each of :data:`STATISTICS`. A float may be NaN or infinite. ``counts`` and
    ``bins`` are the counts and edges of the histogram, both or none. There is one more edge than counts.
    """

    name: str
    span_id: str
    ts_ns: int
    shape: Sequence[int]
    dtype: str
    statistics: dict[str, float | None]
    counts: Sequence[float]
    bins: Sequence[float]

    def form(self) -> dict[str, Any]:
        """The tensor as ``traces snapshots --json`` has it. A float that is not finite becomes the SDK's word."""
        return {
            "tensor": self.name,
            "span": self.span_id,
            "timeNs": str(self.ts_ns),
            "shape": list(self.shape),
            "dtype": self.dtype,
            **{name: _as_json(value) for name, value in self.statistics.items()},
            "histogram": {"counts": list(self.counts), "bins": list(self.bins)} if self.counts else None,
        }


def read_tensor(row: SnapshotRow) -> TensorSnapshot:
    """The tensor in a record."""
    found = row.more.get("stats")
    stats = found if isinstance(found, dict) else {}
    words = stats.get("nonfinite")
    odd = words if isinstance(words, dict) else {}
    histogram = stats.get("histogram")
    histogram = histogram if isinstance(histogram, dict) else {}
    counts, bins = _numbers(histogram.get("counts")), _numbers(histogram.get("bins"))
    shape, dtype = row.more.get("shape"), row.more.get("dtype")
    return TensorSnapshot(
        row.tensor_name,
        row.span_id,
        row.ts_ns,
        [each for each in shape if type(each) is int] if isinstance(shape, list) else (),
        dtype if isinstance(dtype, str) else "",
        {name: number_in(stats.get(name), odd.get(name)) for name in STATISTICS},
        [max(0.0, each) for each in counts],
        bins,
    )


def number_in(value: object, word: object = None) -> float | None:
    """``value`` as a float, or the float that ``word`` names; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    return next((float(str(found)) for found in (value, word) if found in _WORDS), None)


def _numbers(values: object) -> list[float]:
    found = [number_in(each) for each in values] if isinstance(values, list) else []
    numbers = [each for each in found if each is not None and isfinite(each)]
    return numbers if len(numbers) == len(found) else []


def _as_json(value: float | None) -> float | str | None:
    return value if value is None or isfinite(value) else str(value)
