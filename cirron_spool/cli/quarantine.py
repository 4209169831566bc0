"""``quarantine list``, ``retry`` and ``clear``: the rejected batches beside the spool."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cirron_spool.cli import render
from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.offline_steps import FINE, Ending, next_command, refusal, warn_of
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_ATTENTION, EXIT_OK, ConfigError
from cirron_spool.settings.paths import quarantine_path, spool_directory
from cirron_spool.spool.quarantine import entries, put_back, remove
from cirron_spool.text import count, printable, reason


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Run the action that the arguments name; return the exit code."""
    del signals
    actions = {"list": _list, "retry": _retry, "clear": _clear}
    return actions[options.action](options, console)


def _list(options: argparse.Namespace, console: Console) -> int:
    spool = spool_directory(options.dir, os.environ)
    aside = entries(spool)
    place = str(quarantine_path(spool))
    exists = bool(aside) or _warn_if_missing(spool, options, console)
    if options.json:
        document = render.quarantine_json(place, aside)
        return console.end(EXIT_OK, {**document, **render.existence(exists=exists)})
    if aside:
        console.data(render.quarantine_lines(printable(place), aside, console.columns, console.rows))
    else:
        console.line(f"No batches in quarantine in {printable(place)}")
    return EXIT_OK


def _retry(options: argparse.Namespace, console: Console) -> int:
    spool = spool_directory(options.dir, os.environ)
    names = _chosen(options, console)
    if not names:
        return _end(spool, "moved", 0, [], console)
    done, failed = put_back(spool, names)
    for name, error in failed:
        console.error(f"Could not move {name} back: {reason(error)}.")
    if (done or not failed) and not options.json:
        flush = next_command("flush", options)
        console.line(f"Success: Moved {count(done, 'batch')} back into the spool. Run {flush} to send them.")
    return _end(spool, "moved", done, failed, console)


def _clear(options: argparse.Namespace, console: Console) -> int:
    spool = spool_directory(options.dir, os.environ)
    names = _chosen(options, console)
    if not names:
        return _end(spool, "deleted", 0, [], console)
    place = printable(str(quarantine_path(spool)))
    question = f"? Delete {count(len(names), 'rejected batch')} from {place}? (y/N) "
    if not options.force and (refused := refusal(question, console)) is not None:
        return _end(spool, "deleted", 0, [], console, refused)
    done, failed = remove(spool, names)
    for name, error in failed:
        console.error(f"Could not delete {name}: {reason(error)}.")
    if (done or not failed) and not options.json:
        console.line(f"Success: Deleted {count(done, 'rejected batch')}.")
    return _end(spool, "deleted", done, failed, console)


def _end(
    spool: Path,
    deed: str,
    done: int,
    failed: list[tuple[str, OSError]],
    console: Console,
    ending: Ending = FINE,
) -> int:
    """End with the counts, ``done`` under the key ``deed``; return the exit code."""
    exit_code, fault = ending
    if failed:
        name, error = failed[-1]
        exit_code, fault = EXIT_ATTENTION, Fault("QuarantineError", f"{printable(name)}: {reason(error)}.")
    document = {"dir": str(quarantine_path(spool)), deed: done, "failed": len(failed)}
    return console.end(exit_code, document, fault)


def _chosen(options: argparse.Namespace, console: Console) -> list[str]:
    """The batches of a quarantine command. Raises ConfigError for a missing one."""
    spool = spool_directory(options.dir, os.environ)
    there = [rejection.name for rejection in entries(spool)]
    if not options.names:
        if not there:
            _warn_if_missing(spool, options, console)
            if not options.json:
                console.line(f"No batches in quarantine in {printable(str(quarantine_path(spool)))}")
        return there
    for name in options.names:
        if name not in there:
            listing = next_command("quarantine list", options)
            raise ConfigError(f"{printable(name)} is not in quarantine (see {listing}).")
    return list(options.names)


def _warn_if_missing(spool: Path, options: argparse.Namespace, console: Console) -> bool:
    """Whether the spool of an empty quarantine exists; warns if not."""
    exists = os.path.isdir(spool)
    if not exists:
        warn_of(spool, options, console, exists=False)
    return exists
