"""``completion``."""

from __future__ import annotations

from cirron_spool.cli.arguments.parser import Parser
from cirron_spool.cli.arguments.values import OneOf

PROGRAMS = ("cirron-spool", "cirron")


def add_completion(group: Parser) -> None:
    """Add ``completion``."""
    parser = group.add_command(
        "completion",
        help="print the completion of a shell",
        description=(
            "Print a script that completes commands, options and paths in a shell. A wheel installs the scripts in "
            "the folders that the shells search."
        ),
    )
    parser.add_argument(
        "shell",
        nargs="?",
        metavar="SHELL",
        read=OneOf("bash", "zsh", "fish"),
        example="bash",
        help="bash, zsh or fish (default: the one in the variable SHELL)",
    )
    parser.add_argument(
        "--program",
        metavar="NAME",
        read=OneOf(*PROGRAMS),
        example="cirron",
        default=PROGRAMS[0],
        help=f"complete {PROGRAMS[0]} or {PROGRAMS[1]} (default: {PROGRAMS[0]})",
    )
    parser.set_defaults(run="completion")
