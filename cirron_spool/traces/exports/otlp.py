"""OTLP JSON: one ``TracesData`` of the OpenTelemetry protocol on one line, with a resource for each session.

Marks are events of their span. A circle of parents is cut, as in the tree. OTLP identifiers have 16 and 8 bytes. An
identifier of another form is hashed, and the attribute ``cirron.id`` has it. Times and whole numbers are texts, as
protobuf's JSON has them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

from cirron_spool.traces.exports.rows import MarkRow, Rows, SpanRow
from cirron_spool.traces.records import encode
from cirron_spool.traces.sessions import LOOP, SESSION, Session

_INTERNAL = 1  # SpanKind internal: the span is within one process
_NO_SPANS: tuple[int, Iterator[SpanRow]] = (-1, iter(()))
# Protobuf's readers refuse a hundred levels. Attributes have far fewer.
_DEEPEST = 20


def otlp_pieces(rows: Rows) -> Iterator[str]:
    """The document in pieces."""
    yield '{"resourceSpans":['
    before = ""
    groups = groupby(rows.spans(), key=attrgetter("number"))
    number, own = next(groups, _NO_SPANS)
    for chosen in rows.chosen:
        spans = _spans(rows, chosen, own if number == chosen else iter(()))
        for place, span in enumerate(spans):
            if not place:
                yield before
                yield from _begin(rows, chosen)
            yield ("," if place else "") + encode(span)
            before = "]}]},"
        if number == chosen:
            number, own = next(groups, _NO_SPANS)
    yield f"{before.removesuffix(',')}]}}\n"


def _spans(rows: Rows, number: int, own: Iterator[SpanRow]) -> Iterator[dict[str, Any]]:
    """The spans of a session. The first one also has the marks of missing spans."""
    session = rows.session(number)
    found = rows.trace.found
    lost: tuple[MarkRow, ...] = tuple(rows.lost_marks(number))
    for span in own:
        parent = found.parents[span.row]
        # A trace is one session. A missing parent may come in a later batch.
        is_cut = parent == LOOP or (parent > 0 and found.of_span[parent] != number)
        yield _span(session, span, None if is_cut else span.parent_id, (*rows.marks_of(span), *lost))
        lost = ()
    if lost:
        yield _stand_in(session, lost)


def _begin(rows: Rows, number: int) -> Iterator[str]:
    session, version = rows.session(number), rows.sdk_version(number)
    resource = {
        "service.name": "cirron",
        "telemetry.sdk.name": "cirron",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": version,
        "process.pid": session.pid,
        "cirron.rank": session.rank,
        "cirron.session": session.id,
    }
    yield f'{{"resource":{encode({"attributes": _attributes(resource)})},"scopeSpans":[{{"scope":'
    yield f'{encode({"name": "cirron", "version": version})},"spans":['


def _span(session: Session, span: SpanRow, parent_id: str | None, marks: Iterable[MarkRow]) -> dict[str, Any]:
    more = dict(span.more)
    found = more.pop("attrs", None)
    attributes = dict(found) if isinstance(found, dict) else {}
    span_id = _hex(span.id, 8)
    attributes |= {"thread.id": span.thread_id, "cirron.index": span.position}
    attributes |= {f"cirron.{key}": value for key, value in more.items()}
    if span_id != span.id:
        attributes["cirron.id"] = span.id
    end = span.end_ns
    if end is None:
        attributes["cirron.open"] = True
        end = session.last_ns
    form: dict[str, Any] = {
        "traceId": _hex(session.id, 16),
        "spanId": span_id,
        "name": span.name,
        "kind": _INTERNAL,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(max(span.start_ns, end)),
        "attributes": _attributes(attributes),
        "events": [_event(mark) for mark in marks],
    }
    if parent_id is not None:
        form["parentSpanId"] = _hex(parent_id, 8)
    return form


def _stand_in(session: Session, marks: Iterable[MarkRow]) -> dict[str, Any]:
    """The root span of a session without any span: OTLP has no other place for its marks."""
    return {
        "traceId": _hex(session.id, 16),
        "spanId": _hex(session.id, 8),
        "name": SESSION,
        "kind": _INTERNAL,
        "startTimeUnixNano": str(session.start_ns),
        "endTimeUnixNano": str(max(session.start_ns, session.last_ns)),
        "attributes": _attributes({"cirron.id": session.id, "cirron.missing": True}),
        "events": [_event(mark) for mark in marks],
    }


def _event(mark: MarkRow) -> dict[str, Any]:
    more = dict(mark.more)
    found = more.pop("attrs", None)
    attributes = dict(found) if isinstance(found, dict) else {}
    # A float that is not finite becomes the SDK's word, since not every reader accepts NaN.
    attributes |= {"value": mark.value if mark.nonfinite is None else mark.nonfinite, "kind": mark.kind}
    attributes |= {f"cirron.{key}": value for key, value in more.items()}
    return {"timeUnixNano": str(mark.ts_ns), "name": mark.name, "attributes": _attributes(attributes)}


def _hex(identifier: str, size: int) -> str:
    """The identifier as ``size`` bytes in lower-case hex digits. An identifier of another form is hashed."""
    if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", identifier) and identifier.strip("0"):
        return identifier
    return hashlib.sha256(identifier.encode()).hexdigest()[: 2 * size]


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any(value)} for key, value in values.items() if value is not None and key]


def _any(value: Any, depth: int = 0) -> dict[str, Any]:
    """An ``AnyValue``. Integers beyond 64 bits, and values that are nested too deep, become strings."""
    match value:
        case bool():
            return {"boolValue": value}
        case int() if -(2**63) <= value < 2**63:
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case list() if depth < _DEEPEST:
            return {"arrayValue": {"values": [_any(each, depth + 1) for each in value]}}
        case dict() if depth < _DEEPEST:
            pairs = [{"key": key, "value": _any(each, depth + 1)} for key, each in value.items()]
            return {"kvlistValue": {"values": pairs}}
        case None:
            return {}
        case _:
            return {"stringValue": encode(value)}
