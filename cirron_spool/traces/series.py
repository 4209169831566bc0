"""The marks of a session over time for a drawing. Each name is a series, thinned to the extremes of time intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cirron_spool.traces.exports.rows import MarkRow, Rows

# Most points of one series. Of a longer series, the lowest and the highest point of each interval stay.
MOST_POINTS = 2000
# Most series of one session. A run has tens.
MOST_SERIES = 200


@dataclass(slots=True)
class Series:
    """The marks of one name. ``points`` are (time, value), with times in ns since the session's start.

    ``marks`` counts all marks. ``odd`` counts those whose value is not a finite number.
    """

    name: str
    marks: int = 0
    odd: int = 0
    points: list[tuple[int, float]] = field(default_factory=list)
    parts: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, at: int, part: int, mark: MarkRow) -> None:
        """Add the next mark, in the time interval with the number ``part``."""
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
        """The series for the page. ``thinned`` is true if points are left out."""
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
    """The series of the session ``number`` by name, and the number of names left out."""
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
