"""``traces export`` and ``traces snapshots``: the same records in each format, and the lanes of a viewer."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.traces.lanes import Lanes
from support.cli import run_cli
from support.runs import lay, mark, span, traced_run
from support.spools import FIRST_NS

ROOT = "5f2c81aa" + "0" * 24


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return traced_run(tmp_path_factory.mktemp("run"), epochs=2, steps=4)


def export(spool: Path, kind: str, *args: str) -> str:
    done = run_cli("traces", "export", "--dir", spool, "--format", kind, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_json_has_every_record_as_the_sdk_wrote_it(spool: Path) -> None:
    written: dict[str, list[Any]] = {"spans": [], "marks": [], "snapshots": []}
    for batch in sorted(spool.glob("*.json")):
        # The SDK up to 0.3 writes a bare NaN.
        for kind, records in json.loads(batch.read_bytes()).items():
            if kind in written:
                written[kind] += records
    document = json.loads(export(spool, "json"))
    for kind, records in written.items():
        assert {each["id"] for each in document[kind]} == {each["id"] for each in records}
    spans = {each["id"]: each for each in document["spans"]}
    for record in written["spans"]:
        ours = spans[record["id"]]
        assert all(ours[key] == value for key, value in record.items() if key in ours)
        assert ours["duration_ns"] == record["end_ns"] - record["start_ns"]


def test_csv_and_chrome_have_the_durations_of_the_records(spool: Path) -> None:
    records = json.loads(export(spool, "json"))["spans"]
    rows = list(csv.DictReader(io.StringIO(export(spool, "csv"))))
    assert [row["duration_ns"] for row in rows] == [str(each["duration_ns"]) for each in records]
    document = json.loads(export(spool, "chrome"))
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    first = int(document["otherData"]["startNs"])
    assert [(event["name"], event["args"]["id"]) for event in events] == [
        (each["name"], each["id"]) for each in records
    ]
    for event, record in zip(events, records, strict=True):
        assert round(event["dur"] * 1000) == record["duration_ns"]
        assert round(event["ts"] * 1000) == record["start_ns"] - first
    by_track: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        by_track.setdefault((event["pid"], event["tid"]), []).append(
            (event["ts"], event["ts"] + event["dur"])
        )
    for spans in by_track.values():  # on one track two spans are apart, or one is inside of the other
        open_: list[float] = []
        for start, end in spans:
            while open_ and open_[-1] <= start:
                open_.pop()
            assert not open_ or end <= open_[-1] + 1e-3
            open_.append(end)
    kinds = {event["ph"] for event in document["traceEvents"]}
    assert kinds == {"M", "X", "C", "i"}


def test_spans_that_begin_and_end_together_are_nested_on_one_track(tmp_path: Path) -> None:
    # The SDK writes the innermost span first, and a coarse clock gives all of them the same times.
    names = ("forward", "step", "epoch")
    parents = ("step", "epoch", ROOT)
    spans = [span(name, parent, name, 10, 20) for name, parent in zip(names, parents, strict=True)]
    lay(tmp_path / "spool", 1, {"spans": [*spans, span(ROOT, None, "cirron.session", 0, 99)]})
    events = json.loads(export(tmp_path / "spool", "chrome"))["traceEvents"]
    found = [(event["name"], event["tid"]) for event in events if event["ph"] == "X"]
    assert found == [("cirron.session", 1), ("epoch", 1), ("step", 1), ("forward", 1)]


def test_chrome_has_no_time_before_zero(tmp_path: Path) -> None:
    """Perfetto drops negative times. A clock that is set back during a run makes records before its session."""
    spans = [span("r", None, "cirron.session", 100, 900), span("a", "r", "epoch", 50, 60)]
    lay(tmp_path / "spool", 1, {"spans": spans, "marks": [mark("m", "a", "loss", 1.0, 20)]})
    lay(tmp_path / "spool", 2, {"spans": [span("q", None, "cirron.session", 1000, 1900)]})
    document = json.loads(export(tmp_path / "spool", "chrome"))
    times = [event["ts"] * 1000 for event in document["traceEvents"] if "ts" in event]
    assert times == [30, 80, 980, 0]
    assert document["otherData"]["startNs"] == str(FIRST_NS + 20)
    later = json.loads(export(tmp_path / "spool", "chrome", "--last", "1"))
    assert later["otherData"]["startNs"] == str(FIRST_NS + 1000)


def test_otlp_has_no_circle_of_parents(tmp_path: Path) -> None:
    spans = [
        span("r", None, "cirron.session", 0, 9),
        span("a", "b", "a", 1, 9),
        span("b", "a", "b", 2, 8),
        span("c", "c", "c", 3, 4),
        span("d", "lost", "d", 5, 6),
    ]
    lay(tmp_path / "spool", 1, {"spans": spans})
    found = {
        each["name"]: each
        for resource in json.loads(export(tmp_path / "spool", "otlp"))["resourceSpans"]
        for each in resource["scopeSpans"][0]["spans"]
    }
    by_id = {each["spanId"]: each for each in found.values()}
    for lowest in by_id:
        above = [lowest]
        while (parent := by_id[above[-1]].get("parentSpanId")) in by_id:
            assert parent not in above
            above.append(parent)
    assert "parentSpanId" not in found["a"]
    assert found["b"]["parentSpanId"] == found["a"]["spanId"]
    assert "parentSpanId" in found["d"]  # a later batch may have that span


def test_otlp_has_no_parent_in_another_trace(tmp_path: Path) -> None:
    spans = [
        span("r", None, "cirron.session", 0, 99),
        span("q", "r", "cirron.session", 10, 50),
        span("x", "q", "x", 20, 30),
    ]
    lay(tmp_path / "spool", 1, {"spans": spans})
    resources = json.loads(export(tmp_path / "spool", "otlp"))["resourceSpans"]
    (outer,), (inner, below) = (resource["scopeSpans"][0]["spans"] for resource in resources)
    assert outer["traceId"] != inner["traceId"] == below["traceId"]
    assert "parentSpanId" not in inner
    assert below["parentSpanId"] == inner["spanId"]


def test_otlp_has_the_marks_of_a_session_without_spans(tmp_path: Path) -> None:
    lay(tmp_path / "spool", 1, {"marks": [mark("m", "gone", "loss", 1.5, 5)]})
    lay(tmp_path / "spool", 2, {"spans": [span("r", None, "cirron.session", 20, 90)]})
    resources = json.loads(export(tmp_path / "spool", "otlp"))["resourceSpans"]
    (stand_in,), (root,) = (resource["scopeSpans"][0]["spans"] for resource in resources)
    assert [event["name"] for event in stand_in["events"]] == ["loss"]
    assert {"key": "cirron.missing", "value": {"boolValue": True}} in stand_in["attributes"]
    assert root["events"] == []


def test_a_part_and_nothing(spool: Path, tmp_path: Path) -> None:
    empty = tmp_path / "spool"
    empty.mkdir()
    for kind in ("json", "otlp", "chrome"):
        assert isinstance(json.loads(export(empty, kind)), dict)
    assert export(empty, "csv", "--table", "marks").count("\n") == 1
    lay(
        empty,
        1,
        {"spans": [span(ROOT, None, "cirron.session", 0, 9), span("b", None, "cirron.session", 20, 29)]},
    )
    assert [each["id"] for each in json.loads(export(empty, "json", "--last", "1"))["spans"]] == ["b"]
    assert [each["id"] for each in json.loads(export(empty, "json", "--session", "5f"))["spans"]] == [ROOT]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--format", "xml"), "--format needs one of json, csv, parquet, otlp, chrome"),
        (
            (),
            "cirron-spool traces export needs --format (one of json, csv, parquet, otlp, chrome), for example ",
        ),
        (("--format", "otlp", "--table", "marks"), "--table is for csv and parquet."),
        (("--format", "json", "--output", "no/such/folder"), "Cannot write no/such/folder: "),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path: Path, args: tuple[str, ...], line: str) -> None:
    done = run_cli("traces", "export", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {line}"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_snapshots_as_a_table_and_as_json(spool: Path, tmp_path: Path) -> None:
    shown = run_cli("traces", "snapshots", "--dir", spool).stdout
    assert shown.count("layer.weight") == 2
    assert "▁▂▂▃▃▄▄▅▅▆▆▇▇███" in shown
    document = json.loads(run_cli("traces", "snapshots", "--dir", spool, "--json").stdout)
    assert [each["std"] for each in document["snapshots"]] == [0.1, "inf"]
    assert document["snapshots"][0]["histogram"]["counts"] == [float(each) for each in range(16)]
    odd = {
        "id": "s",
        "span_id": ROOT,
        "tensor_name": "w",
        "ts_ns": 1,
        "shape": [None],
        "stats": {"mean": [], "histogram": {"counts": [1, "x"]}},
    }
    lay(tmp_path / "spool", 1, {"spans": [span(ROOT, None, "cirron.session", 0, 9)], "snapshots": [odd]})
    (snapshot,) = json.loads(run_cli("traces", "snapshots", "--dir", tmp_path / "spool", "--json").stdout)[
        "snapshots"
    ]
    assert (snapshot["mean"], snapshot["shape"], snapshot["histogram"]) == (None, [], None)
    none = run_cli("traces", "snapshots", "--dir", spool, "--name", "nothing*")
    assert none.stdout == f"No snapshots found in {spool}\n"


def test_spans_that_overlap_without_nesting_have_lanes_of_their_own() -> None:
    lanes = Lanes()
    assert lanes.place(1, None, 0, 100) == (0, 0)
    assert lanes.place(2, 1, 10, 50) == (0, 1)
    assert lanes.place(3, 1, 20, 60) == (1, 0)
    assert lanes.place(4, 3, 30, 40) == (1, 1)
    assert lanes.place(5, 2, 45, 50) == (0, 2)
    assert lanes.place(6, 1, 60, 90) == (0, 1)


def test_no_value_is_lost_in_a_table(tmp_path: Path) -> None:
    place = tmp_path / "spool"
    big = 2**60 + 1
    odd = {"id": "s", "span_id": ROOT, "tensor_name": "w", "ts_ns": 1, "stats": "no"}
    spans = [span(ROOT, None, "cirron.session", 0, 9), span("b", ROOT, "a\rb\n", 1, 2)]
    marks = [mark("m", "b", "n", big, 1, value_type="int"), mark("o", "b", "n", 0.5, 2)]
    lay(place, 1, {"spans": spans, "marks": marks, "snapshots": [odd]})
    tables = {
        table: list(csv.DictReader(io.StringIO(export(place, "csv", "--table", table), newline="")))
        for table in ("spans", "marks", "snapshots")
    }
    assert [row["name"] for row in tables["spans"]] == ["cirron.session", "a\rb\n"]
    assert [row["value_text"] for row in tables["marks"]] == [str(big), ""]
    assert json.loads(tables["snapshots"][0]["more"])["stats"] == "no"
