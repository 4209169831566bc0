"""``traces``: read the batches, and show their sessions. Nothing is changed."""

from __future__ import annotations

import argparse
import os

from cirron_spool.cli import traces_export, traces_list, traces_snapshots, traces_view
from cirron_spool.cli.console import Console
from cirron_spool.cli.offline_steps import warn_of
from cirron_spool.cli.render import existence
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_OK
from cirron_spool.settings.paths import spool_directory
from cirron_spool.text import count, printable
from cirron_spool.traces.forms import document
from cirron_spool.traces.records import KINDS
from cirron_spool.traces.trace import Trace, read_trace

# The kinds of records that an action shows with all their fields.
_DETAILED: dict[str, tuple[str, ...]] = {"list": (), "view": (), "export": KINDS, "snapshots": ("snapshots",)}
_ACTIONS = {
    "list": traces_list.show,
    "view": traces_view.show,
    "export": traces_export.export,
    "snapshots": traces_snapshots.show,
}
# Most warnings about single batches.
_MOST_WARNINGS = 50


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Read the spool, and run the action that the arguments name; return the exit code."""
    del signals
    path = spool_directory(options.dir, os.environ)
    warnings = _Warnings(console)
    with read_trace(path, warnings.warn, _DETAILED[options.action]) as trace:
        warnings.finish()
        _tell_of(trace, console)
        if not trace.sessions:
            return _empty(trace, options, console)
        return _ACTIONS[options.action](trace, options, console)


class _Warnings:
    """The warnings about single batches. Beyond fifty they are only counted."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0

    def warn(self, line: str) -> None:
        self._number += 1
        if self._number <= _MOST_WARNINGS:
            self._console.warning(line)

    def finish(self) -> None:
        if self._number > _MOST_WARNINGS:
            self._console.warning(
                f"{count(self._number - _MOST_WARNINGS, 'further warning')} about single batches."
            )


def _tell_of(trace: Trace, console: Console) -> None:
    """Print a note about inconsistent records."""
    notes = (
        (trace.orphans, "span", "without a parent here. It is open, was lost, or went with an earlier flush"),
        (trace.found.cycles, "span", "in a circle of parents, which is cut"),
        (trace.loaded.duplicates, "record", "twice here, counted once"),
    )
    for number, what, where in notes:
        if number:
            console.say(f"Note: {count(number, what)} {where}.")


def _empty(trace: Trace, options: argparse.Namespace, console: Console) -> int:
    exists = trace.path.exists()
    if not trace.loaded.broken:
        warn_of(trace.path, options, console, exists=exists)
    if options.action == "export":
        return traces_export.export(trace, options, console)
    if options.json:
        name = "snapshots" if options.action == "snapshots" else "sessions"
        return console.end(EXIT_OK, document(trace, name, []) | existence(exists=exists))
    console.line(f"No traces found in {printable(str(trace.path))}")
    return EXIT_OK
