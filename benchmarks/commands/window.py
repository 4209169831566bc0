"""The gain of several requests in flight, beside one."""

from __future__ import annotations

import argparse

from benchmarks import compare, options, report
from benchmarks.session import Session


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, spool="typical,tiny", latency="50", repeat=3, batches="400")
    parser.add_argument(
        "--in-flight",
        type=options.numbers,
        default=[8, 16],
        metavar="N",
        help="requests in flight, with commas (default: 8,16)",
    )


def run(session: Session) -> None:
    """Compare windows with strict order, for each strategy of disk work."""
    sizes = [size for size in session.options.in_flight if size > 1]
    for spool in session.spools():
        for network in session.networks():
            for disk_work in compare.STRATEGIES:
                contenders = [compare.strategy(disk_work, size) for size in (1, *sizes)]
                cell = session.compare(spool, contenders, network)
                strict = cell.find(disk_work)
                columns: list[report.Column] = [
                    report.SECONDS,
                    report.ratio_column("x one", strict),
                    report.CPU,
                    report.PEAK,
                    ("seen in flight", lambda each: f"{each.median('open_most'):.0f}"),
                ]
                session.show(report.cell_text(cell, columns, "in flight"))
                name = f"window {spool.name} {network.latency_ms:g}ms {disk_work}"
                for each in cell.measured():
                    if strict is not None and each is not strict:
                        figure = f"{name} {each.contender.in_flight} in flight: times as fast"
                        session.record(figure, report.ratio(strict, each))
