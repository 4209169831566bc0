"""The records of one batch: each field of each kind with each wrong type, and texts that are no batch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cirron_spool.traces.records import BrokenBatchError, Mark, parse_batch
from support.runs import mark, span

WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**70,
    1.5,
    float("nan"),
    "",
    "\ud800x",
    [],
    {},
    [[1]],
    {"a": {"b": 1}},
)
SNAPSHOT = {"id": "s", "span_id": "a", "tensor_name": "w", "ts_ns": 1, "shape": [1], "stats": {"mean": 1.0}}
GOOD = {
    "spans": span("a", None, "epoch", 0, 1),
    "marks": mark("m", "a", "loss", 0.5, 1),
    "snapshots": SNAPSHOT,
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_wrong_field_leaves_out_its_record_or_is_passed_over(kind: str) -> None:
    for key in [*GOOD[kind], "unknown"]:
        for value in WRONG:
            wrong = {**GOOD[kind], key: value}
            batch = parse_batch(json.dumps({kind: [wrong, GOOD[kind]]}).encode())
            found: tuple[list[Any], ...] = (batch.spans, batch.marks, batch.snapshots)
            (records,) = [each for each in found if each]
            # Either way the right record is there, and one that is left out is said.
            assert len(records) + len(batch.problems) == 2
            assert all(key in problem for problem in batch.problems)
            for record in records:
                json.dumps(record, allow_nan=False).encode()
                "".join(field for field in record if isinstance(field, str)).encode()


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("value", [None, 1, "x", {}, [1, None, "x", []]], ids=str)
def test_a_list_of_records_that_is_none_is_said(kind: str, value: object) -> None:
    batch = parse_batch(
        json.dumps({"other": 1, **{each: [GOOD[each]] for each in GOOD}, kind: value}).encode()
    )
    assert len(batch.spans) + len(batch.marks) + len(batch.snapshots) == 2
    assert bool(batch.problems) is (value is not None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "it is empty"),
        (b'{"spans":[{"id":"a","na', "it is not JSON: "),
        (b"[]", "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b'{"a":"\xff"}', "it is not UTF-8 at byte 6"),
        (b"[" * 100_000, "its JSON is nested too deep"),
        (b'{"spans":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "its JSON is nested too deep"),
        (b"\0" * 4096, "it is not JSON: "),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_text_that_is_no_batch_says_why(text: bytes, why: str) -> None:
    with pytest.raises(BrokenBatchError) as raised:
        parse_batch(text)
    assert str(raised.value).startswith(why)


@pytest.mark.parametrize(
    ("written", "value", "word"),
    [
        ("NaN", None, "nan"),
        ("-Infinity", None, "-inf"),
        ('null, "value_nonfinite": "inf"', None, "inf"),
        ('null, "value_nonfinite": "what"', None, None),
        ("0.25", 0.25, None),
        ("3", 3, None),
        ("true", True, None),
        ('"text"', "text", None),
        ("123456789012345678901234567890", 123456789012345678901234567890.0, None),
        ("9" * 400, "9" * 400, None),
        pytest.param("9" * 5000, "9" * 5000, None, id="more digits than Python reads"),
    ],
)
def test_the_value_of_a_mark_is_kept_and_its_word(written: str, value: object, word: str | None) -> None:
    text = f'{{"marks":[{{"id":"m","span_id":"a","name":"loss","ts_ns":1,"value":{written}}}]}}'
    (record,) = parse_batch(text.encode()).marks
    assert isinstance(record, Mark)
    assert (record.value, type(record.value), record.nonfinite) == (value, type(value), word)


def test_unknown_fields_are_kept_as_json_that_every_reader_takes() -> None:
    odd = span(
        "a", None, "epoch", 0, 1, attrs={"lr": float("nan"), "deep": [float("inf")]}, gpu_ns=5, new={"x": 1}
    )
    (record,) = parse_batch(json.dumps({"spans": [odd]}).encode()).spans
    assert json.loads(record.more) == {"attrs": {"lr": "nan", "deep": ["inf"]}, "gpu_ns": 5, "new": {"x": 1}}
    assert parse_batch(json.dumps({"spans": [odd]}).encode(), ()).spans[0].more == ""
