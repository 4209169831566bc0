"""The peak resident memory of a flush: of many batches, and of large ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import compare, options, report
from benchmarks.compare import MB
from benchmarks.session import Session
from benchmarks.spools import SHAPES, Shape, Spool

COUNTS = (1_000, 20_000, 100_000)
LARGE = (
    Shape("1 of 300 MB", 1, 300_000_000, 300_000_000, snapshots=0.1),
    Shape("10 of 100 MB", 10, 100_000_000, 100_000_000, snapshots=0.1),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, repeat=3)
    parser.add_argument(
        "--counts",
        type=options.numbers,
        default=list(COUNTS),
        metavar="N",
        help="numbers of typical batches, with commas (default: 1000,20000,100000)",
    )
    parser.add_argument("--no-large", dest="large", action="store_false", help="leave the large batches out")


def run(session: Session) -> None:
    """Flush each spool with each strategy. Bodies are not compared here: a GB would take minutes."""
    contenders = [compare.strategy(disk_work) for disk_work in compare.STRATEGIES]
    peaks: dict[tuple[str, str], float] = {}
    for spool in _spools(session):
        cell = session.compare(spool, contenders, proof=False)
        columns: list[report.Column] = [
            ("median MB", lambda each: f"{each.median('peak_bytes') / MB:.1f}"),
            (
                "min..max MB",
                lambda each: "..".join(f"{value / MB:.1f}" for value in each.spread("peak_bytes")),
            ),
            ("before the flush MB", lambda each: f"{each.median('start_bytes') / MB:.1f}"),
            report.SECONDS,
        ]
        session.show(report.cell_text(cell, columns, "peak memory"))
        for each in cell.measured():
            name, peak = each.contender.name, each.median("peak_bytes") / MB
            peaks[spool.name, name] = peak
            session.record(f"memory {spool.name} {name}: peak MB", peak)
            small = peaks.get(("1,000 typical", name))
            if small is not None:
                session.record(f"memory {spool.name} {name}: MB above 1,000 typical", peak - small)


def _spools(session: Session) -> Iterator[Spool]:
    """Each spool is removed before the next, so that they take a gigabyte at a time."""
    counts = session.options.counts
    content = session.generate(replace(SHAPES["typical"], batches=min(1_000, *counts)))
    for count in counts:
        spool = session.workspace.multiply(content, count)
        yield replace(spool, name=f"{count:,} typical")
        session.workspace.remove(spool)
    for shape in LARGE if session.options.large else ():
        spool = session.generate(shape)
        yield spool
        session.workspace.remove(spool)
