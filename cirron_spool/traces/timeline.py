"""The spans of a session over time, for a drawing: the longest one by one, the others folded into stretches of time.

Spans of one thread that overlap without nesting get lanes of their own. Times are ns since the session's start.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

from cirron_spool.traces.exports.rows import Rows, SpanRow
from cirron_spool.traces.lanes import Lanes

# A browser draws so many bars at once without a delay that is felt.
MOST_BARS = 4000
# The others of one line are folded into at most so many stretches.
_STRETCHES = 200
# A time without any record is a gap from so many seconds, and from so large a part of the session.
_SHORTEST_GAP_NS = 2 * 10**9
_SMALLEST_PART = 100


@dataclass(slots=True)
class Line:
    """One line of the drawing: a thread, its lane, and a depth in it. Bars are (start, duration, name, index, open)."""

    thread: int | None
    lane: int
    depth: int
    bars: list[tuple[int, int, str, int | None, bool]] = field(default_factory=list)
    # By the number of a stretch: first start, last end, and how many spans.
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


@dataclass(slots=True)
class Timeline:
    """The lines of a session, by thread, lane and depth. ``gaps`` are times without any record: start and duration."""

    lines: list[Line]
    shown: int
    folded: int
    gaps: list[tuple[int, int]]


def draw(rows: Rows, number: int) -> Timeline:
    """The timeline of the session with that number, one of ``rows.chosen``."""
    session = rows.session(number)
    shortest = _shortest_shown(rows, number)
    length = max(1, session.duration_ns)
    lanes: dict[int | None, Lanes] = {}
    lines: dict[tuple[int | None, int, int], Line] = {}
    shown = folded = 0
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
        if took >= shortest:
            shown += 1
            line.bars.append((start, took, span.name, span.position, span.end_ns is None))
        else:
            folded += 1
            fold = line.folds.setdefault(start * _STRETCHES // length, [start, start, 0])
            fold[1], fold[2] = max(fold[1], start + took), fold[2] + 1
        if span.row != session.root:
            if span.start_ns - covered >= max(_SHORTEST_GAP_NS, length // _SMALLEST_PART):
                gaps.append((covered - session.start_ns, span.start_ns - covered))
            covered = max(covered, end)
    threads = list(lanes)  # the thread that began first is the first
    order = sorted(lines.values(), key=lambda line: (threads.index(line.thread), line.lane, line.depth))
    return Timeline(order, shown, folded, gaps)


def _shortest_shown(rows: Rows, number: int) -> int:
    """The duration of the shortest span that has a bar of its own."""
    last_ns = rows.session(number).last_ns
    durations = (_end(span, last_ns) - span.start_ns for span in rows.spans() if span.number == number)
    longest = heapq.nlargest(MOST_BARS + 1, durations)
    return 0 if len(longest) <= MOST_BARS else longest[-1] + 1


def _end(span: SpanRow, last_ns: int) -> int:
    return max(span.start_ns, last_ns if span.end_ns is None else span.end_ns)
