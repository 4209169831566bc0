"""Which settings are best on this machine and link: one factor at a time, then the best of each together.

The noise is half the distance from the default's fastest run to its slowest. Settings whose medians are within it of
the fastest are taken for equally good, and the first of them is the best: the default, where it is among them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from benchmarks import environment, measure, options, report, settings
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Cell, Results
from benchmarks.session import Findings, Session
from benchmarks.settings import DEFAULT, Setting
from benchmarks.sinks import Network
from benchmarks.spools import Spool, Workspace

FACTORS = ("prefetch", "prefetch-bytes", "chunk-bytes", "gzip", "in-flight")


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "directory",
        nargs="?",
        metavar="DIR",
        help="your own spool, which is copied and not touched (default: generated)",
    )
    options.spool(parser)
    parser.set_defaults(batches=[200])
    options.network(parser, latency=(20.0,))
    options.where(parser)
    options.repeat(parser)
    options.verification(parser)
    parser.add_argument(
        "--factors",
        type=options.words,
        default=list(FACTORS),
        metavar="NAMES",
        help=f"what to sweep, with commas (default: {','.join(FACTORS)})",
    )


@dataclass(frozen=True)
class Sweep:
    """One factor's outcome.

    ``gain`` is how many times as fast as the default the best one is, ``noise`` a share of the default's median.
    """

    factor: str
    cell: Cell
    best: Setting
    gain: float
    noise: float

    @property
    def matters(self) -> bool:
        """Whether the best setting is better than the default by more than the noise."""
        return self.best is not DEFAULT


def run(session: Session) -> Findings:
    """Sweep, then check what was found together."""
    asked = session.options
    known = settings.factors()
    chosen = options.chosen(asked.factors, known, "factor")
    if asked.directory is not None:
        asked.spool = [asked.directory]
    findings = Findings()
    session.show(environment.one_line())
    findings.body["tune"] = []
    for where in asked.where:
        workspace = session.workspace(where)
        for spool in session.spools(workspace):
            for latency in asked.latency_ms:
                network = Network(latency, asked.bandwidth)
                tuning = Tune(session, workspace, spool, network)
                for factor in chosen:
                    tuning.sweep(factor, known[factor])
                findings.add([*(sweep.cell for sweep in tuning.sweeps), *tuning.conclude()])
                findings.body["tune"].append(tuning.as_json())
    session.show("")
    return findings


class Tune:
    """The sweeps of one spool on one link."""

    def __init__(self, session: Session, workspace: Workspace, spool: Spool, network: Network) -> None:
        self._session = session
        self._workspace = workspace
        self._spool = spool
        self._network = network
        self.sweeps: list[Sweep] = []
        self._found: list[dict[str, Any]] = []

    def sweep(self, factor: str, values: list[Setting]) -> None:
        """Compare the values of one factor with the default."""
        if not values:
            return
        cell = self._compare([DEFAULT, *values])
        default, noise = _default(cell)
        by_name = {each.name: each for each in (DEFAULT, *values)}
        measured = [(seconds, each) for each in cell.results if (seconds := each.median("seconds"))]
        fastest = min(seconds for seconds, _ in measured)
        # The first that is as good as the fastest: the default before the others, less in flight before more.
        best_seconds, best = next(pair for pair in measured if pair[0] <= fastest * (1 + noise))
        found = Sweep(factor, cell, by_name[best.contender.name], default / best_seconds, noise)
        if not self.sweeps:
            self._session.show(f"\n{report.title(cell)}")
        self.sweeps.append(found)
        self._session.show(f"\n{factor}: {_verdict(found)}\n{_table(cell, default)}")

    def conclude(self) -> list[Cell]:
        """Run the best of each factor together; show the flags. In flight is apart: it trades the order away."""
        strict, wide = DEFAULT, DEFAULT
        for sweep in self.sweeps:
            if sweep.matters and sweep.factor == "in-flight":
                wide = sweep.best
            elif sweep.matters:
                strict = strict.joined(sweep.best)
        candidates = []
        if strict is not DEFAULT:
            candidates.append(strict)
        if wide is not DEFAULT:
            candidates.append(strict.joined(wide))
        if not candidates:
            self._session.show(
                "\nThe defaults are best here: nothing else was faster by more than the noise."
            )
            return []
        self._session.show("\ntogether, checked against the default once more")
        cell = self._compare([DEFAULT, *candidates])
        default, noise = _default(cell)
        for setting, results in zip(candidates, cell.results[1:], strict=True):
            self._suggest(setting, results, default, noise)
        return [cell]

    def _suggest(self, setting: Setting, results: Results, default: float, noise: float) -> None:
        seconds = results.median("seconds")
        if seconds is None:
            self._session.show(f"  {setting.name}: no figure: {results.error}")
            return
        gain = default / seconds
        kept = gain > 1 + noise
        self._found.append(
            {
                "flags": setting.flags(),
                "call": setting.call(),
                "times_as_fast": gain,
                "noise": noise,
                "kept": kept,
            }
        )
        if not kept:
            self._session.show(
                f"  {setting.name}: {gain:.2f} x, which is within the noise together: keep the defaults"
            )
            return
        order = " (the server may accept a batch before an older one)" if setting.in_flight > 1 else ""
        self._session.show(
            f"  {gain:.2f} x as fast as the default (noise {noise:.1%}){order}:\n"
            f"    cirron-spool flush {setting.flags()}\n"
            f"    await flush_spool({setting.call()})"
        )

    def _compare(self, candidates: list[Setting]) -> Cell:
        asked = self._session.options
        contenders = [each.contender(asked.verify) for each in candidates]
        return measure.compare(
            self._workspace, self._spool, self._network, contenders, asked.repeat, self._session.say
        )

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "spool": self._spool.name,
            "latency_ms": self._network.latency_ms,
            "bandwidth": self._network.bandwidth,
            "factors": [
                {
                    "factor": sweep.factor,
                    "best": sweep.best.name,
                    "flags": sweep.best.flags(),
                    "times_as_fast": sweep.gain,
                    "noise": sweep.noise,
                    "matters": sweep.matters,
                }
                for sweep in self.sweeps
            ],
            "suggestions": self._found,
        }


def _default(cell: Cell) -> tuple[float, float]:
    """The default's median seconds, and its noise as a share of that."""
    default = cell.results[0]
    median, spread = default.median("seconds"), default.spread("seconds")
    if median is None or spread is None:
        raise BenchmarkError(f"The default has no figure: {default.error}")
    return median, (spread[1] - spread[0]) / 2 / median


def _verdict(sweep: Sweep) -> str:
    medians = [seconds for each in sweep.cell.results if (seconds := each.median("seconds"))]
    reach = max(medians) / min(medians)
    matters = f"from best to worst {reach:.2f} x, noise {sweep.noise:.1%}"
    if sweep.matters:
        return f"{sweep.best.name} is best, {sweep.gain:.2f} x as fast as the default ({matters})"
    return f"the default is as good as any ({matters})"


def _table(cell: Cell, default: float) -> str:
    rows = [["setting", "seconds (min..max)", "x default", "CPU s", "peak MB", "sent MB"]]
    errors = []
    for each in cell.results:
        median, spread = each.median("seconds"), each.spread("seconds")
        if median is None or spread is None:
            errors.append(f"\n  {each.contender.name}: no figure: {each.error}")
            continue
        rows.append(
            [
                each.contender.name,
                report.with_spread(median, spread),
                f"{median / default:.3f}",
                f"{each.median('cpu_seconds') or 0:.2f}",
                f"{(each.median('peak_bytes') or 0) / report.MB:.1f}",
                f"{(each.median('sent_bytes') or 0) / report.MB:.2f}",
            ]
        )
    return f"{report.table(rows)}{''.join(errors)}"
