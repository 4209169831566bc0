"""What several requests in flight bring: ours with N of them beside ours in strict order."""

from __future__ import annotations

import argparse

from benchmarks import environment, goals, measure, options, report
from benchmarks.goals import Goal
from benchmarks.measure import Cell
from benchmarks.session import Findings, Session
from benchmarks.sinks import Network

SIZES = (2, 4, 8, 16)


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    options.spool(parser)
    options.network(parser, latency=(goals.WINDOW_LATENCY_MS,))
    options.where(parser)
    options.repeat(parser, default=3)
    parser.add_argument(
        "--in-flight",
        type=options.numbers,
        default=list(SIZES),
        metavar="N",
        help="how many, with commas (default: 2,4,8,16)",
    )


def run(session: Session) -> Findings:
    """One cell a spool and latency, all windows in it."""
    asked = session.options
    findings = Findings()
    session.show(environment.one_line())
    strict = measure.ours()
    windows = [measure.ours(f"thread, {n} in flight", in_flight=n) for n in asked.in_flight if n > 1]
    for where in asked.where:
        workspace = session.workspace(where)
        for spool in session.spools(workspace):
            for latency in asked.latency_ms:
                network = Network(latency, asked.bandwidth)
                cell = measure.compare(
                    workspace, spool, network, [strict, *windows], asked.repeat, session.say
                )
                session.show(f"\n{_text(cell)}")
                findings.add([cell])
                findings.goals += _goals(cell)
    session.show("")
    return findings


def _text(cell: Cell) -> str:
    strict = cell.of("thread")
    slowest = strict.median("seconds") if strict else None
    rows = [["in flight", "seconds (min..max)", "times as fast", "CPU s", "peak MB", "seen in flight"]]
    for each in cell.results:
        median, spread = each.median("seconds"), each.spread("seconds")
        if median is None or spread is None:
            continue
        rows.append(
            [
                str(each.contender.in_flight),
                report.with_spread(median, spread),
                f"{slowest / median:.2f}" if slowest else "-",
                f"{each.median('cpu_seconds') or 0:.2f}",
                f"{(each.median('peak_bytes') or 0) / report.MB:.1f}",
                f"{each.median('open_most') or 0:.0f}",
            ]
        )
    errors = [f"\n  {each.contender.name}: no figure: {each.error}" for each in cell.results if each.error]
    return f"{report.title(cell)}\n{report.table(rows)}{''.join(errors)}"


def _goals(cell: Cell) -> list[Goal]:
    strict = cell.of("thread")
    slowest = strict.median("seconds") if strict else None
    if slowest is None or cell.network.latency_ms != goals.WINDOW_LATENCY_MS or cell.network.bandwidth:
        return []
    found = []
    for each in cell.results:
        seconds, limit = each.median("seconds"), goals.WINDOW_SPEEDUP.get(each.contender.in_flight)
        if seconds and limit:
            where = f"{cell.spool}, {cell.network.latency_ms:g} ms, {cell.file_system}"
            name = f"{where}: {each.contender.in_flight} in flight"
            found.append(Goal(f"{name}, times as fast as one", slowest / seconds, limit, at_most=False))
    return found
