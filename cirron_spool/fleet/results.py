"""The results of several flushes as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cirron_spool.display.warning_lines import WarningLines
from cirron_spool.errors import EXIT_OK, EXIT_TEMPFAIL, CirronSpoolError
from cirron_spool.events import FlushResult
from cirron_spool.pipeline.tally import worst


def nothing_sent(
    directory: Path, batches: int, *, exit_code: int | None = None, why: str = ""
) -> FlushResult:
    """The result of a spool with untried ``batches``. ``why`` is the reason, or empty."""
    if exit_code is None:
        exit_code = EXIT_TEMPFAIL if batches else EXIT_OK
    return FlushResult(
        directory, skipped=batches, untried=batches, exit_code=exit_code, warnings=(why,) if why else ()
    )


def failed_result(directory: Path, batches: int, error: CirronSpoolError) -> FlushResult:
    """The result of a spool whose flush raised ``error``, with its message."""
    result = error.result or nothing_sent(directory, batches, exit_code=error.exit_code)
    known = {*result.warnings, *(failure.message for failure in result.failures)}
    words = (line for line in (str(error), error.hint) if line and line not in known)
    return replace(result, warnings=(*result.warnings, *words))


def joined(earlier: FlushResult | None, later: FlushResult) -> FlushResult:
    """The results of two consecutive flushes of one spool as one result.

    The later flush counts the batches that the earlier one left.
    """
    if earlier is None:
        return later
    # The later flush cancels a temporary failure of the earlier one.
    lasting = EXIT_OK if earlier.exit_code == EXIT_TEMPFAIL else earlier.exit_code
    new_warnings = [line for line in later.warnings if line not in earlier.warnings]
    return replace(
        later,
        uploaded=earlier.uploaded + later.uploaded,
        failed=earlier.failed + later.failed,
        quarantined=earlier.quarantined + later.quarantined,
        evicted=earlier.evicted + later.evicted,
        bytes_read=earlier.bytes_read + later.bytes_read,
        bytes_sent=earlier.bytes_sent + later.bytes_sent,
        seconds=earlier.seconds + later.seconds,
        failures=earlier.failures + later.failures,
        exit_code=worst([lasting, later.exit_code]),
        warnings=WarningLines((*earlier.warnings, *new_warnings)).lines(),
        destination=later.destination or earlier.destination,
        verified=later.verified or earlier.verified,
        snapshots=later.snapshots or earlier.snapshots,
    )
