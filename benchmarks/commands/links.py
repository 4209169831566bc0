"""gzip libraries and levels on links of different speeds: which one is best where, and how the default does."""

from __future__ import annotations

import argparse

from benchmarks import environment, goals, measure, options, report, settings
from benchmarks.goals import Goal
from benchmarks.measure import Cell
from benchmarks.session import Findings, Session
from benchmarks.sinks import Network


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    options.spool(parser)
    parser.set_defaults(batches=[100])
    parser.add_argument(
        "--speeds",
        type=options.amounts,
        default=[1e6, 10e6, 100e6],
        metavar="BYTES",
        help="bytes a second, with commas (default: 1M,10M,100M)",
    )
    parser.add_argument(
        "--latency-ms",
        type=options.milliseconds,
        default=[20.0],
        metavar="MS",
        help="delay of every answer (default: 20)",
    )
    options.where(parser)
    options.repeat(parser, default=3)


def run(session: Session) -> Findings:
    """One cell a speed: the default and every fixed library and level."""
    asked = session.options
    findings = Findings()
    session.show(environment.one_line())
    contenders = [settings.DEFAULT.contender(), *(each.contender() for each in settings.gzip_settings())]
    for where in asked.where:
        workspace = session.workspace(where)
        for spool in session.spools(workspace):
            for latency in asked.latency_ms:
                cells = []
                for speed in asked.speeds:
                    network = Network(latency, speed)
                    cells.append(
                        measure.compare(workspace, spool, network, contenders, asked.repeat, session.say)
                    )
                    findings.goals += _goals(cells[-1])
                session.show(f"\n{_text(cells)}")
                findings.add(cells)
    session.show("")
    return findings


def _text(cells: list[Cell]) -> str:
    first = cells[0]
    rows = [["gzip", "sent MB", "CPU s"]]
    for cell in cells:
        rows[0] += [f"{(cell.network.bandwidth or 0) / report.MB:g} MB/s: seconds (min..max)", "x default"]
    for index, each in enumerate(first.results):
        sent, cpu = each.median("sent_bytes"), each.median("cpu_seconds")
        row = [each.contender.name, f"{(sent or 0) / report.MB:.3f}", f"{cpu or 0:.2f}"]
        for cell in cells:
            results, default = cell.results[index], cell.results[0].median("seconds")
            median, spread = results.median("seconds"), results.spread("seconds")
            if median is None or spread is None or not default:
                row += ["-", "-"]
            else:
                row += [report.with_spread(median, spread), f"{median / default:.3f}"]
        rows.append(row)
    errors = {
        f"\n  {each.contender.name}: no figure: {each.error}"
        for cell in cells
        for each in cell.results
        if each.error
    }
    size = f"{first.batches:,} batches, {report.size(first.json_bytes)} of JSON"
    head = f"{first.spool}: {size}, on {first.file_system}"
    latency = f"{first.network.latency_ms:g} ms a request"
    return f"{head}; {latency}\n{report.table(rows)}{''.join(sorted(errors))}"


def _goals(cell: Cell) -> list[Goal]:
    default = cell.results[0].median("seconds")
    fixed = [(seconds, each) for each in cell.results[1:] if (seconds := each.median("seconds"))]
    if default is None or not fixed:
        return []
    best, results = min(fixed, key=lambda pair: pair[0])
    speed = f"{(cell.network.bandwidth or 0) / report.MB:g} MB/s"
    name = f"{cell.spool}, {speed}, {cell.network.latency_ms:g} ms: the default's seconds of the best fixed"
    return [Goal(f"{name} ({results.contender.name})", default / best, goals.LINK_TIMES_BEST, at_most=True)]
