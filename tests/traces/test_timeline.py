"""The drawings of a run: the longest spans one by one, the rest folded and counted, gaps, and thinned marks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cirron_spool.html.trace_page import trace_page
from cirron_spool.traces import series, timeline
from cirron_spool.traces.exports.rows import Rows
from cirron_spool.traces.series import gather_series
from cirron_spool.traces.timeline import draw
from cirron_spool.traces.trace import read_trace
from support.runs import lay, mark, span

if TYPE_CHECKING:
    import pytest

S = 10**9


@contextmanager
def rows_of(spool: Path, spans: list[Any], marks: list[Any] | None = None) -> Iterator[Rows]:
    lay(spool, 1, {"spans": [span("r", None, "cirron.session", 0, 100 * S), *spans], "marks": marks or []})
    with read_trace(spool, lambda line: None) as trace:
        yield Rows(trace, [0])


def test_every_span_is_drawn_or_counted(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_BARS", 50)
    spans = [
        span(f"s{number}", "r", "step", number * S // 10, number * S // 10 + number) for number in range(500)
    ]
    with rows_of(spool, spans) as rows:
        drawn = draw(rows, 0)
    assert drawn.shown == 50
    assert drawn.shown + drawn.folded == 501
    assert sum(fold[2] for line in drawn.lines for fold in line.folds.values()) == drawn.folded
    assert max(len(line.folds) for line in drawn.lines) <= 201
    shortest = min(bar[1] for line in drawn.lines for bar in line.bars)
    assert shortest > 440


def test_spans_of_one_duration_are_drawn_up_to_the_limit(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_BARS", 50)
    with rows_of(
        spool, [span(f"s{number}", "r", "step", number * S, number * S + S) for number in range(90)]
    ) as rows:
        drawn = draw(rows, 0)
    assert (drawn.shown, drawn.folded) == (50, 41)


def test_many_lanes_depths_and_threads_are_folded_into_one_line(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_BARS", 100)
    spans = [span(f"l{number}", "r", "request", number * S // 10, 50 * S + number) for number in range(200)]
    spans += [span("d0", "r", "f", 0, 90 * S, thread_id=2)]
    spans += [span(f"d{n}", f"d{n - 1}", "f", n, 90 * S - n, thread_id=2) for n in range(1, 60)]
    spans += [span(f"t{n}", "r", "load", n, n + S, thread_id=10 + n) for n in range(70)]
    spans += [
        span(f"{half}{n}", f"t{n}", "read", n + 9 * half, n + 9 * half + 5, thread_id=10 + n)
        for n in range(70)
        for half in (1, 2)
    ]
    with rows_of(spool, spans) as rows:
        drawn = draw(rows, 0)
    assert len(drawn.lines) == timeline.MOST_LINES
    assert drawn.rest_lines > 200
    folds = [fold for line in (*drawn.lines, drawn.rest) for fold in line.folds.values()]
    assert drawn.shown + sum(fold[2] for fold in folds) == len(spans) + 1
    assert drawn.folded == len(spans) + 1 - drawn.shown
    assert {line.thread for line in drawn.lines} == {1, 2, *range(10, 80)}
    assert all(0 <= start <= end <= 100 * S for start, end, _ in drawn.rest.folds.values())


def test_a_time_without_a_record_is_a_gap_and_an_open_span_lasts(spool: Path) -> None:
    spans = [
        span("a", "r", "step", 0, 10 * S),
        span("b", "r", "step", 11 * S, 20 * S),
        span("c", "r", "step", 60 * S, None),
    ]
    with rows_of(spool, spans) as rows:
        drawn = draw(rows, 0)
    assert drawn.gaps == [(20 * S, 40 * S)]
    bars = [bar for line in drawn.lines for bar in line.bars]
    assert (60 * S, 40 * S, "step", None, True) in bars


def test_a_thinned_series_keeps_its_extremes(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MOST_POINTS", 40)
    marks = [mark(f"m{number}", "r", "loss", float(number % 97), number * S // 10) for number in range(900)]
    marks += [
        mark("n", "r", "loss", None, 5, value_nonfinite="nan"),
        mark("t", "r", "text", "x", 6, value_type="string"),
    ]
    with rows_of(spool, [], marks) as rows:
        (loss, text), left_out = gather_series(rows, 0)
    form = loss.form()
    assert (form["marks"], form["odd"], form["thinned"], left_out) == (901, 1, True, 0)
    assert len(form["points"]) <= 42
    assert {min(point[1] for point in form["points"]), max(point[1] for point in form["points"])} == {
        0.0,
        96.0,
    }
    assert (text.form()["points"], text.odd) == ([], 1)


def test_no_text_ends_the_script_of_the_page() -> None:
    evil = "</script><!--\u2028"
    page = "".join(trace_page({"dir": evil, "sessions": []}, "plotly('</script>')"))
    assert page.count("</script>") == 3
    assert "<!--" not in page.partition("<script")[2]
    assert "\u2028" not in page
