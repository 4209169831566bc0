"""``receipts verify``."""

from __future__ import annotations

from cirron_spool.cli.arguments.parser import Parser


def add_receipts(group: Parser) -> None:
    """Add ``receipts``."""
    parser = group.add_command(
        "receipts",
        help="check the receipts of flush --receipts",
        description="Check the file that flush --receipts has written.",
    )
    parser.make_group("action", "ACTION")
    verify = parser.add_command(
        "verify",
        help="check that no line was changed, and that a store has the same bytes",
        description=(
            "Check that no receipt between the first and the last was changed, added or removed. With --against, also "
            "check each batch in a receiver's store. Works offline."
        ),
    )
    verify.add_argument(
        "file", metavar="FILE", place="file", example="receipts.jsonl", help="the file of flush --receipts"
    )
    verify.add_argument(
        "--against",
        metavar="STORE",
        place="directory",
        example="received",
        help="a receiver's folder, which must hold each batch with the same bytes",
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    verify.set_defaults(run="receipts", action="verify")
