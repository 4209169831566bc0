"""``clear``: delete the batches in the spool, after asking."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cirron_spool.cli import render
from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.offline_steps import FINE, Ending, refusal, warn_of
from cirron_spool.cli.places import are_several
from cirron_spool.cli.selection import dry_run_json, dry_run_lines, left_out_json, selection_of
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_ATTENTION
from cirron_spool.offline import ClearResult, clear_spool, inspect_spool
from cirron_spool.spool.listing import Entry
from cirron_spool.text import count, human_size, printable


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Clear the spool as the arguments say; return the exit code."""
    del signals
    if are_several(options):
        from cirron_spool.cli.clear_many import ClearMany  # late import: rarely needed

        return ClearMany(options, console).run()
    inventory = inspect_spool(options.dir, selection=selection_of(options))
    for warning in inventory.warnings:
        console.warning(warning)
    nothing = ClearResult(inventory.directory, 0, 0, exists=inventory.exists, left_out=inventory.left_out)
    place = printable(str(inventory.directory))
    empty = not (inventory.entries or inventory.left_out)
    if empty:
        warn_of(inventory.directory, options, console, exists=inventory.exists)
    if options.dry_run or not inventory.entries:
        if empty and not options.json:
            console.line(f"No spool files to clear in {place}")
        elif not options.json:
            console.data(dry_run_lines(inventory, "would be deleted.", console.columns, console.rows))
        return _end(nothing, options, console, planned=inventory.entries if options.dry_run else None)
    what = f"{count(len(inventory.entries), 'spool file')} ({human_size(inventory.total_bytes)}) from {place}"
    if not options.force and (refused := refusal(f"? Delete {what}? (y/N) ", console)) is not None:
        return _end(nothing, options, console, refused)
    result = clear_spool(inventory=inventory)
    fault = None
    for name, why in result.failures:
        fault = Fault("DeleteError", f"Could not delete {name}: {why}.")
        console.error(fault.message)
    if not options.json and (result.deleted or not result.failures):
        console.line(f"Success: Deleted {count(result.deleted, 'spool file')}.")
        if result.left_out:
            console.line(render.left_out(result.left_out))
    return _end(result, options, console, (EXIT_ATTENTION, fault) if fault is not None else FINE)


def _end(
    result: ClearResult,
    options: argparse.Namespace,
    console: Console,
    how: Ending = FINE,
    planned: Sequence[Entry] | None = None,
) -> int:
    document = {
        "dir": str(result.directory),
        "deleted": result.deleted,
        "failed": result.failed,
        "bytes": result.bytes,
        **(dry_run_json(planned) if planned is not None else {}),
        **left_out_json(options, result.left_out),
        **render.existence(exists=result.exists),
    }
    return console.end(how[0], document, how[1])
