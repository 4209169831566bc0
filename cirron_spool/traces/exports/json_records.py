"""One JSON document with all records, with the keys of the SDK's spool format. Each record is a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cirron_spool.traces.exports.rows import MarkRow, Rows, SnapshotRow, SpanRow
from cirron_spool.traces.forms import session_form
from cirron_spool.traces.records import encode


def json_pieces(rows: Rows) -> Iterator[str]:
    """The document in pieces."""
    yield f'{{"dir": {encode(str(rows.trace.path))},\n"sessions": ['
    yield from _list(session_form(rows.session(number)) for number in rows.chosen)
    for name, records in (
        ("spans", (span_record(rows, span) for span in rows.spans())),
        ("marks", (mark_record(rows, mark) for mark in rows.marks())),
        ("snapshots", (snapshot_record(rows, snapshot) for snapshot in rows.snapshots())),
    ):
        yield f'],\n"{name}": ['
        yield from _list(records)
    yield "]}\n"


def _list(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    before = "\n"
    for record in records:
        yield before + encode(record)
        before = ",\n"


def span_record(rows: Rows, span: SpanRow) -> dict[str, Any]:
    """A span as the SDK writes it, with its session and its duration."""
    own = {
        "session_id": rows.session(span.number).id,
        "id": span.id,
        "parent_id": span.parent_id,
        "name": span.name,
        "index": span.position,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "duration_ns": span.duration_ns,
        "pid": span.pid,
        "rank": span.rank,
        "thread_id": span.thread_id,
    }
    return own | {key: value for key, value in span.more.items() if key not in own}


def mark_record(rows: Rows, mark: MarkRow) -> dict[str, Any]:
    """A mark as the SDK writes it, with its session."""
    own = {
        "session_id": rows.session(mark.number).id,
        "id": mark.id,
        "span_id": mark.span_id,
        "name": mark.name,
        "kind": mark.kind,
        "value_type": mark.value_type,
        "value": mark.value,
        "ts_ns": mark.ts_ns,
    }
    if mark.nonfinite is not None:
        own["value_nonfinite"] = mark.nonfinite
    return own | {key: value for key, value in mark.more.items() if key not in own}


def snapshot_record(rows: Rows, snapshot: SnapshotRow) -> dict[str, Any]:
    """The record of a tensor as the SDK writes it, with its session."""
    own = {
        "session_id": rows.session(snapshot.number).id,
        "id": snapshot.id,
        "span_id": snapshot.span_id,
        "tensor_name": snapshot.tensor_name,
        "ts_ns": snapshot.ts_ns,
    }
    return own | {key: value for key, value in snapshot.more.items() if key not in own}
