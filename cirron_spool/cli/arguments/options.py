"""Options and texts of several commands."""

from __future__ import annotations

import argparse

from cirron_spool.cli.arguments.values import Age, Whole, size_value

EXIT_CODES = (
    "exit codes: 0 nothing is left to do; 1 batches are left and a person must look; 2 wrong usage or an unusable "
    "configuration; 3 not authenticated; 4 temporary, run it again later; 129, 130 and 143 ended by SIGHUP, SIGINT and "
    "SIGTERM."
)


def add_directory(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add ``--dir``. With ``several`` it may be repeated: ``dirs`` has all values, and ``dir`` the last."""
    if several:
        parser.set_defaults(dirs=[])
    parser.add_argument(
        "--dir",
        metavar="PATH",
        place="directory",
        example="runs/42/.cirron/spool",
        several="dirs" if several else "",
        help="the spool directory (default: $CIRRON_OUTPUT_DIR/spool or ./.cirron/spool)",
    )


def add_places(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add ``--dir``, which may be given several times, and the options of several spools."""
    add_directory(parser, several=True)
    group = parser.add_argument_group("several spools", "With --discover, or several --dir.")
    group.add_argument(
        "--discover",
        metavar="ROOT",
        place="directory",
        example="runs",
        several="discover",
        dest="discover",
        default=[],
        help="every spool at and below the folder ROOT; links are not followed; may be repeated",
    )
    group.add_argument(
        "--cross-file-systems",
        action="store_true",
        help="with --discover: search folders on other file systems than ROOT, too",
    )
    return group


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a part of the spool."""
    selection = parser.add_argument_group(
        "selection", "Select a part of the batches, counted from the oldest."
    )
    selection.add_argument(
        "--limit", metavar="N", read=Whole(1), example="100", help="at most N batches, the oldest"
    )
    selection.add_argument(
        "--max-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="500M",
        help="the oldest batches that together have at most SIZE bytes, such as 500M",
    )
    selection.add_argument(
        "--older-than",
        metavar="TIME",
        read=Age(),
        example="2h",
        help="only batches older than TIME, such as 30m, 2h, 3d or 2026-04-18T04:30Z, by the time in the name",
    )
    selection.add_argument(
        "--newer-than",
        metavar="TIME",
        read=Age(),
        example="2h",
        help="only batches that are not older than TIME",
    )


def add_dry_run(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--dry-run`` with its help ``text``."""
    parser.add_argument("-n", "--dry-run", action="store_true", help=text)


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add ``--force``."""
    parser.add_argument("-f", "-y", "--force", action="store_true", help="delete without asking")
