"""``clear``: delete every batch in the spool, after asking."""

from __future__ import annotations

import argparse

from cirron_spool.cli import render
from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.offline_steps import FINE, Ending, refusal, warn_of
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_ATTENTION
from cirron_spool.offline import ClearResult, clear_spool, inspect_spool
from cirron_spool.text import count, human_size, printable


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Clear the spool as the arguments say; return the exit code."""
    del signals
    inventory = inspect_spool(options.dir)
    for warning in inventory.warnings:
        console.warning(warning)
    place = printable(str(inventory.directory))
    if not inventory.entries:
        warn_of(inventory.directory, options, console, exists=inventory.exists)
        if not options.json:
            console.line(f"No spool files to clear in {place}")
        return _end(ClearResult(inventory.directory, 0, 0, exists=inventory.exists), console)
    what = f"{count(len(inventory.entries), 'spool file')} ({human_size(inventory.total_bytes)}) from {place}"
    if not options.force and (refused := refusal(f"? Delete {what}? (y/N) ", console)) is not None:
        return _end(ClearResult(inventory.directory, 0, 0), console, refused)
    result = clear_spool(inventory=inventory)
    fault = None
    for name, why in result.failures:
        fault = Fault("DeleteError", f"Could not delete {name}: {why}.")
        console.error(fault.message)
    if not options.json and (result.deleted or not result.failures):
        console.line(f"Success: Deleted {count(result.deleted, 'spool file')}.")
    return _end(result, console, (EXIT_ATTENTION, fault) if fault is not None else FINE)


def _end(result: ClearResult, console: Console, how: Ending = FINE) -> int:
    document = {
        "dir": str(result.directory),
        "deleted": result.deleted,
        "failed": result.failed,
        "bytes": result.bytes,
        **render.existence(exists=result.exists),
    }
    return console.end(how[0], document, how[1])
