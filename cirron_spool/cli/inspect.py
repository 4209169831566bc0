"""``inspect``: list the spool."""

from __future__ import annotations

import argparse

from cirron_spool.cli import render
from cirron_spool.cli.console import Console
from cirron_spool.cli.offline_steps import next_command, warn_of
from cirron_spool.cli.selection import left_out_json, selection_of
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_OK
from cirron_spool.offline import inspect_spool
from cirron_spool.spool.quarantine import entries_if_readable


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """List the spool as the arguments say; return the exit code."""
    del signals
    inventory = inspect_spool(options.dir, selection=selection_of(options))
    aside, unreadable = entries_if_readable(inventory.directory)
    for warning in (*inventory.warnings, unreadable):
        if warning:
            console.warning(warning)
    if not (inventory.entries or inventory.left_out):
        warn_of(inventory.directory, options, console, exists=inventory.exists)
    if options.json:
        # The reference page fixes the form; a selection and warnings add further keys.
        ending = {**left_out_json(options, inventory.left_out), **render.existence(exists=inventory.exists)}
        if console.warnings:
            ending |= console.ending(EXIT_OK)
        console.data(render.inventory_json(inventory, aside, ending))
    else:
        listing = next_command("quarantine list", options) if aside else ""
        console.data(render.inventory_lines(inventory, aside, listing, console.columns, console.rows))
    return EXIT_OK
