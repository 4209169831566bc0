"""How late a 1 ms ticker is in the event loop that runs the flush."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks import environment, goals, measure, options, report
from benchmarks.goals import Goal
from benchmarks.measure import Cell, Contender, Results
from benchmarks.session import Findings, Session
from benchmarks.sinks import Network

PEERS = {
    "ours": "ours",
    "first": "ours, first flush of a process",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    options.spool(parser, default="typical,big,huge")
    options.network(parser)
    options.where(parser)
    options.repeat(parser)
    parser.add_argument(
        "--contenders",
        type=options.words,
        default=["ours", "first"],
        metavar="NAMES",
        help="ours, first (ours, with the imports of a process's first flush) (default: ours,first)",
    )


def run(session: Session) -> Findings:
    """Every spool: the ticker alone, then beside the flush, in the same process."""
    asked = session.options
    contenders = [_contender(peer) for peer in options.chosen(asked.contenders, PEERS, "contender")]
    findings = Findings()
    session.show(environment.one_line())
    for where in asked.where:
        workspace = session.workspace(where)
        for spool in session.spools(workspace):
            for latency in asked.latency_ms:
                network = Network(latency, asked.bandwidth)
                cell = measure.compare(workspace, spool, network, contenders, asked.repeat, session.say)
                session.show(f"\n{_text(cell)}")
                findings.add([cell])
                findings.goals += _goals(cell)
    findings.body["lateness"] = [_summary(cell, each) for cell in findings.cells for each in cell.results]
    session.show("")
    return findings


def _contender(peer: str) -> Contender:
    return Contender(PEERS[peer], "lateness", {"peer": peer})


def _figures(results: Results, part: str) -> dict[str, float]:
    """Medians over the runs of p50, p99 and the worst, in ms, and the very worst of all runs."""
    runs: list[dict[str, float]] = [run.lateness[part] for run in results.runs if run.lateness]
    found = {figure: statistics.median(run[figure] for run in runs) for figure in ("p50", "p99", "worst")}
    found["ever"] = max(run["worst"] for run in runs)
    found["ticks"] = statistics.median(run["ticks"] for run in runs)
    return found


def _text(cell: Cell) -> str:
    rows = [["lateness of a 1 ms ticker, ms", "p50", "p99", "worst", "worst of all runs", "ticks a run"]]
    for each in cell.results:
        if not each.runs:
            continue
        if each is cell.results[0]:
            rows.append(_row("alone in the loop", _figures(each, "alone")))
        rows.append(_row(each.contender.name, _figures(each, "flush")))
    errors = [f"\n  {each.contender.name}: no figure: {each.error}" for each in cell.results if each.error]
    return f"{report.title(cell)}\n{report.table(rows)}{''.join(errors)}"


def _row(name: str, figures: dict[str, float]) -> list[str]:
    return [
        name,
        *(f"{figures[figure]:.2f}" for figure in ("p50", "p99", "worst", "ever")),
        f"{figures['ticks']:,.0f}",
    ]


def _goals(cell: Cell) -> list[Goal]:
    results = cell.of(PEERS["ours"])
    if results is None:
        return []
    figures = _figures(results, "flush")
    name = f"lateness, {cell.spool}, {cell.network.latency_ms:g} ms, {cell.file_system}"
    return [
        Goal(f"{name}: 99th percentile", figures["p99"], goals.LATE_P99_MS, at_most=True, unit="ms"),
        Goal(f"{name}: worst", figures["worst"], goals.LATE_WORST_MS, at_most=True, unit="ms"),
    ]


def _summary(cell: Cell, results: Results) -> dict[str, Any]:
    return {
        "spool": cell.spool,
        "latency_ms": cell.network.latency_ms,
        "file_system": cell.file_system,
        "contender": results.contender.name,
        "alone_ms": _figures(results, "alone") if results.runs else None,
        "flush_ms": _figures(results, "flush") if results.runs else None,
    }
