"""``status``."""

from __future__ import annotations

from cirron_spool.cli.arguments.options import add_places
from cirron_spool.cli.arguments.parser import Parser


def add_status(group: Parser) -> None:
    """Add ``status``."""
    parser = group.add_command(
        "status",
        help="show the spool, the login and the platform on one screen",
        description=(
            "Show the spool, its quarantine and snapshots, the login, the platform's answer, and the next step. "
            "Nothing is changed or sent, but a login's token that is about to expire is renewed."
        ),
        epilog=(
            "exit codes: 0 a flush can run; 1 a person must look; 2 wrong usage or an unusable configuration; 3 signed "
            "out, or the token was refused; 4 the platform does not answer."
        ),
    )
    add_places(parser)
    parser.add_argument("--offline", action="store_true", help="do not ask the platform")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run="status")
