"""``inspect`` and ``clear``."""

from __future__ import annotations

from cirron_spool.cli.arguments.options import add_dry_run, add_force, add_places, add_selection
from cirron_spool.cli.arguments.parser import Parser
from cirron_spool.cli.arguments.values import Whole


def add_inspect(group: Parser) -> None:
    """Add ``inspect``."""
    parser = group.add_command(
        "inspect",
        help="list spool files with sizes and timestamps",
        description="List the batches in the spool, oldest first, without reading them. Works offline.",
    )
    add_places(parser)
    add_selection(parser)
    parser.add_argument(
        "--last", metavar="N", read=Whole(1), example="20", help="show the newest N batches only"
    )
    parser.add_argument(
        "--summary",
        action="store_true",
        help="show the time span, the rate and the space left, instead of the batches",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        place="file",
        takes_dash=True,
        example="spool.html",
        help="write an HTML page with the summary and the batches to FILE (- is standard output)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run="inspect")


def add_clear(group: Parser) -> None:
    """Add ``clear``."""
    parser = group.add_command(
        "clear",
        help="delete local spool files",
        description="Delete every batch in the spool, or the selected ones, after asking. Works offline.",
    )
    add_places(parser)
    add_selection(parser)
    add_dry_run(parser, "list the batches that would be deleted, and delete nothing")
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run="clear")
