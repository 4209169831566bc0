"""Deliver spools with both disk strategies, beside the floor and the official tool's way."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from benchmarks import environment, goals, measure, options, report
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Contender
from benchmarks.session import Findings, Session
from benchmarks.sinks import Network


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    options.spool(parser, default="typical,tiny")
    options.network(parser, latency=(0.0, 1.0, 20.0))
    options.where(parser)
    options.repeat(parser)
    options.verification(parser)
    parser.add_argument(
        "--contenders",
        type=options.words,
        default=list(measure.CONTENDERS),
        metavar="NAMES",
        help=f"which, with commas (default: {','.join(measure.CONTENDERS)}; node only where it is installed)",
    )
    options.in_flight(parser)
    parser.add_argument(
        "--sink",
        choices=("answer-only", "receiver"),
        default="answer-only",
        help="what to deliver to: a server that only answers, or the real receiver, which stores durably",
    )


def contenders(names: Sequence[str], in_flight: Sequence[int] = (), verify: bool = True) -> list[Contender]:
    """The contenders called ``names``; without node, its peer is left out."""
    chosen = []
    for name in options.chosen(names, measure.CONTENDERS, "contender"):
        contender = measure.CONTENDERS[name]
        if contender.program == "node" and environment.node() is None:
            continue
        if contender.program == "ours" and not verify:
            contender = dataclasses.replace(contender, options={**contender.options, "verify": False})
        chosen.append(contender)
        if contender.program == "ours":
            chosen += [
                measure.ours(f"{name}, {number} in flight", **{**contender.options, "in_flight": number})
                for number in in_flight
            ]
    if not chosen:
        raise BenchmarkError("There is no contender to run.")
    return chosen


def run(session: Session) -> Findings:
    """Every spool at every latency on every file system."""
    asked = session.options
    chosen = contenders(asked.contenders, asked.in_flight, asked.verify)
    findings = Findings()
    session.show(environment.one_line())
    for where in asked.where:
        workspace = session.workspace(where)
        for spool in session.spools(workspace):
            for latency in asked.latency_ms:
                network = Network(latency, asked.bandwidth)
                cell = measure.compare(
                    workspace, spool, network, chosen, asked.repeat, session.say, asked.sink
                )
                session.show(f"\n{report.cell_text(cell)}")
                findings.add([cell])
    findings.goals = goals.of_cells(findings.cells)
    session.show("")
    return findings
