"""``flush --metrics-file``: the file of one command, for one spool or several."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from cirron_spool.settings.paths import find_spool

if TYPE_CHECKING:
    from cirron_spool.cli.console import Console
    from cirron_spool.events import FlushResult, FlushSpoolsResult
    from cirron_spool.telemetry.metrics_file import MetricsFile


def open_metrics(options: argparse.Namespace, console: Console) -> MetricsFile | None:
    """The metrics file of a flush; None for a dry run. Raises ConfigError."""
    if options.dry_run:
        return None
    from cirron_spool.telemetry.metrics_file import MetricsFile  # late import: rarely needed

    named = [*options.discover, *options.dirs] or [None]
    places = [find_spool(place, os.environ, file_needed=False).path for place in named]
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    # Spools below a root are added when they are found.
    spools = places[len(options.discover) :]
    return MetricsFile(options.metrics_file, f"{places[0]}{more}", spools, console.warning)


def end_metrics(
    metrics: MetricsFile | None, exit_code: int, result: FlushResult | FlushSpoolsResult | None = None
) -> int:
    """Write the end of the command, with all spools in ``result``; return ``exit_code``."""
    if metrics is not None:
        for spool in getattr(result, "spools", ()):
            metrics.add_spool(spool.directory)
        metrics.end(exit_code)
    return exit_code
