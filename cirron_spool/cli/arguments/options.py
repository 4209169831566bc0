"""Options and texts that several commands have."""

from __future__ import annotations

import argparse

EXIT_CODES = (
    "exit codes: 0 nothing is left to do; 1 batches are left and a person must look; 2 wrong usage or an unusable "
    "configuration; 3 not authenticated; 4 temporary, run it again later; 129, 130 and 143 ended by SIGHUP, SIGINT and "
    "SIGTERM."
)


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add ``--dir``."""
    parser.add_argument(
        "--dir",
        metavar="PATH",
        place="directory",
        example="runs/42/.cirron/spool",
        help="the spool directory (default: $CIRRON_OUTPUT_DIR/spool or ./.cirron/spool)",
    )
