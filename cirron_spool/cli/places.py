"""The spools that the arguments name: one, or several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cirron_spool.errors import (
    EXIT_ATTENTION,
    EXIT_AUTH,
    EXIT_OK,
    EXIT_TEMPFAIL,
    EXIT_USAGE,
    ConfigError,
)
from cirron_spool.text import count, printable

if TYPE_CHECKING:
    from cirron_spool.cli.console import Console
    from cirron_spool.spool.discovery import SkippedFolder

# The exit codes of the offline commands, the most serious first.
_SEVERITY = (EXIT_USAGE, EXIT_AUTH, EXIT_ATTENTION, EXIT_TEMPFAIL, EXIT_OK)

# Most skipped folders, and most spools with a problem, that are named.
MOST_NAMED = 50


def are_several(options: argparse.Namespace) -> bool:
    """Whether the arguments name several spools. Raises ConfigError if an option needs several spools and has one."""
    several = bool(options.discover) or len(options.dirs) > 1
    if not several and getattr(options, "spools", None) is not None:
        _lacks("--spools")
    if options.cross_file_systems and not options.discover:
        _lacks("--cross-file-systems")
    return several


def find_spools(options: argparse.Namespace, console: Console) -> list[Path]:
    """The spools at and below each ``--discover``, and each ``--dir``. Warns of each skipped folder.

    Raises SpoolError for a root that cannot be searched.
    """
    from cirron_spool.settings.paths import spool_directory  # late import: inspect must start fast
    from cirron_spool.spool.discovery import discover, distinct

    passed: list[SkippedFolder] = []
    roots = [spool_directory(root, {}) for root in options.discover]
    named = distinct(spool_directory(each, {}) for each in options.dirs)
    search = discover(
        roots, cross_file_systems=options.cross_file_systems, on_skip=passed.append, exclude=named
    )
    found = [spool.path for spool in search]
    for folder in passed[:MOST_NAMED]:
        console.warning(f"Skipped {printable(str(folder.path))}: {folder.reason}.")
    if len(passed) > MOST_NAMED:
        console.warning(f"{count(len(passed) - MOST_NAMED, 'further folder')} skipped.")
    return found + named


def more_serious(one: int, other: int) -> int:
    """The more serious of two exit codes."""
    return min(one, other, key=_SEVERITY.index)


def no_spools(options: argparse.Namespace) -> str:
    """The message of a command that found no spool."""
    return f"No spools found below {', '.join(printable(root) for root in options.discover)}"


def next_command_on_several(words: str, options: argparse.Namespace) -> str:
    """The command line of a next command on the same spools."""
    import shlex  # late import: rarely needed

    given = [f"--discover {shlex.quote(root)}" for root in options.discover]
    given += [f"--dir {shlex.quote(directory)}" for directory in options.dirs]
    return printable(" ".join([f"cirron-spool {words}", *given]))


def _lacks(flag: str) -> NoReturn:
    raise ConfigError(f"{flag} is for several spools. Add --discover ROOT, or leave {flag} out.")
