"""The records of one batch in the SDK's spool format: spans, marks and snapshots. Pure.

Unknown fields are kept. A record without a required field is left out and reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeVar

from cirron_spool.text import count

T = TypeVar("T")

KINDS = ("spans", "marks", "snapshots")

# SQLite's integers, and the SDK's times in ns, have 64 bits.
_MOST = 2**63 - 1
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
# The SDK's words for floats that JSON does not have.
_TOKENS = ("nan", "inf", "-inf")
# The fields with their own columns. All other fields of a record stay in one JSON text.
_SPAN_FIELDS = frozenset(
    {"id", "parent_id", "name", "index", "start_ns", "end_ns", "thread_id", "pid", "rank", "mark_ids"}
)
_MARK_FIELDS = frozenset({"id", "span_id", "name", "value_type", "value", "value_nonfinite", "ts_ns", "kind"})
_SNAPSHOT_FIELDS = frozenset({"id", "span_id", "tensor_name", "ts_ns"})


class Span(NamedTuple):
    """A span. ``position`` is its index. ``end_ns`` is None for an open one.

    ``more`` has the other fields as JSON, or is empty.
    """

    id: str
    parent_id: str | None
    name: str
    position: int | None
    start_ns: int
    end_ns: int | None
    pid: int | None
    rank: int | None
    thread_id: int | None
    more: str


class Mark(NamedTuple):
    """A mark. For a float that is not finite, ``value`` is None, and ``nonfinite`` is nan, inf or -inf."""

    id: str
    span_id: str
    name: str
    kind: str
    value_type: str
    value: float | int | str | None
    nonfinite: str | None
    ts_ns: int
    more: str


class Snapshot(NamedTuple):
    """The record of one tensor. ``more`` has its shape, type and statistics as JSON."""

    id: str
    span_id: str
    tensor_name: str
    ts_ns: int
    more: str


class Batch(NamedTuple):
    """The records of a batch. ``problems`` has a line for each kind of record with invalid ones."""

    sdk_version: str
    spans: list[Span]
    marks: list[Mark]
    snapshots: list[Snapshot]
    problems: list[str]


class BrokenBatchError(ValueError):
    """The text is not a batch. The message has the reason."""


class _Wrong(Exception):
    """A field is missing or has a wrong type. The message names it."""


def parse_batch(text: bytes, detailed: Collection[str] = KINDS) -> Batch:
    """The records in the JSON ``text`` of a batch. Raises BrokenBatchError.

    Only the ``detailed`` kinds of records get ``more``, which takes a quarter of the time.
    """
    if not text:
        raise BrokenBatchError("it is empty")
    try:
        document = _parsed(text)
    except json.JSONDecodeError as error:
        raise BrokenBatchError(f"it is not JSON: {error.msg} at character {error.pos}") from None
    except UnicodeDecodeError as error:
        raise BrokenBatchError(f"it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise BrokenBatchError("its JSON is nested too deep") from None
    if not isinstance(document, dict):
        raise BrokenBatchError("it is not a JSON object")
    try:
        return _batch(document, detailed)
    except RecursionError:
        raise BrokenBatchError("its JSON is nested too deep") from None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # a number with more digits than Python reads
        return json.loads(text, parse_int=_whole_number)


def _whole_number(digits: str) -> int | str:
    """The number, or its text if Python does not convert so many digits."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _batch(document: dict[str, Any], detailed: Collection[str]) -> Batch:
    version = document.get("sdk_version")
    problems: list[str] = []
    return Batch(
        clean(version) if isinstance(version, str) else "",
        list(_records(document, "spans", _span, _SPAN_FIELDS if "spans" in detailed else None, problems)),
        list(_records(document, "marks", _mark, _MARK_FIELDS if "marks" in detailed else None, problems)),
        list(
            _records(
                document,
                "snapshots",
                _snapshot,
                _SNAPSHOT_FIELDS if "snapshots" in detailed else None,
                problems,
            )
        ),
        problems,
    )


