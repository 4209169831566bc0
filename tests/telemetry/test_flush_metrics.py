"""The metrics of flushes: counted from events, with the state of the spools, in the text format and back."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from cirron_spool import (
    Ended,
    Failed,
    FlushResult,
    Quarantined,
    Resumed,
    Retrying,
    Started,
    Uploaded,
    Waiting,
)
from cirron_spool.events import FlushEvent
from cirron_spool.telemetry import families as of
from cirron_spool.telemetry.families import Family, Kind
from cirron_spool.telemetry.flush_metrics import FlushMetrics
from cirron_spool.telemetry.metrics_file import MetricsFile
from support.spools import write_batch

parser = pytest.importorskip("prometheus_client.parser")
text_format = pytest.importorskip("cirron_spool.telemetry.prometheus")

NOW = 1_776_486_600.5
ENDED = Ended(FlushResult(Path("/spool"), evicted=2))


@pytest.mark.parametrize(
    ("events", "counted"),
    [
        ([], {}),
        (
            [Uploaded("1-ab.json", 500, 100), Uploaded("2-cd.json", 50, 50)],
            {of.UPLOADED: 2, of.UPLOADED_BYTES: 550, of.SENT_BYTES: 150},
        ),
        ([Failed("1-ab.json", 500, "why")], {of.FAILED: 1}),
        ([Quarantined("1-ab.json", 400, "why", Path("/quarantine"))], {of.QUARANTINED: 1}),
        ([Retrying("1-ab.json", 503, "why", 1.0, 2)] * 3, {of.RETRIES: 3}),
        ([ENDED, ENDED], {of.EVICTED: 4}),
    ],
)
def test_the_events_of_flushes_are_counted(events: list[FlushEvent], counted: dict[Family, int]) -> None:
    metrics = FlushMetrics({of.UPLOADED: {"": 10.0}, of.FLUSHES: {"0": 3.0}})
    for event in events:
        metrics.note(event)
    values = metrics.values(NOW)
    for family in of.OF_A_FLUSH:
        if family.kind is Kind.COUNTER and family is not of.FLUSHES:
            before = 10 if family is of.UPLOADED else 0
            assert values[family] == {"": before + counted.get(family, 0)}, family.name
    assert (values[of.FLUSHES], values[of.LAST_FLUSH]) == ({"0": 3}, {})


def test_the_end_and_the_success_before_it_are_told_apart() -> None:
    metrics = FlushMetrics()
    metrics.end(0, 2.5, NOW)
    metrics.end(4, 1.5, NOW + 60)
    values = metrics.values(NOW + 60)
    assert values[of.FLUSHES] == {"0": 1, "4": 1}
    assert [
        values[each][""] for each in (of.LAST_SUCCESS, of.LAST_FLUSH, of.LAST_EXIT_CODE, of.LAST_DURATION)
    ] == [
        NOW,
        NOW + 60,
        4,
        1.5,
    ]


def test_a_watch_that_waits_is_held_up_until_it_goes_on() -> None:
    metrics = FlushMetrics({})
    held_up = []
    for event in (
        Waiting("outage", "why"),
        Waiting("token", "why"),
        Resumed("outage", 3.0),
        Resumed("token", 9.0),
    ):
        metrics.note(event)
        held_up.append(metrics.values(NOW)[of.HELD_UP])
    assert [tuple(each.values()) for each in held_up] == [(1, 0), (1, 1), (0, 1), (0, 0)]


def test_the_state_is_that_of_all_spools(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "spool", tmp_path / "b" / "spool"
    write_batch(first, 3 * 10**9, "ab", b"12345")
    write_batch(second, 2 * 10**9, "cd", b"123")
    write_batch(second, 4 * 10**9, "ef", b"12")
    write_batch(tmp_path / "b" / "quarantine", 1, "0a", b"1")
    metrics = FlushMetrics({})
    metrics.note(Started(first, 1, 5))
    metrics.note(ENDED, second)
    metrics.note(ENDED, tmp_path / "none")
    values = metrics.values(NOW)
    state = [values[each] for each in (of.WAITING, of.WAITING_BYTES, of.OLDEST, of.QUARANTINE)]
    assert state == [{"": 3}, {"": 10}, {"": 2.0}, {"": 1}]
    assert FlushMetrics({}).values(NOW)[of.OLDEST] == {}


def test_a_file_comes_back_and_every_metric_has_its_help(tmp_path: Path) -> None:
    """node_exporter makes up a help text that differs between files, and then drops one of them."""
    metrics = FlushMetrics({})
    metrics.note(Uploaded("1-ab.json", 500, 100))
    metrics.end(1, 2.0, NOW)
    values = metrics.values(NOW)
    path = tmp_path / "metrics.prom"
    labels = {"spool": 'a "b"\\\n'}
    text_format.write_file(str(path), values, labels)
    text = path.read_text(encoding="utf-8")
    assert text_format.read_values(text, of.KEPT, labels) == {
        family: values[family] for family in of.KEPT if values[family]
    }
    assert text_format.read_values(text, of.KEPT, {"spool": "another"}) == {}
    parsed = list(parser.text_string_to_metric_families(text))
    assert len(parsed) == len(of.OF_A_FLUSH)
    for family, metric in zip(of.OF_A_FLUSH, parsed, strict=True):
        assert (metric.name, metric.documentation) == (family.name.removesuffix("_total"), family.help)
        assert metric.type == family.kind.name.lower()
        assert all(sample.timestamp is None for sample in metric.samples)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.prom"]


def test_the_names_follow_the_conventions_of_prometheus() -> None:
    families = (*of.OF_A_FLUSH, *of.OF_A_RECEIVER)
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("cirron_spool_")
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert family.help.endswith(".")
    assert "_created" not in text_format.text_of({families[0]: {"": 1.0}})


def test_an_event_without_a_metric_changes_nothing() -> None:
    metrics = FlushMetrics({})
    before = metrics.values(NOW)
    metrics.note(replace(ENDED, result=FlushResult(Path("/spool"))))
    assert metrics.values(NOW) == before


def test_the_page_lists_every_metric_and_the_alerts_use_no_other() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    page = (docs / "metrics.md").read_text(encoding="utf-8")
    families = {family.name: family for family in (*of.OF_A_FLUSH, *of.OF_A_RECEIVER)}
    listed = re.findall(r"^\| `(cirron_spool_\w+)(?:\{(\w+)=.*?\})?` \| (\w+) \|", page, re.MULTILINE)
    assert {name: (label, kind) for name, label, kind in listed} == {
        name: (family.label, family.kind.name.lower()) for name, family in families.items()
    }
    alerts = (docs / "how-to" / "prometheus.md").read_text(encoding="utf-8")
    used = re.findall(r"cirron_spool_\w+_\w+", "".join(re.findall(r"expr: (.*)", alerts)))
    assert len(used) > 8
    assert set(used) <= set(families)


def test_commands_that_overlap_add_to_one_file(tmp_path: Path) -> None:
    """A flush of cron begins while the one before it runs, finds the spool locked, and ends."""
    path, warnings = tmp_path / "cirron.prom", list[str]()
    earlier = MetricsFile(str(path), "/spool", [], warnings.append)
    earlier.note(Uploaded("1-ab.json", 500, 100))
    earlier.write()
    later = MetricsFile(str(path), "/spool", [], warnings.append)
    earlier.note(Uploaded("2-ab.json", 500, 100))
    later.note(Retrying("3-ab.json", 503, "why", 1.0, 2))
    later.end(4)
    earlier.write()

    def read() -> dict[Family, dict[str, float]]:
        text = path.read_text(encoding="utf-8")
        found: dict[Family, dict[str, float]] = text_format.read_values(text, of.KEPT, {"spool": "/spool"})
        return found

    between = read()
    assert (between[of.LAST_EXIT_CODE], between[of.FLUSHES]) == ({"": 4}, {"4": 1})
    path.unlink()  # the counts of the last write stay known
    earlier.note(Uploaded("3-ab.json", 500, 100))
    earlier.end(0)
    values = read()
    assert [values[each][""] for each in (of.UPLOADED, of.UPLOADED_BYTES, of.RETRIES, of.LAST_EXIT_CODE)] == [
        3,
        1500,
        1,
        0,
    ]
    assert (values[of.FLUSHES], warnings) == ({"0": 1, "4": 1}, [])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_failed_write_loses_no_count(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = MetricsFile(str(folder / "cirron.prom"), "/spool", [], lambda _: None)
    folder.rename(tmp_path / "away")
    file.note(Uploaded("1-ab.json", 500, 100))
    file.write()
    (tmp_path / "away").rename(folder)
    file.end(0)
    text = (folder / "cirron.prom").read_text(encoding="utf-8")
    assert text_format.read_values(text, [of.UPLOADED], {}) == {of.UPLOADED: {"": 1}}


def test_a_file_that_cannot_be_written_any_more_is_one_warning(tmp_path: Path) -> None:
    folder, warnings = tmp_path / "folder", list[str]()
    folder.mkdir()
    file = MetricsFile(str(folder / "cirron.prom"), "/spool", [], warnings.append)
    (folder / "cirron.prom").unlink()
    folder.rmdir()
    file.write()
    file.end(0)
    assert warnings == [
        f"Cannot write metrics to {folder}/cirron.prom: No such file or directory. The flush continues without metrics."
    ]
