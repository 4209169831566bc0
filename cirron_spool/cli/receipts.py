"""``receipts verify``: check the receipts of flushes."""

from __future__ import annotations

import argparse

from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_ATTENTION, EXIT_OK
from cirron_spool.receipts.check import ReceiptsCheck, check_receipts
from cirron_spool.text import count, printable

# Most problems that are printed. Further ones are counted.
_SHOWN_PROBLEMS = 20


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Check the file as the arguments say; return the exit code."""
    del signals
    check = check_receipts(options.file, options.against)
    for problem in check.problems[:_SHOWN_PROBLEMS]:
        console.error(problem)
    if len(check.problems) > _SHOWN_PROBLEMS:
        console.error(f"And {count(len(check.problems) - _SHOWN_PROBLEMS, 'further problem')}.")
    if not check.receipts:
        console.warning(f"{printable(options.file)} has no receipts.")
    if not options.json:
        console.data(_lines(check, options))
    fault = Fault("ReceiptsError", check.problems[0]) if check.problems else None
    return console.end(EXIT_ATTENTION if check.problems else EXIT_OK, _document(check, options), fault)


def _lines(check: ReceiptsCheck, options: argparse.Namespace) -> list[str]:
    lines = [f"Receipts: {check.receipts}  Batches: {check.batches}  Problems: {len(check.problems)}"]
    if check.torn:
        lines.append(
            f"Torn lines: {check.torn} (left by a crash before the delete of their batches, or the file was cut)"
        )
    if check.first is not None:
        lines.append(f"The first receipt continues the file whose last one is {check.first}")
    if check.last is not None:
        lines.append(f"Last receipt: {check.last}")
    if options.against is not None:
        lines.append(f"In {printable(options.against)}: {check.found} of {count(check.batches, 'batch')}")
    return lines


def _document(check: ReceiptsCheck, options: argparse.Namespace) -> dict[str, object]:
    document: dict[str, object] = {
        "file": options.file,
        "receipts": check.receipts,
        "batches": check.batches,
        "torn": check.torn,
        "continues": check.first,
        "last": check.last,
        "problems": check.problems,
    }
    if options.against is not None:
        document |= {"store": options.against, "found": check.found}
    return document
