"""The spans of a session over time for a drawing. The longest spans are bars; others are folded into intervals.

Spans of one thread that overlap without nesting get several lanes. Times are in ns since the session's start.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cirron_spool.traces.exports.rows import Rows, SpanRow
from cirron_spool.traces.lanes import Lanes

# Bars that a browser draws without a noticeable delay.
MOST_BARS = 4000
# Most intervals of folded spans in one line.
_STRETCHES = 200
# Most lines of a drawing. All further lines are folded into one.
MOST_LINES = 80
# Shortest gap without a record, in seconds and as a part of the session.
_SHORTEST_GAP_NS = 2 * 10**9
_SMALLEST_PART = 100


@dataclass(slots=True)
class Line:
    """One line of the drawing: a thread, its lane, and a depth in it. Bars are (start, duration, name, index, open)."""

    thread: int | None
    lane: int
    depth: int
    bars: list[tuple[int, int, str, int | None, bool]] = field(default_factory=list)
    # By the number of an interval: first start, last end, and count of the folded spans.
    folds: dict[int, list[int]] = field(default_factory=dict)

    def form(self) -> dict[str, Any]:
        """The line for the page."""
        return {
            "thread": None if self.thread is None else str(self.thread),
            "lane": self.lane,
            "depth": self.depth,
            "bars": self.bars,
            "folds": [fold for _, fold in sorted(self.folds.items())],
        }

    def fold(self, start: int, end: int, count: int, length: int) -> None:
        """Fold spans into the interval of ``start``. ``length`` is the duration of the session."""
        fold = self.folds.setdefault(start * _STRETCHES // length, [start, end, 0])
        fold[0], fold[1], fold[2] = min(fold[0], start), max(fold[1], end), fold[2] + count


@dataclass(slots=True)
class Timeline:
    """The lines of a session, by thread, lane and depth.

    ``gaps`` are the intervals without a record: start and duration. ``rest`` has the spans of ``rest_lines`` further
    lines.
    """

    lines: list[Line]
    shown: int
    folded: int
    gaps: list[tuple[int, int]]
    rest: Line
    rest_lines: int

    def form(self) -> dict[str, Any]:
        """The timeline for the page."""
        return {
            "lines": [line.form() for line in self.lines],
            "shown": self.shown,
            "folded": self.folded,
            "gaps": self.gaps,
            "rest": self.rest.form()["folds"],
            "restLines": self.rest_lines,
        }


def draw(rows: Rows, number: int) -> Timeline:
    """The timeline of the session ``number``, one of ``rows.chosen``."""
    session = rows.session(number)
    least, room = _limit(rows, number)
    length = max(1, session.duration_ns)
    lanes: dict[int | None, Lanes] = {}
    lines: dict[tuple[int | None, int, int], Line] = {}
    gaps: list[tuple[int, int]] = []
    covered = session.start_ns
    for span in rows.spans():
        if span.number != number:
            continue
        end = _end(span, session.last_ns)
        parent = rows.trace.found.parents[span.row]
        place = lanes.setdefault(span.thread_id, Lanes()).place(
            span.row, parent if parent > 0 else None, span.start_ns, end
        )
        line = lines.setdefault((span.thread_id, *place), Line(span.thread_id, *place))
        start, took = span.start_ns - session.start_ns, end - span.start_ns
        if took > least or (took == least and room):
            room -= took == least
            line.bars.append((start, took, span.name, span.position, span.end_ns is None))
        else:
            line.fold(start, start + took, 1, length)
        if span.row != session.root:
            if span.start_ns - covered >= max(_SHORTEST_GAP_NS, length // _SMALLEST_PART):
                gaps.append((covered - session.start_ns, span.start_ns - covered))
            covered = max(covered, end)
    first_seen = {thread: place for place, thread in enumerate(lanes)}  # in the order of their starts
    kept, rest = _cut(lines.values(), first_seen, length)
    kept.sort(key=lambda line: (first_seen[line.thread], line.lane, line.depth))
    shown = sum(len(line.bars) for line in kept)
    folded = sum(fold[2] for line in (*kept, rest) for fold in line.folds.values())
    return Timeline(kept, shown, folded, gaps, rest, len(lines) - len(kept))


def _cut(lines: Iterable[Line], first_seen: Mapping[int | None, int], length: int) -> tuple[list[Line], Line]:
    """The drawn lines, the topmost of each thread first, and one line with the spans of all others."""
    topmost = sorted(lines, key=lambda line: (line.lane + line.depth, first_seen[line.thread], line.lane))
    rest = Line(None, 0, 0)
    for line in topmost[MOST_LINES:]:
        for start, took, *_ in line.bars:
            rest.fold(start, start + took, 1, length)
        for start, end, number in line.folds.values():
            rest.fold(start, end, number, length)
    return topmost[:MOST_LINES], rest


def _limit(rows: Rows, number: int) -> tuple[int, int]:
    """The duration above which spans get their own bars, and the number of bars for spans of just that duration."""
    last_ns = rows.session(number).last_ns
    durations = (_end(span, last_ns) - span.start_ns for span in rows.spans() if span.number == number)
    longest = heapq.nlargest(MOST_BARS + 1, durations)
    if len(longest) <= MOST_BARS:
        return -1, 0
    least = longest[-1]
    return least, MOST_BARS - sum(duration > least for duration in longest)


def _end(span: SpanRow, last_ns: int) -> int:
    return max(span.start_ns, last_ns if span.end_ns is None else span.end_ns)
