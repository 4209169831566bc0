"""The lateness of a 1 ms ticker in the event loop of a flush, and of the first flush after a bare import."""

from __future__ import annotations

import argparse
import statistics

from benchmarks import options, report
from benchmarks.compare import Contender, Results
from benchmarks.session import Session

_CONTENDERS = [
    Contender("flush", "lateness"),
    Contender("first flush", "lateness", {"first": True}),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, spool="typical,big,huge", latency="0")


def run(session: Session) -> None:
    """Measure on each spool: the ticker alone, then with the flush, in one process."""
    for spool in session.spools():
        for network in session.networks():
            cell = session.compare(spool, _CONTENDERS, network)
            rows = [
                ["lateness in ms: medians of the runs", "p50", "p99", "worst", "worst of all runs", "ticks"]
            ]
            for each in cell.measured():
                name = each.contender.name
                rows.append([f"{name}: alone before", *_row(each, "alone")])
                rows.append([name, *_row(each, "flush")])
                subject = f"lateness {spool.name}" + (" first flush" if each.contender.options else "")
                session.record(
                    f"{subject}: 99th percentile ms", statistics.median(_values(each, "flush", "p99"))
                )
                session.record(f"{subject}: worst ms", statistics.median(_values(each, "flush", "worst")))
            session.show(f"{report.title(cell)}\n{report.table(rows)}")
            for each in cell.results:
                if each.error:
                    session.show(f"  {each.contender.name}: no figure: {each.error}")


def _values(results: Results, part: str, figure: str) -> list[float]:
    return [run.lateness[part][figure] for run in results.runs if run.lateness]


def _row(results: Results, part: str) -> list[str]:
    medians = [statistics.median(_values(results, part, figure)) for figure in ("p50", "p99", "worst")]
    most = max(_values(results, part, "worst"))
    ticks = statistics.median(_values(results, part, "ticks"))
    return [*(f"{value:.2f}" for value in (*medians, most)), f"{ticks:,.0f}"]
