"""Chrome's trace event format, for Perfetto and speedscope. A session is a process, and a thread has tracks.

Times are microseconds since the first record: those since the epoch have too many digits for a JavaScript number, and
Perfetto drops negative ones. Spans of one thread that overlap without nesting get tracks of their own. Numbers are
counters, other marks are instants.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cirron_spool.text import iso_utc
from cirron_spool.traces.exports.rows import MarkRow, Rows, SpanRow
from cirron_spool.traces.lanes import Lanes
from cirron_spool.traces.records import encode
from cirron_spool.traces.sessions import Session

_FORMAT = "Trace Event Format"


def chrome_pieces(rows: Rows) -> Iterator[str]:
    """The document in pieces."""
    first = rows.first_ns()
    other = {"format": _FORMAT, "startNs": str(first), "start": iso_utc(first), "dir": str(rows.trace.path)}
    yield f'{{"displayTimeUnit":"ms","otherData":{encode(other)},"traceEvents":['
    before = "\n"
    for event in _events(rows, first):
        yield before + encode(event)
        before = ",\n"
    yield "]}\n"


def _events(rows: Rows, first: int) -> Iterator[dict[str, Any]]:
    tracks: _Tracks | None = None
    for span in rows.spans():
        if tracks is None or tracks.number != span.number:
            tracks = _Tracks(rows, span.number)
            yield from tracks.names()
        yield from tracks.place(span, first)
    for mark in rows.marks():
        yield _mark(mark, first)


class _Tracks:
    """The tracks of one session: their numbers, and the threads that they belong to."""

    def __init__(self, rows: Rows, number: int) -> None:
        self.number = number
        self._session: Session = rows.session(number)
        self._parents = rows.trace.found.parents
        self._lanes: dict[int | None, Lanes] = {}
        self._tracks: dict[tuple[int | None, int], int] = {}

    def names(self) -> Iterator[dict[str, Any]]:
        """The name of the process, and its position in the viewer."""
        session = self._session
        rank = "" if session.rank is None else f"rank {session.rank}, "
        pid = "" if session.pid is None else f"pid {session.pid}, "
        name = f"{rank}{pid}session {session.id[:8]}"
        yield _metadata("process_name", self.number, 0, {"name": name})
        yield _metadata("process_sort_index", self.number, 0, {"sort_index": self.number})

    def place(self, span: SpanRow, first: int) -> Iterator[dict[str, Any]]:
        """The event of a span, after the name of its track if that is new."""
        end = self._session.last_ns if span.end_ns is None else span.end_ns
        end = max(span.start_ns, end)
        lanes = self._lanes.setdefault(span.thread_id, Lanes())
        parent = self._parents[span.row]
        lane, _ = lanes.place(span.row, parent if parent > 0 else None, span.start_ns, end)
        track = self._tracks.get((span.thread_id, lane))
        if track is None:
            track = self._tracks[span.thread_id, lane] = len(self._tracks) + 1
            thread = "no thread" if span.thread_id is None else f"thread {span.thread_id}"
            name = thread if not lane else f"{thread} ({lane + 1})"
            yield _metadata("thread_name", self.number, track, {"name": name})
        arguments = {"id": span.id, "index": span.position, "open": span.end_ns is None, **span.more}
        yield {
            "ph": "X",
            "name": span.name,
            "cat": "span",
            "ts": (span.start_ns - first) / 1000,
            "dur": (end - span.start_ns) / 1000,
            "pid": self.number + 1,
            "tid": track,
            "args": {
                key: value for key, value in arguments.items() if value is not None and value is not False
            },
        }


def _mark(mark: MarkRow, first: int) -> dict[str, Any]:
    place = {"name": mark.name, "cat": "mark", "ts": (mark.ts_ns - first) / 1000, "pid": mark.number + 1}
    value = mark.value
    if isinstance(value, int | float) and not isinstance(value, bool) and mark.nonfinite is None:
        return {"ph": "C", **place, "args": {"value": value}}
    shown = mark.nonfinite if mark.nonfinite is not None else value
    return {"ph": "i", **place, "tid": 0, "s": "p", "args": {"value": shown, "span": mark.span_id}}


def _metadata(name: str, number: int, track: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": number + 1, "tid": track, "args": arguments}
