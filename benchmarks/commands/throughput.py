"""The time of a flush with either strategy of disk work, beside the floor and Node."""

from __future__ import annotations

import argparse

from benchmarks import compare, machine, options, report
from benchmarks.compare import MB, Cell
from benchmarks.session import Session


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, spool="typical,tiny", latency="0,1,20")
    parser.add_argument(
        "--contenders",
        type=options.words,
        default=list(compare.CONTENDERS),
        metavar="NAMES",
        help=f"with commas (default: {','.join(compare.CONTENDERS)}; node only where it is installed)",
    )


def run(session: Session) -> None:
    """Compare the contenders on each spool over each network."""
    names = options.choose(session.options.contenders, compare.CONTENDERS, "contender")
    contenders = [compare.CONTENDERS[name] for name in names if name != "node" or machine.node()]
    for spool in session.spools():
        for network in session.networks():
            cell = session.compare(spool, contenders, network)
            session.show(_text(cell))
            _record(session, cell)
        if spool.name == "huge":
            session.workspace.remove(spool)


def _text(cell: Cell) -> str:
    json_bytes = cell.spool.json_bytes
    columns: list[report.Column] = [
        report.SECONDS,
        report.ratio_column("x floor", cell.find("floor")),
        report.ratio_column("x node", cell.find("node")),
        ("MB/s", lambda each: f"{json_bytes / MB / each.median('seconds'):.1f}"),
        report.CPU,
        report.PEAK,
        report.SENT,
        ("first request ms", lambda each: f"{each.median('first_request_ms'):.1f}"),
    ]
    return report.cell_text(cell, columns)


def _record(session: Session, cell: Cell) -> None:
    floor, node = cell.find("floor"), cell.find("node")
    for each in cell.measured():
        if each.contender.name not in compare.STRATEGIES:
            continue
        name = f"throughput {cell.spool.name} {cell.network.latency_ms:g}ms {each.contender.name}"
        session.record(f"{name}: times floor", report.ratio(each, floor))
        if node is not None:
            session.record(f"{name}: times as fast as node", report.ratio(node, each))
            session.record(f"{name}: times CPU of node", report.ratio(each, node, "cpu_seconds"))
