"""``inspect``: list the spool."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

from cirron_spool.cli import render
from cirron_spool.cli.console import Console
from cirron_spool.cli.offline_steps import next_command, warn_of
from cirron_spool.cli.places import are_several
from cirron_spool.cli.selection import left_out_json, selection_of
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_OK, ConfigError
from cirron_spool.offline import Inventory, inspect_spool
from cirron_spool.settings.paths import spool_cap
from cirron_spool.spool.quarantine import Rejection, entries_if_readable
from cirron_spool.text import iso_utc, printable

# The forms of the output, by their flags.
_FORMS = {"--summary": "summary", "--last": "last", "--html": "html", "--json": "json"}


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """List the spool as the arguments say; return the exit code."""
    del signals
    given = [flag for flag, name in _FORMS.items() if getattr(options, name)]
    for one, other in (("--summary", "--last"), ("--summary", "--html"), ("--json", "--html")):
        if one in given and other in given:
            raise ConfigError(f"{one} and {other} exclude each other. Choose one.")
    if are_several(options):
        from cirron_spool.cli.inspect_many import InspectMany  # late import: rarely needed

        if used := [flag for flag in given if flag != "--json"]:
            raise ConfigError(f"{used[0]} is for one spool. Leave it out, or pass one --dir.")
        return InspectMany(options, console).run()
    inventory = inspect_spool(options.dir, selection=selection_of(options))
    aside, unreadable = entries_if_readable(inventory.directory)
    for warning in (*inventory.warnings, unreadable):
        if warning:
            console.warning(warning)
    if not (inventory.entries or inventory.left_out):
        warn_of(inventory.directory, options, console, exists=inventory.exists)
    if options.summary or options.html:
        return _summary(inventory, aside, options, console)
    if options.json:
        console.data(
            render.inventory_json(inventory, aside, _ending(inventory, options, console), options.last)
        )
    else:
        listing = _listing(aside, options)
        screen = console.columns, console.rows
        console.data(render.inventory_lines(inventory, aside, listing, *screen, options.last))
    return EXIT_OK


def _summary(
    inventory: Inventory, aside: Sequence[Rejection], options: argparse.Namespace, console: Console
) -> int:
    from cirron_spool.cli.summary import (
        summary_json,
        summary_lines,
        summary_page,
    )  # late import: inspect must start fast
    from cirron_spool.spool.summary import summarise

    figures = None
    if inventory.entries:
        cap = None if inventory.left_out else spool_cap(os.environ)
        figures = summarise(inventory.entries, cap=cap, now_ns=time.time_ns())
    if options.html:
        from cirron_spool.cli.output_file import write_file

        page = summary_page(inventory, figures, options.last, iso_utc(time.time_ns()))
        if options.html == "-":
            console.parts(page)
        else:
            write_file(options.html, page, option="--html")
            console.line(f"Success: The page is {printable(os.path.abspath(options.html))}.")
    elif options.json:
        ending = {"summary": summary_json(figures), **_ending(inventory, options, console)}
        console.data(render.inventory_json(inventory, aside, ending, last=0))
    elif figures is None:
        console.data(render.inventory_lines(inventory, aside, _listing(aside, options)))
    else:
        console.data(summary_lines(inventory, figures))
        console.data(render.lines_beside(inventory, aside, _listing(aside, options)))
    return EXIT_OK


def _listing(aside: Sequence[Rejection], options: argparse.Namespace) -> str:
    return next_command("quarantine list", options) if aside else ""


def _ending(inventory: Inventory, options: argparse.Namespace, console: Console) -> dict[str, object]:
    """Further keys, after those of the reference page."""
    ending = {**left_out_json(options, inventory.left_out), **render.existence(exists=inventory.exists)}
    return ending | console.ending(EXIT_OK) if console.warnings.lines() else ending
