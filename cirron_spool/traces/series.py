"""The marks of a session over time, for a drawing: one series for each name, thinned without losing its extremes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cirron_spool.traces.exports.rows import MarkRow, Rows

# Most points of one series. Beyond it, the lowest and the highest of each part of the time stay.
MOST_POINTS = 2000
# Series of one session; a run has tens.
MOST_SERIES = 200


@dataclass(slots=True)
class Series:
    """The marks of one name. ``points`` are (time, value), times in ns since the session's start.

    ``marks`` counts all of them, ``odd`` those that are not finite or no number.
    """

    name: str
    marks: int = 0
    odd: int = 0
    points: list[tuple[int, float]] = field(default_factory=list)
    parts: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, at: int, part: int, mark: MarkRow) -> None:
        """Take in the next mark, in the part of the time with that number."""
        self.marks += 1
        value = mark.value
        if isinstance(value, bool) or not isinstance(value, int | float) or mark.nonfinite is not None:
            self.odd += 1
            return
        point = (at, float(value))
        if len(self.points) < MOST_POINTS:
            self.points.append(point)
        ends = self.parts.setdefault(part, [point, point])
        ends[0], ends[1] = min(ends[0], point, key=_value), max(ends[1], point, key=_value)

    def form(self) -> dict[str, Any]:
        """The series for the page; ``thinned`` says that points are left out."""
        thinned = self.marks - self.odd > MOST_POINTS
        points = self.points
        if thinned:
            points = sorted({point for ends in self.parts.values() for point in ends})
        return {
            "name": self.name,
            "marks": self.marks,
            "odd": self.odd,
            "thinned": thinned,
            "points": [list(point) for point in points],
        }


def _value(point: tuple[int, float]) -> float:
    return point[1]


def gather_series(rows: Rows, number: int) -> tuple[list[Series], int]:
    """The series of the session with that number, by name, and how many names were left out."""
    session = rows.session(number)
    length = max(1, session.duration_ns)
    series: dict[str, Series] = {}
    left_out: set[str] = set()
    for mark in rows.marks():
        if mark.number != number:
            continue
        if mark.name not in series and len(series) == MOST_SERIES:
            left_out.add(mark.name)
            continue
        at = mark.ts_ns - session.start_ns
        parts = MOST_POINTS // 2
        part = min(max(0, at * parts // length), parts - 1)  # a mark may lie outside its session
        series.setdefault(mark.name, Series(mark.name)).add(at, part, mark)
    return [series[name] for name in sorted(series)], len(left_out)
