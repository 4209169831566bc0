"""``inspect``, ``clear`` and ``quarantine``: the commands that need no network."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cirron_spool.cli import render
from cirron_spool.cli.console import Console, Fault
from cirron_spool.errors import EXIT_ATTENTION, EXIT_OK, EXIT_USAGE, ConfigError
from cirron_spool.offline import ClearResult, clear_spool, inspect_spool
from cirron_spool.settings.paths import quarantine_path, spool_directory
from cirron_spool.spool.quarantine import entries as quarantine_entries
from cirron_spool.spool.quarantine import entries_if_readable, put_back, remove
from cirron_spool.text import count, human_size, printable, reason

# An exit code, and why the command failed, if it did.
_Outcome = tuple[int, Fault | None]
_FINE: _Outcome = (EXIT_OK, None)


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the command that was parsed."""
    if options.run == "inspect":
        return _inspect(options, console)
    if options.run == "clear":
        return _clear(options, console)
    actions = {"list": _quarantine_list, "retry": _quarantine_retry, "clear": _quarantine_clear}
    return actions[options.action](options, console)


def _inspect(options: argparse.Namespace, console: Console) -> int:
    inventory = inspect_spool(options.dir)
    aside, unreadable = entries_if_readable(inventory.directory)
    for warning in (*inventory.warnings, unreadable):
        if warning:
            console.warning(warning)
    if not inventory.entries:
        _warn_of(inventory.directory, options, console, exists=inventory.exists)
    if options.json:
        # The form is the reference page's; further keys are for what the page does not show.
        ending = render.existence(exists=inventory.exists)
        if console.warnings:
            ending |= console.ending(EXIT_OK)
        console.data(render.inventory_json(inventory, aside, ending))
    else:
        listing = _command("quarantine list", options) if aside else ""
        console.data(render.inventory_lines(inventory, aside, listing, console.columns, console.rows))
    return EXIT_OK


def _clear(options: argparse.Namespace, console: Console) -> int:
    inventory = inspect_spool(options.dir)
    for warning in inventory.warnings:
        console.warning(warning)
    place = printable(str(inventory.directory))
    if not inventory.entries:
        _warn_of(inventory.directory, options, console, exists=inventory.exists)
        if not options.json:
            console.line(f"No spool files to clear in {place}")
        return _end_clear(ClearResult(inventory.directory, 0, 0, exists=inventory.exists), console)
    what = f"{count(len(inventory.entries), 'spool file')} ({human_size(inventory.total_bytes)}) from {place}"
    if not options.force and (refusal := _refusal(f"? Delete {what}? (y/N) ", console)) is not None:
        return _end_clear(ClearResult(inventory.directory, 0, 0), console, refusal)
    result = clear_spool(inventory=inventory)
    fault = None
    for name, why in result.failures:
        fault = Fault("DeleteError", f"Could not delete {name}: {why}.")
        console.error(fault.message)
    if not options.json and (result.deleted or not result.failures):
        console.line(f"Success: Deleted {count(result.deleted, 'spool file')}.")
    return _end_clear(result, console, (EXIT_ATTENTION, fault) if fault is not None else _FINE)


def _end_clear(result: ClearResult, console: Console, how: _Outcome = _FINE) -> int:
    document = {
        "dir": str(result.directory),
        "deleted": result.deleted,
        "failed": result.failed,
        "bytes": result.bytes,
        **render.existence(exists=result.exists),
    }
    return console.end(how[0], document, how[1])


def _refusal(question: str, console: Console) -> _Outcome | None:
    """How a command ends that was not agreed to; None when it was."""
    answer = console.ask(question, on=sys.stdout if console.is_for_person else sys.stderr)
    if answer is not None and answer.strip().lower() in ("y", "yes"):
        return None
    fault = None
    if answer is None:
        fault = Fault(
            "NoAnswer", "Nothing was deleted: there was no answer. Pass --force to delete without asking."
        )
        console.warning(fault.message)
    if console.json:
        console.say("Cancelled.")
    else:
        console.line("Cancelled.")
    return EXIT_OK if answer is not None else EXIT_USAGE, fault


def _quarantine_list(options: argparse.Namespace, console: Console) -> int:
    spool = spool_directory(options.dir, os.environ)
    aside = quarantine_entries(spool)
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


def _quarantine_retry(options: argparse.Namespace, console: Console) -> int:
    spool = spool_directory(options.dir, os.environ)
    names = _chosen(options, console)
    if not names:
        return EXIT_OK
    done, failed = put_back(spool, names)
    for name, error in failed:
        console.error(f"Could not move {name} back: {reason(error)}.")
    if done or not failed:
        flush = _command("flush", options)
        console.line(f"Success: Moved {count(done, 'batch')} back into the spool. Run {flush} to send them.")
    return EXIT_ATTENTION if failed else EXIT_OK


def _quarantine_clear(options: argparse.Namespace, console: Console) -> int:
    spool = spool_directory(options.dir, os.environ)
    names = _chosen(options, console)
    if not names:
        return EXIT_OK
    place = printable(str(quarantine_path(spool)))
    question = f"? Delete {count(len(names), 'rejected batch')} from {place}? (y/N) "
    if not options.force and (refusal := _refusal(question, console)) is not None:
        return refusal[0]
    done, failed = remove(spool, names)
    for name, error in failed:
        console.error(f"Could not delete {name}: {reason(error)}.")
    if done or not failed:
        console.line(f"Success: Deleted {count(done, 'rejected batch')}.")
    return EXIT_ATTENTION if failed else EXIT_OK


def _chosen(options: argparse.Namespace, console: Console) -> list[str]:
    """The batches a quarantine command is for. Raises ConfigError for one that is not there."""
    spool = spool_directory(options.dir, os.environ)
    there = [rejection.name for rejection in quarantine_entries(spool)]
    if not options.names:
        if not there:
            _warn_if_missing(spool, options, console)
            console.line(f"No batches in quarantine in {printable(str(quarantine_path(spool)))}")
        return there
    for name in options.names:
        if name not in there:
            listing = _command("quarantine list", options)
            raise ConfigError(f"{printable(name)} is not in quarantine (see {listing}).")
    return list(options.names)


def _warn_of(directory: Path, options: argparse.Namespace, console: Console, *, exists: bool) -> None:
    # Seldom needed, and inspect is to start fast.
    from cirron_spool.cli.directory_hints import warn_of_directory

    warn_of_directory(options.dir, directory, console, exists=exists)


def _warn_if_missing(spool: Path, options: argparse.Namespace, console: Console) -> bool:
    """Whether the spool of an empty quarantine is there; warns if not."""
    exists = os.path.isdir(spool)
    if not exists:
        _warn_of(spool, options, console, exists=False)
    return exists


def _command(words: str, options: argparse.Namespace) -> str:
    """The command to run next, on the spool that this one was run on."""
    if options.dir is None:
        return f"cirron-spool {words}"
    import shlex  # seldom needed, and inspect is to start fast

    option = "--dir=" if options.dir.startswith("-") else "--dir "
    return f"cirron-spool {words} {option}{printable(shlex.quote(options.dir))}"
