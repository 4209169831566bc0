"""Steps of several offline commands: the confirmation, hints about the directory, the next command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cirron_spool.cli.console import Console, Fault
from cirron_spool.errors import EXIT_OK, EXIT_USAGE
from cirron_spool.text import printable

# An exit code, and the fault of a command that failed.
Ending = tuple[int, Fault | None]
FINE: Ending = (EXIT_OK, None)


def refusal(question: str, console: Console) -> Ending | None:
    """Ask for confirmation. Returns None for a yes, else the exit code and the fault of the command."""
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


def warn_of(directory: Path, options: argparse.Namespace, console: Console, *, exists: bool) -> None:
    """Warn of a directory without batches, and name a spool near it."""
    # Late imports: rarely needed, and inspect must start fast.
    from cirron_spool.cli.directory_hints import warn_of_directory

    warn_of_directory(options.dir, directory, console, exists=exists)


def next_command(words: str, options: argparse.Namespace) -> str:
    """The command line of a next command on the same spool."""
    if options.dir is None:
        return f"cirron-spool {words}"
    import shlex  # late import: rarely needed

    option = "--dir=" if options.dir.startswith("-") else "--dir "
    return f"cirron-spool {words} {option}{printable(shlex.quote(options.dir))}"
