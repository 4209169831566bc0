"""Peak resident memory of a flush: many batches, and large ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks import environment, goals, measure, options, report, shapes, sinks
from benchmarks.errors import BenchmarkError
from benchmarks.goals import MB, Goal
from benchmarks.measure import Cell, Contender, Results
from benchmarks.session import Findings, Session
from benchmarks.sinks import Network
from benchmarks.spools import SHAPES, Shape, Spool, Workspace

COUNTS = (1_000, 20_000, 100_000)
LARGE = (
    Shape("one of 300 MB", 1, 300_000_000, 300_000_000, shapes.SOME_SNAPSHOTS),
    Shape("ten of 100 MB", 10, 100_000_000, 100_000_000, shapes.SOME_SNAPSHOTS),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--counts",
        type=options.numbers,
        default=list(COUNTS),
        metavar="N",
        help="spools of so many typical batches, with commas (default: 1000,20000,100000)",
    )
    parser.add_argument("--no-large", dest="large", action="store_false", help="leave the large batches out")
    options.in_flight(parser)
    options.where(parser)
    options.repeat(parser, default=3)


def run(session: Session) -> Findings:
    """Flush each spool in a fresh process; the most memory it ever had."""
    asked = session.options
    findings = Findings()
    session.show(environment.one_line())
    contenders = [measure.ours()] + [
        measure.ours(f"thread, {n} in flight", in_flight=n) for n in asked.in_flight
    ]
    for where in asked.where:
        workspace = session.workspace(where)
        cells = [
            _measure(session, workspace, spool, contenders, asked.repeat)
            for spool in _spools(session, workspace)
        ]
        session.show(f"\n{_text(cells)}")
        findings.add(cells)
        findings.goals += _goals(cells)
    session.show("")
    return findings


def _spools(session: Session, workspace: Workspace) -> Iterator[Spool]:
    """Made one by one, and gone before the next: a gigabyte at a time is enough."""
    content = session.generated(
        workspace, replace(SHAPES["typical"], batches=min(1_000, *session.options.counts))
    )
    for count in session.options.counts:
        many = workspace.multiply(content, count)
        yield replace(many, name=f"{count:,} typical")
        workspace.remove(many)
    if session.options.large:
        for shape in LARGE:
            large = session.generated(workspace, shape)
            yield large
            workspace.remove(large)


def _measure(
    session: Session, workspace: Workspace, spool: Spool, contenders: Sequence[Contender], repeat: int
) -> Cell:
    """One cell. Without the round that looks into the bodies: it is the memory that is measured, and a GB is a GB."""
    network = Network()
    results = [Results(contender) for contender in contenders]
    with sinks.start("answer-only", network, workspace) as sink:
        for round_ in range(repeat):
            for each in results:
                session.say(f"{spool.name}: run {round_ + 1} of {repeat}: {each.contender.name}")
                try:
                    each.runs.append(measure.run_once(workspace, spool, sink, each.contender, proof=False))
                except BenchmarkError as error:
                    each.error, each.runs = str(error), []
                    break
    return Cell(
        spool.name, workspace.label, network, "answer-only", len(spool.names), spool.json_bytes, results
    )


def _text(cells: Sequence[Cell]) -> str:
    rows = [["peak resident memory, MB", "contender", "median", "min..max", "before the flush", "seconds"]]
    errors = []
    for cell in cells:
        for each in cell.results:
            peak, spread, start = (
                each.median("peak_bytes"),
                each.spread("peak_bytes"),
                each.median("start_bytes"),
            )
            if peak is None or spread is None or start is None:
                errors.append(f"\n  {cell.spool}: {each.contender.name}: no figure: {each.error}")
                continue
            seconds = each.median("seconds") or 0.0
            low, high = (value / MB for value in spread)
            rows.append(
                [
                    cell.spool,
                    each.contender.name,
                    f"{peak / MB:.1f}",
                    f"{low:.1f}..{high:.1f}",
                    f"{start / MB:.1f}",
                    report.seconds(seconds),
                ]
            )
    return f"on {cells[0].file_system}, no latency\n{report.table(rows)}{''.join(errors)}"


def _goals(cells: Sequence[Cell]) -> list[Goal]:
    peaks = {
        cell.spool: peak / MB
        for cell in cells
        if (ours := cell.of("thread")) and (peak := ours.median("peak_bytes"))
    }
    found = []
    smallest = min((count for count in COUNTS if f"{count:,} typical" in peaks), default=None)
    for name, peak in peaks.items():
        if name == "100,000 typical":
            if smallest is not None and smallest != 100_000:
                more = peak - peaks[f"{smallest:,} typical"]
                found.append(
                    Goal(
                        "peak memory, 100,000 typical: more than a small spool",
                        more,
                        goals.HUNDRED_THOUSAND_MORE_MB,
                        True,
                        "MB",
                    )
                )
            continue
        limit = goals.TYPICAL_PEAK_MB if name.endswith("typical") else goals.LARGE_PEAK_MB
        found.append(Goal(f"peak memory, {name}", peak, limit, at_most=True, unit="MB"))
    return found
