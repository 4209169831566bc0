"""Spans, marks or snapshots as the rows of a table, for CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cirron_spool.traces.exports.rows import MarkRow, Rows, SnapshotRow, SpanRow
from cirron_spool.traces.records import encode
from cirron_spool.traces.tensor import STATISTICS, number_in

TABLES = ("spans", "marks", "snapshots")


class Column(NamedTuple):
    """A column: its name, and its type: text, whole or float."""

    name: str
    type: str


def _columns(text: str) -> tuple[Column, ...]:
    return tuple(Column(*word.split(":")) for word in text.split())


# ``more`` has all further fields as JSON, so nothing is lost.
COLUMNS = {
    "spans": _columns(
        "session_id:text id:text parent_id:text name:text index:whole start_ns:whole end_ns:whole duration_ns:whole "
        "pid:whole rank:whole thread_id:whole cpu_ns:whole gpu_ns:whole memory_peak_bytes:whole attrs:text more:text"
    ),
    "marks": _columns(
        "session_id:text id:text span_id:text name:text kind:text value_type:text value:float value_text:text "
        "ts_ns:whole attrs:text more:text"
    ),
    "snapshots": _columns(
        "session_id:text id:text span_id:text tensor_name:text ts_ns:whole shape:text dtype:text mode:text mean:float "
        "std:float min:float max:float norm:float histogram:text blob_uri:text more:text"
    ),
}


def table_rows(rows: Rows, table: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, in the order of its columns. Values are text, numbers or None; floats may be NaN."""
    if table == "spans":
        return (_span(rows, span) for span in rows.spans())
    if table == "marks":
        return (_mark(rows, mark) for mark in rows.marks())
    return (_snapshot(rows, snapshot) for snapshot in rows.snapshots())


def _span(rows: Rows, span: SpanRow) -> tuple[Any, ...]:
    more = dict(span.more)
    return (
        rows.session(span.number).id,
        *span[2:7],
        span.end_ns,
        span.duration_ns,
        *span[8:11],
        *(_whole(more, key) for key in ("cpu_ns", "gpu_ns", "memory_peak_bytes")),
        _json(more.pop("attrs", None)),
        _json(more),
    )


def _mark(rows: Rows, mark: MarkRow) -> tuple[Any, ...]:
    more = dict(mark.more)
    value, text = mark.value, None
    if isinstance(value, str):
        value, text = None, value
    elif isinstance(value, int) and int(float(value)) != value:  # no float holds it
        text = str(value)
    if mark.nonfinite is not None:
        value = float(mark.nonfinite)
    return (
        rows.session(mark.number).id,
        *mark[1:6],
        None if value is None else float(value),
        text,
        mark.ts_ns,
        _json(more.pop("attrs", None)),
        _json(more),
    )


def _snapshot(rows: Rows, snapshot: SnapshotRow) -> tuple[Any, ...]:
    more = dict(snapshot.more)
    found = more.get("stats")
    stats = dict(found) if isinstance(found, dict) else {}
    words = stats.get("nonfinite")
    odd = words if isinstance(words, dict) else {}
    numbers = [number_in(stats.pop(key, None), odd.get(key)) for key in STATISTICS]
    histogram = stats.pop("histogram", None)
    more["stats"] = stats if isinstance(found, dict) else found
    return (
        rows.session(snapshot.number).id,
        *snapshot[1:5],
        _json(more.pop("shape", None)),
        _text(more, "dtype"),
        _text(more, "mode"),
        *numbers,
        _json(histogram),
        _text(more, "blob_uri"),
        _json({key: value for key, value in more.items() if value}),
    )


def _whole(more: dict[str, Any], key: str) -> int | None:
    """Remove a whole number from ``more`` and return it. Any other value stays."""
    value = more.get(key)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        return None
    del more[key]
    return value


def _text(more: dict[str, Any], key: str) -> str | None:
    return more.pop(key) if isinstance(more.get(key), str) else None


def _json(value: object) -> str | None:
    return encode(value) if value else None
