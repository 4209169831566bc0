"""The best settings for this machine and link: one factor at a time, then the best of each together.

The noise is half the spread of the default's runs. Settings within the noise of the fastest count as equal, and the
first of them is the best. The default is always first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from benchmarks import compare, options, report
from benchmarks.compare import Contender
from benchmarks.errors import BenchmarkError
from benchmarks.session import Session
from benchmarks.sink_client import Network
from benchmarks.spools import Spool
from cirron_spool import Tuning

KIB = 1024
MIB = 1024 * KIB

# The factors, each with a flag of `cirron-spool flush`, the name of the option in the library, and its values.
_FACTORS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "prefetch": ("prefetch_batches", (1, 4, 8, 16, 32, 64, 128)),
    "prefetch-bytes": ("prefetch_bytes", (256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB)),
    "chunk-bytes": ("chunk_bytes", (32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 4 * MIB)),
    "disk-work": ("disk_work", ("thread", "inline")),
    "gzip": ("gzip_level", ()),
    "in-flight": ("in_flight", (2, 4, 8, 16)),
}
_GZIP = {
    "isal": ("isal.isal_zlib", (0, 1, 2, 3)),
    "zlib-ng": ("zlib_ng.zlib_ng", (1, 2, 4, 6, 9)),
    "zlib": ("zlib", (1, 3, 6, 9)),
}
_FLAGS = {"prefetch_batches": "--prefetch"}


@dataclass(frozen=True)
class Setting:
    """The options of ``flush_spool`` that differ from the defaults."""

    values: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The flags of the options, or ``default``."""
        return _flags(dict(self.values)) or "default"

    @property
    def flags(self) -> str:
        """The flags of ``cirron-spool flush``. The command has another default for the disk work."""
        return _flags({"disk_work": Tuning().disk_work, **dict(self.values)})

    @property
    def call(self) -> str:
        """The arguments of ``flush_spool``."""
        tuning = ", ".join(f"{name}={value!r}" for name, value in self.values if name != "in_flight")
        in_flight = [f"in_flight={value}" for name, value in self.values if name == "in_flight"]
        return ", ".join(([f"tuning=Tuning({tuning})"] if tuning else []) + in_flight)

    def contender(self) -> Contender:
        """The flush with this setting."""
        return compare.flush(self.name, **dict(self.values))


DEFAULT = Setting()


def _flags(values: dict[str, Any]) -> str:
    flags = ((_FLAGS.get(name, "--" + name.replace("_", "-")), value) for name, value in values.items())
    return " ".join(f"{flag} {value}" for flag, value in flags)


def settings(factor: str) -> list[Setting]:
    """The values of a factor without the default."""
    if factor == "gzip":
        return [
            Setting((("gzip_library", library), ("gzip_level", level)))
            for library, (module, levels) in _GZIP.items()
            if _is_installed(module)
            for level in levels
        ]
    option, values = _FACTORS[factor]
    default = getattr(Tuning(), option, 1)
    return [Setting(((option, value),)) for value in values if value != default]


def _is_installed(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "directory", nargs="?", metavar="DIR", help="your own spool, which is copied (default: generated)"
    )
    options.add_common(parser, spool="typical", latency="20", batches="200")
    parser.add_argument(
        "--factors",
        type=options.words,
        default=list(_FACTORS),
        metavar="NAMES",
        help=f"with commas (default: {','.join(_FACTORS)})",
    )


def run(session: Session) -> None:
    """Sweep the factors of each spool over each network, then check the best together."""
    asked = session.options
    factors = options.choose(asked.factors, _FACTORS, "factor")
    if asked.directory is not None:
        asked.spool = [asked.directory]
    session.details["tune"] = [
        _tune(session, spool, network, factors)
        for spool in session.spools()
        for network in session.networks()
    ]


def _tune(session: Session, spool: Spool, network: Network, factors: Sequence[str]) -> dict[str, Any]:
    """The best value of each factor, then the best together. Several in flight give up the strict order."""
    strict: tuple[tuple[str, Any], ...] = ()
    wide: tuple[tuple[str, Any], ...] = ()
    found = []
    for factor in factors:
        values = [DEFAULT, *settings(factor)]
        medians, noise = _compare(session, spool, network, values)
        fastest, slowest = min(medians.values()), max(medians.values())
        best = next(setting for setting, seconds in medians.items() if seconds <= fastest * (1 + noise))
        session.show(
            f"  {factor}: best is {best.name} (best to worst {slowest / fastest:.2f} x, noise {noise:.1%})"
        )
        gain = medians[DEFAULT] / medians[best]
        found.append({"factor": factor, "best": best.name, "times_as_fast": gain, "noise": noise})
        if factor == "in-flight":
            wide = best.values
        else:
            strict += best.values
    together = [Setting(values) for values in dict.fromkeys((strict, strict + wide)) if values]
    suggestions = []
    if together:
        medians, noise = _compare(session, spool, network, [DEFAULT, *together])
        for setting in together:
            gain = medians[DEFAULT] / medians.get(setting, medians[DEFAULT])
            if gain > 1 + noise:
                session.show(
                    f"\n  {gain:.2f} x as fast as the default (noise {noise:.1%}):\n"
                    f"    cirron-spool flush {setting.flags}\n    await flush_spool({setting.call})"
                )
                suggestions.append({"flags": setting.flags, "call": setting.call, "times_as_fast": gain})
    if not suggestions:
        session.show("\nNothing was faster than the defaults by more than the noise.")
    return {"spool": spool.name, **asdict(network), "factors": found, "suggestions": suggestions}


def _compare(
    session: Session, spool: Spool, network: Network, candidates: list[Setting]
) -> tuple[dict[Setting, float], float]:
    """The median seconds of each candidate with a figure, and the noise as a share of the default's median."""
    cell = session.compare(spool, [each.contender() for each in candidates], network)
    default = cell.results[0]
    if not default.runs:
        raise BenchmarkError(f"The default has no figure: {default.error}")
    columns = [
        report.SECONDS,
        report.ratio_column("x default", default),
        report.CPU,
        report.PEAK,
        report.SENT,
    ]
    session.show(report.cell_text(cell, columns, "setting"))
    low, high = default.spread("seconds")
    paired = zip(candidates, cell.results, strict=True)
    medians = {setting: each.median("seconds") for setting, each in paired if each.runs}
    return medians, (high - low) / 2 / medians[DEFAULT]
