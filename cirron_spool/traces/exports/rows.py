"""The records of chosen sessions for the exports, sorted and joined by the database."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cirron_spool.traces.marks import Value, typed
from cirron_spool.traces.sessions import Session
from cirron_spool.traces.trace import Trace


class SpanRow(NamedTuple):
    """A span with the ``number`` of its session, and its ``row``. ``more`` has the further fields."""

    number: int
    row: int
    id: str
    parent_id: str | None
    name: str
    position: int | None
    start_ns: int
    end_ns: int | None
    pid: int | None
    rank: int | None
    thread_id: int | None
    more: dict[str, Any]

    @property
    def duration_ns(self) -> int | None:
        """End minus start, never negative; None for an open span."""
        return None if self.end_ns is None else max(0, self.end_ns - self.start_ns)


class MarkRow(NamedTuple):
    """A mark with the ``number`` of its session."""

    number: int
    id: str
    span_id: str
    name: str
    kind: str
    value_type: str
    value: Value
    nonfinite: str | None
    ts_ns: int
    more: dict[str, Any]


class SnapshotRow(NamedTuple):
    """The record of a tensor with the ``number`` of its session."""

    number: int
    id: str
    span_id: str
    tensor_name: str
    ts_ns: int
    more: dict[str, Any]


class Rows:
    """The records of the ``chosen`` sessions, by their numbers."""

    def __init__(self, trace: Trace, chosen: Sequence[int]) -> None:
        self.trace = trace
        self.chosen = list(chosen)
        wanted = set(chosen)
        for table, of in (
            ("span", trace.found.of_span),
            ("mark", trace.found.of_mark),
            ("snapshot", trace.found.of_snapshot),
        ):
            # -1 for the records of other sessions.
            find = {number: number if number in wanted else -1 for number in range(-1, len(trace.sessions))}
            trace.connection.create_function(
                f"{table}_session", 1, lambda row, of=of, find=find: find[of[row]], deterministic=True
            )

        depths = _depths(trace.found.parents)
        trace.connection.create_function("span_depth", 1, depths.__getitem__, deterministic=True)

    def session(self, number: int) -> Session:
        """The session with this number."""
        return self.trace.sessions[number]

    def first_ns(self) -> int:
        """The earliest time of all records, or 0. A clock change can put it before the first session."""
        found = self.trace.connection.execute(
            "SELECT min(ns) FROM (SELECT min(start_ns) AS ns FROM span WHERE span_session(n) >= 0 "
            "UNION ALL SELECT min(ts_ns) FROM mark WHERE mark_session(n) >= 0)"
        ).fetchone()[0]
        return int(found or 0)

    def sdk_version(self, number: int) -> str:
        """The version of the SDK that wrote the session's first batch."""
        batch = min(self.trace.sessions[number].batches, default=0)
        found = self.trace.connection.execute(
            "SELECT sdk_version FROM batch WHERE n = ?", (batch,)
        ).fetchone()
        return str(found[0]) if found is not None else ""

    def spans(self) -> Iterator[SpanRow]:
        """The spans by session and start. A parent comes before a child with the same start and end."""
        for *fields, more in self.trace.connection.execute(
            "SELECT span_session(n) AS number, n, id, parent_id, name, idx, start_ns, end_ns, pid, rank, thread_id, "
            "more FROM span WHERE number >= 0 "
            "ORDER BY number, start_ns, coalesce(end_ns, 1 << 62) DESC, span_depth(n), n"
        ):
            yield SpanRow._make((*fields, _fields(more)))

    def marks(self) -> Iterator[MarkRow]:
        """The marks by session and time."""
        for fields in self.trace.connection.execute(
            "SELECT mark_session(n) AS number, id, span_id, name, kind, value_type, value, nonfinite, ts_ns, more "
            "FROM mark WHERE number >= 0 ORDER BY number, ts_ns, n"
        ):
            yield _mark(*fields)

    def marks_of(self, span: SpanRow) -> Iterator[MarkRow]:
        """The marks of a span by time. The root span also has the marks of missing spans."""
        for fields in self.trace.connection.execute(
            "SELECT ?, id, span_id, name, kind, value_type, value, nonfinite, ts_ns, more "
            "FROM mark WHERE span_id = ? ORDER BY ts_ns, n",
            (span.number, span.id),
        ):
            yield _mark(*fields)

    def lost_marks(self, number: int) -> Iterator[MarkRow]:
        """The marks of missing spans of a session, by time."""
        for fields in self.trace.connection.execute(
            "SELECT mark_session(n) AS number, id, span_id, name, kind, value_type, value, nonfinite, ts_ns, more "
            "FROM mark WHERE number = ? AND NOT EXISTS (SELECT 1 FROM span WHERE span.id = mark.span_id) "
            "ORDER BY ts_ns, n",
            (number,),
        ):
            yield _mark(*fields)

    def snapshots(self) -> Iterator[SnapshotRow]:
        """The records of tensors by session and time."""
        for *fields, more in self.trace.connection.execute(
            "SELECT snapshot_session(n) AS number, id, span_id, tensor_name, ts_ns, more "
            "FROM snapshot WHERE number >= 0 ORDER BY number, ts_ns, n"
        ):
            yield SnapshotRow._make((*fields, _fields(more)))


def _depths(parents: array[int]) -> array[int]:
    """The number of ancestors of each span. ``parents`` has no cycle."""
    depths = array("i", [-1]) * len(parents)
    for start in range(len(parents)):
        line = []
        row = start
        while row > 0 and depths[row] < 0:
            line.append(row)
            row = parents[row]
        depth = depths[row] if row > 0 else -1
        for each in reversed(line):
            depth += 1
            depths[each] = depth
    return depths


def _mark(
    number: int,
    id_: str,
    span_id: str,
    name: str,
    kind: str,
    value_type: str,
    value: Value,
    nonfinite: str | None,
    ts_ns: int,
    more: str,
) -> MarkRow:
    value = typed(value, value_type)
    return MarkRow(number, id_, span_id, name, kind, value_type, value, nonfinite, ts_ns, _fields(more))


def _fields(more: str) -> dict[str, Any]:
    return json.loads(more) if more else {}