def _records(
    document: dict[str, Any],
    key: str,
    read: Callable[[dict[str, Any], str], T],
    fields: frozenset[str] | None,
    problems: list[str],
) -> Iterator[T]:
    """The records of one kind. Their ``more`` has all fields but ``fields``, or nothing if that is None."""
    found = document.get(key)
    if found is None:
        return
    if not isinstance(found, list):
        problems.append(f"its {key} are not a list")
        return
    wrong: list[str] = []
    for number, record in enumerate(found):
        if not isinstance(record, dict):
            wrong.append(f"number {number}: it is not an object")
            continue
        try:
            yield read(record, _more(record, fields) if fields is not None else "")
        except _Wrong as error:
            wrong.append(f"number {number}: {error}")
    if wrong:
        problems.append(f"{count(len(wrong), key.removesuffix('s'))} left out ({wrong[0]})")


def _span(record: dict[str, Any], more: str) -> Span:
    index, pid, rank, thread = (
        record.get("index"),
        record.get("pid"),
        record.get("rank"),
        record.get("thread_id"),
    )
    return Span(
        _text(record, "id"),
        _reference(record, "parent_id"),
        _text(record, "name"),
        _number(index),
        _time(record, "start_ns"),
        _time(record, "end_ns") if record.get("end_ns") is not None else None,
        _number(pid),
        _number(rank),
        _number(thread),
        more,
    )


def _mark(record: dict[str, Any], more: str) -> Mark:
    value, nonfinite = record.get("value"), None
    if isinstance(value, float) and not math.isfinite(value):  # the SDK up to 0.2 wrote a bare NaN
        nonfinite, value = _token(value), None
    elif value is None:
        said = record.get("value_nonfinite")
        nonfinite = said if said in _TOKENS else None
    elif isinstance(value, str):
        value = clean(value)
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MOST:
        value = float(value) if abs(value) < 1 << 1023 else str(value)
    elif not isinstance(value, float | int):
        raise _Wrong("value is not a number, text or boolean")
    kind, value_type = record.get("kind"), record.get("value_type")
    return Mark(
        _text(record, "id"),
        _text(record, "span_id"),
        _text(record, "name"),
        "summary" if kind == "summary" else "point",
        clean(value_type) if isinstance(value_type, str) else _type_of(value),
        value,
        nonfinite,
        _time(record, "ts_ns"),
        more,
    )


def _snapshot(record: dict[str, Any], more: str) -> Snapshot:
    return Snapshot(
        _text(record, "id"),
        _text(record, "span_id"),
        _text(record, "tensor_name"),
        _time(record, "ts_ns"),
        more,
    )


def _text(record: dict[str, Any], key: str) -> str:
    found = record.get(key)
    if not isinstance(found, str) or not found:
        raise _Wrong(f"{key} is not text")
    return clean(found)


def _reference(record: dict[str, Any], key: str) -> str | None:
    return None if record.get(key) is None else _text(record, key)


def _time(record: dict[str, Any], key: str) -> int:
    found = _number(record.get(key))
    if found is None or found < 0:
        raise _Wrong(f"{key} is not a time in nanoseconds")
    return found


def _number(value: object) -> int | None:
    """A whole number of 64 bits, or None. A whole float counts: some writers have no integers."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -_MOST <= value <= _MOST else None


def _more(record: dict[str, Any], known: frozenset[str]) -> str:
    """The fields of ``record`` that are not ``known``, as JSON without NaN."""
    rest = {key: value for key, value in record.items() if key not in known and value not in (None, {}, [])}
    return encode(rest) if rest else ""


def encode(value: object) -> str:
    """``value`` as JSON. Floats that are not finite become the SDK's words for them."""
    try:
        return clean(_ENCODER.encode(value))
    except ValueError:
        return clean(_ENCODER.encode(_finite(value)))


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return _token(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _token(value: float) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def _type_of(value: object) -> str:
    names = {bool: "bool", int: "int", str: "string"}
    return names.get(type(value), "float")


def clean(text: str) -> str:
    """``text`` without lone surrogates. JSON allows them, UTF-8 does not."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
