"""``quarantine list``, ``retry`` and ``clear``."""

from __future__ import annotations

from cirron_spool.cli.arguments.options import add_directory, add_force
from cirron_spool.cli.arguments.parser import Parser


def add_quarantine(group: Parser) -> None:
    """Add ``quarantine``."""
    parser = group.add_command(
        "quarantine",
        help="handle batches that flush --quarantine set aside",
        description="Handle the batches that the platform rejected and that flush --quarantine set aside.",
    )
    parser.make_group("action", "ACTION")
    list_parser = parser.add_command("list", help="list them with the reasons")
    add_directory(list_parser)
    list_parser.add_argument("--json", action="store_true", help="print one JSON object")
    retried = parser.add_command("retry", help="move them back into the spool for the next flush")
    add_directory(retried)
    retried.add_argument("--json", action="store_true", help="print one JSON object")
    retried.add_argument("names", nargs="*", metavar="NAME", help="only these batches (default: all)")
    cleared = parser.add_command("clear", help="delete them, after asking")
    add_directory(cleared)
    add_force(cleared)
    cleared.add_argument("--json", action="store_true", help="print one JSON object")
    cleared.add_argument("names", nargs="*", metavar="NAME", help="only these batches (default: all)")
    retried.takes_names = cleared.takes_names = True
    for name, action in parser.commands.items():
        action.set_defaults(run="quarantine", action=name)
