"""The exports of a run of the real SDK, read by the libraries of the tools that they are for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from support.cli import run_cli
from support.runs import lay, mark, span, traced_run


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return traced_run(tmp_path_factory.mktemp("run"), epochs=2, steps=4)


def viewed(spool: Path) -> dict[str, int]:
    (session,) = json.loads(run_cli("traces", "list", "--dir", spool, "--json").stdout)["sessions"]
    return {"spans": session["spans"], "marks": session["marks"], "snapshots": session["snapshots"]}


def test_otlp_is_what_the_protocol_s_own_schema_reads(spool: Path) -> None:
    proto = pytest.importorskip("opentelemetry.proto.trace.v1.trace_pb2", reason="no opentelemetry-proto")
    parse = pytest.importorskip("google.protobuf.json_format").Parse

    done = run_cli("traces", "export", "--dir", spool, "--format", "otlp")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    # protobuf reads bytes as base64, OTLP writes identifiers as hexadecimal digits: both accept these letters.
    data = parse(done.stdout, proto.TracesData())
    (resource,) = data.resource_spans
    spans = resource.scope_spans[0].spans
    counts = viewed(spool)
    assert len(spans) == counts["spans"]
    assert sum(len(each.events) for each in spans) == counts["marks"]
    records = json.loads(run_cli("traces", "export", "--dir", spool, "--format", "json").stdout)["spans"]
    times = [(each["name"], each["start_ns"], each["end_ns"]) for each in records]
    found = [(each.name, each.start_time_unix_nano, each.end_time_unix_nano) for each in spans]
    assert found == times
    # Each parent is there.
    written = json.loads(done.stdout)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ids = {each["spanId"] for each in written}
    assert all(len(each["spanId"]) == 16 and len(each["traceId"]) == 32 for each in written)
    assert {each["parentSpanId"] for each in written if "parentSpanId" in each} <= ids


@pytest.mark.parametrize("table", ["spans", "marks", "snapshots"])
def test_parquet_and_csv_have_the_same_rows(spool: Path, tmp_path: Path, table: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for kind in ("parquet", "csv"):
        file = tmp_path / f"{table}.{kind}"
        arguments = ("--format", kind, "--table", table, "--output", file)
        done = run_cli("traces", "export", "--dir", spool, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", f"Wrote {file}.\n")
    columns = parquet.read_table(tmp_path / f"{table}.parquet")
    assert columns.num_rows == viewed(spool)[table]
    with (tmp_path / f"{table}.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert list(rows[0]) == columns.column_names
    for name in columns.column_names:
        values = columns[name].to_pylist()
        if not any(isinstance(value, float) for value in values):
            assert [row[name] for row in rows] == ["" if value is None else str(value) for value in values]


def test_records_that_a_reader_could_stumble_over(tmp_path: Path) -> None:
    proto = pytest.importorskip("opentelemetry.proto.trace.v1.trace_pb2", reason="no opentelemetry-proto")
    parse = pytest.importorskip("google.protobuf.json_format").Parse

    attrs = {"deep": [[[{"a": None}]]], "big": 2**70, "": 1, "none": None, "b": True, "s": "\x1b<"}
    spans = [
        span("0" * 16, None, "cirron.session", 0, None),
        span("x", "0" * 16, "open", 1, None, attrs=attrs),
        span("y", "gone", "orphan", 9, 3, thread_id=None),
    ]
    marks = [
        mark("m", "x", "loss", None, 2, value_nonfinite="nan"),
        mark("n", "lost", "text", "=1+1", 3, value_type="string"),
        mark("o", "x", "flag", True, 3, value_type="bool"),
    ]
    lay(tmp_path / "spool", 1, {"spans": spans, "marks": marks})
    otlp = run_cli("traces", "export", "--dir", tmp_path / "spool", "--format", "otlp")
    data = parse(otlp.stdout, proto.TracesData())
    found = [each for resource in data.resource_spans for each in resource.scope_spans[0].spans]
    assert len(found) == 3
    assert all(each.end_time_unix_nano >= each.start_time_unix_nano for each in found)
    assert all(each.span_id.strip(b"\0") for each in found)
    assert sorted(event.name for each in found for event in each.events) == ["flag", "loss", "text"]
